"""What a live stream tells: each shape is the data of one kind of event; an `insight` event carries an `Insight`."""

from datetime import datetime
from typing import Literal

from typing_extensions import TypedDict


class LiveStatus(TypedDict):
    """How the service is doing; worker and Grok are those of the process that holds the stream.

    `oldest_due_at`: since when the longest waiting conversation has been due; null when none is. `outage`: the code of
    what has to be mended before Grok can be used; `lane` is shut while calls to it rest.
    """

    queue_size: int
    oldest_due_at: datetime | None
    insights_total: int
    worker_running: bool
    grok_mode: str
    breaker: str
    lane: Literal["open", "shut"]
    outage: str | None


class SkippedInsights(TypedDict):
    """So many insights were written and not told, counted before any filter; `url` has those that match."""

    count: int
    url: str


class StreamEnd(TypedDict):
    """The last event; a client that connects again with `Last-Event-ID` misses nothing."""

    reason: Literal["shutdown", "key_revoked"]
