"""What is answered of conversations: taken in, as they are stored, sent back."""

from datetime import datetime
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from answers.insights import GrokAnalysis
from answers.upkeep import Correction


class Accepted(TypedDict):
    status: Literal["accepted"]
    conversation_id: str
    message: str


class BulkItemResult(TypedDict):
    index: int
    status: Literal["accepted", "duplicate", "invalid"]
    conversation_id: NotRequired[str]
    error: NotRequired[str]
    details: NotRequired[str]


class BulkAccepted(TypedDict):
    status: Literal["accepted"]
    accepted: int
    duplicates: int
    rejected: int
    results: list[BulkItemResult]


class Conversation(TypedDict):
    """A stored conversation; `error` when it failed, `skip_reason` when skipped, `insight` when there is one.

    `correction`, with one conversation alone: what a person said of it, and what the model had said.
    """

    conversation_id: str
    status: str
    text: str
    author: str | None
    timestamp: datetime
    raw_data: dict[str, Any] | None
    external_id: str | None
    created_at: datetime
    attempts: int
    error: str | None
    error_code: str | None
    skip_reason: str | None
    insight: NotRequired[GrokAnalysis | None]
    correction: NotRequired[Correction]


class ConversationPageMetadata(TypedDict):
    returned_count: int
    next_cursor: str | None


class ConversationPage(TypedDict):
    conversations: list[Conversation]
    metadata: ConversationPageMetadata


class Retried(TypedDict):
    status: Literal["accepted"]
    retried: int
