"""What the operator is answered: is it alive, is it ready, and what has it done; times are UTC, money is USD."""

from datetime import datetime
from typing import Literal

from typing_extensions import TypedDict


class Health(TypedDict):
    """`oldest_due_seconds`: how long the longest waiting conversation has been due; null when none is."""

    status: Literal["ok", "degraded"]
    queue_size: int | None
    oldest_due_seconds: float | None
    worker_running: bool
    grok_mode: str


class Ready(TypedDict):
    """`grok`: what xAI said of key and model when it was asked at the start; `details` is a sentence about it."""

    status: Literal["ready"]
    grok: str
    details: str


class Queue(TypedDict):
    """`oldest_pending_seconds`: since the longest waiting conversation was accepted; null when none waits."""

    counts: dict[str, int]
    oldest_pending_seconds: float | None
    finished_per_second: float


class KeyVerdict(TypedDict):
    verdict: str
    details: str


class Outage(TypedDict):
    code: str
    details: str


class Grok(TypedDict):
    """`wait_seconds`: until calls make sense again; 0 when they do now. `calls_per_second_now` falls after a 429."""

    mode: str
    model: str
    breaker: str
    wait_seconds: float
    outage: Outage | None
    calls_per_second: int
    calls_per_second_now: int
    pack_size: int
    model_mismatches: int
    key_check: KeyVerdict


class Spending(TypedDict):
    """What calls to Grok used; `unreported_calls` said nothing, and are charged at the most they could have cost."""

    calls: int
    unreported_calls: int
    conversations: int
    uncached_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost_usd: float


class DayOfModel(Spending):
    day: str
    model: str


class Budget(TypedDict):
    """`resumes_at`: when calls go on, once the day's budget is spent; null while there is room."""

    daily_usd: float | None
    spent_usd: float
    reserved_usd: float
    resumes_at: datetime | None


class Usage(TypedDict):
    today: Spending
    total: Spending
    days: list[DayOfModel]


class Share(TypedDict):
    """`share` of `of`, 0 to 1; null when there is nothing to share."""

    count: int
    of: int
    share: float | None


class Saved(Share):
    """`estimated_usd`: what these would have cost, at the average of those that Grok read."""

    estimated_usd: float


class Savings(TypedDict):
    """Conversations that needed no call, each kind as a share of all that were read or skipped."""

    cached: Saved
    skipped: Saved
    little_to_read: Saved
    cascade: Saved
    total: Saved
    skip_reasons: dict[str, int]


class Quality(TypedDict):
    """`canary_agreement`: read in a pack and again alone, with the same sentiment. The audit reads what needed no Grok.

    `skip_loss`: complaints among what would have been skipped; `keep_loss`: local answers that Grok contradicts.
    """

    canary_agreement: Share
    skip_loss: Share
    keep_loss: Share
    injection_suspected: int


class Summary(TypedDict):
    at: datetime
    queue: Queue
    grok: Grok
    usage: Usage
    budget: Budget
    savings: Savings
    quality: Quality
