"""What is answered of erasing, correcting and reading again."""

from datetime import datetime
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict


class Erasure(TypedDict):
    """The receipt: how many rows are gone, by what they were."""

    status: Literal["erased"]
    erased_at: datetime
    conversations: int
    insights: int
    corrections: int
    cached_analyses: int


class ModelSaid(TypedDict):
    """What the model said before anybody corrected it."""

    sentiment_score: float
    sentiment: str
    clusters: list[str]
    confidence: float


class Correction(TypedDict):
    """What a person said; null where they said nothing. `original` is what the model had said."""

    conversation_id: str
    sentiment: str | None
    topics: list[str] | None
    note: str | None
    corrected_at: datetime
    original: ModelSaid


class Estimate(TypedDict):
    """`basis`: what reading has cost so far, the price list when nothing was read yet, or nothing, offline."""

    conversations: int
    estimated_usd: float
    basis: Literal["usage", "price_list", "offline"]


class ReanalysisAccepted(Estimate):
    status: Literal["accepted", "dry_run"]
    reanalysis_id: NotRequired[int]


class Reanalysis(TypedDict):
    """`conversations` matched when it was ordered; `requeued` of them have been sent back to the queue so far."""

    reanalysis_id: int
    filters: dict[str, Any]
    requested_at: datetime
    conversations: int
    requeued: int
    ended_at: datetime | None


class Reanalyses(TypedDict):
    reanalyses: list[Reanalysis]
