"""What comes in: the closed sets, requests, query parameters, and the analysis of a text; all checked here."""

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Self

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    WithJsonSchema,
    model_validator,
)

MAX_TEXT_CHARS = 10_000
MAX_RAW_DATA_BYTES = 64 * 1024
MAX_BULK_ITEMS = 500
MOST_TOPICS = 3  # of one conversation: the counters know topics that are found together up to so many
MAX_TOPIC_CHARS = 64
MAX_UNLISTED_TOPICS = 3


class Status(StrEnum):
    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"


class Sentiment(StrEnum):
    """Which side of +-0.1 a sentiment score lies on."""

    POSITIVE = "positive"
    NEUTRAL = "neutral"
    NEGATIVE = "negative"

    @classmethod
    def of_score(cls, score: float) -> "Sentiment":
        if score > 0.1:
            return cls.POSITIVE
        return cls.NEGATIVE if score < -0.1 else cls.NEUTRAL


class SkipReason(StrEnum):
    """Why there is nothing to analyze in a text."""

    EMPTY = "nothing_visible"
    LINK_ONLY = "link_only"
    MENTION_ONLY = "mention_only"
    DIGITS_ONLY = "digits_only"
    PUNCTUATION_ONLY = "punctuation_only"


class Tally(StrEnum):
    """What is counted for `/status/summary`, over restarts."""

    ASKED = "asked"  # conversations that Grok read
    CACHED = "cached"  # answered with what Grok had said of an equal text
    LITTLE_TO_READ = "little_to_read"  # the local answer stood: a word of thanks, an emoji
    CASCADE = "cascade"  # the local answer stood: it was sure enough
    SKIPPED = "skipped"  # nothing to read
    POISON = "poison"  # failed without being read: each of its owners died with it
    SKIP_AUDITED = "skip_audited"  # nothing to read, and Grok was asked all the same
    SKIP_LOST = "skip_lost"  # ... and found a complaint
    KEEP_AUDITED = "keep_audited"  # the local answer would have stood, and Grok was asked all the same
    KEEP_DIFFERED = "keep_differed"  # ... and felt otherwise
    CANARIES = "canaries"  # read in a pack, and again alone
    CANARIES_AGREED = "canaries_agreed"  # ... with the same sentiment
    SUSPECTED = "suspected"  # looked like instructions to a model
    REREAD_KEPT = "reread_kept"  # read again without a usable answer: the insight from before stands
    UNLISTED = "unlisted"  # topics that the model named and that are none of ours


_UNENCODED_PLUS = re.compile(r"(?<=\d) (?=\d\d:?\d\d$)")


def parse_time(value: object) -> datetime:
    """An ISO 8601 text as an aware moment in UTC; a time without an offset is UTC.

    A blank before the offset is read as the `+` that a query string lost. Raises ValueError with what to send instead.
    """
    try:
        if isinstance(value, datetime) and value.tzinfo is not None:
            return value.astimezone(UTC)
        if not isinstance(value, str) or len(value) > 64:
            raise ValueError("no text")
        text = _UNENCODED_PLUS.sub("+", value.strip()) if "T" in value else value.strip()
        if text.isdecimal() and len(text) != len("20250120"):
            raise ValueError("1610111230507 is milliseconds since 1970; fromisoformat makes it the year 1610")
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("must be an ISO 8601 text such as 2025-01-20T10:00:00Z, of the years 1 to 9999") from None


_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")  # as JSON has it; after a backslash of its own it is only text


def refuse_nul(value: str) -> str:
    if "\x00" in value:
        raise ValueError("must not hold NUL characters; remove them")
    return value


def _check_raw_data(value: dict[str, Any] | None) -> dict[str, Any] | None:
    if value is None:
        return None
    try:
        stored = orjson.dumps([[[[value]]]])[4:-4]  # within an answer it lies deeper, and must still be readable there
    except orjson.JSONEncodeError:
        raise ValueError("must nest at most 250 levels deep and hold integers of at most 64 bits") from None
    if len(stored) > MAX_RAW_DATA_BYTES:
        raise ValueError(f"must be at most {MAX_RAW_DATA_BYTES // 1024} KB as JSON")
    if _NUL.search(stored):
        raise ValueError("must not hold NUL characters; remove them")
    return value


UtcTime = Annotated[
    datetime,
    BeforeValidator(parse_time),
    WithJsonSchema({"type": "string", "anyOf": [{"format": "date-time"}, {"format": "date"}]}),
]
_TRIMMED = TypeAdapter(Annotated[str, StringConstraints(strip_whitespace=True)])


def _trim(value: str) -> str:
    """After its length was looked at, by what trims the text: `str.strip` takes four control characters, too."""
    if not (trimmed := _TRIMMED.validate_python(value)):
        raise ValueError("must not be empty")
    return trimmed


# What the checks beside it refuse, for the document: blanks alone, and NUL.
_VISIBLE = Field(json_schema_extra={"pattern": r"^[^\x00]*[^\x00\s][^\x00]*$"})
_NAMED = (AfterValidator(_trim), AfterValidator(refuse_nul), _VISIBLE)  # blanks around it count as characters
Name = Annotated[str, StringConstraints(min_length=1, max_length=255, strict=True), *_NAMED]
Note = Annotated[str, StringConstraints(min_length=1, max_length=2000, strict=True), *_NAMED]


class Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ConversationIn(Wire):
    """One conversation as a client sends it."""

    text: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT_CHARS, strict=True),
        AfterValidator(refuse_nul),
        _VISIBLE,
    ] = Field(examples=["Still waiting on my order, third week now"], description="What the customer wrote.")
    author: Name | None = Field(default=None, examples=["customer123"], description="Who wrote it.")
    timestamp: UtcTime | None = Field(default=None, examples=["2025-01-20T10:00:00Z"], description="Default: now.")
    raw_data: Annotated[dict[str, Any] | None, AfterValidator(_check_raw_data)] = Field(
        default=None, description="Anything else about it, at most 64 KB as JSON.", examples=[{"likes": 3}]
    )
    external_id: Name | None = Field(
        default=None, description="Your own key: sent again with the same content, nothing is stored twice."
    )


_UNIQUE = Field(json_schema_extra={"uniqueItems": True})


class CorrectionIn(Wire):
    """What a person says of a conversation: its sentiment, its topics, or both; what is left out is not judged."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["sentiment"], "properties": {"sentiment": {"type": "string"}}},
                {"required": ["topics"], "properties": {"topics": {"type": "array"}}},
            ]
        }
    )

    sentiment: Sentiment | None = Field(default=None, examples=["negative"], description="What the customer feels.")
    topics: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MOST_TOPICS), _UNIQUE] | None = Field(
        default=None,
        description="Topics of `GET /api/v1/topics`; `other` stands alone.",
        examples=[["refunds_returns"]],
    )
    note: Note | None = Field(
        default=None, examples=["Irony: the customer is still waiting."], description="For whoever reads it next."
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.sentiment is None and self.topics is None:
            raise ValueError("send sentiment, topics, or both")
        if self.topics and (len(set(self.topics)) < len(self.topics) or ("other" in self.topics and self.topics[1:])):
            raise ValueError("topics must differ, and other stands alone")
        return self


class BulkIn(Wire):
    """1 to 500 conversations; items are validated one by one, so that a bad one does not stop the others."""

    conversations: Annotated[list[Any], Field(min_length=1, max_length=MAX_BULK_ITEMS, description="Each on its own.")]


_Label = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TOPIC_CHARS)]


class Analysis(BaseModel):
    """What the analyzer says of one text, after every check; nothing unchecked ever becomes one."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    sentiment_score: float = Field(ge=-1, le=1)
    clusters: tuple[_Label, ...] = Field(min_length=1, max_length=MOST_TOPICS, strict=False)
    confidence: float = Field(ge=0, le=1)
    reasoning: str = Field(max_length=2048)
    summary: str = Field(max_length=2048)
    language: str = Field(default="und", max_length=16)
    injection_suspected: bool = False  # ours to say, never the model's
    unlisted_topics: tuple[_Label, ...] = Field(default=(), max_length=MAX_UNLISTED_TOPICS, strict=False)  # ours, too

    @property
    def sentiment(self) -> Sentiment:
        return Sentiment.of_score(self.sentiment_score)
