"""What can be asked for in a query string, checked: filters, pages, time zones, words to look for."""

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Literal, Self, cast
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema, model_validator

from schemas import Name, Sentiment, Status, UtcTime, Wire, parse_time, refuse_nul

MOST_TREND_DAYS = 366


class Facet(StrEnum):
    TOPIC = "topic"
    SENTIMENT = "sentiment"
    AUTHOR = "author"


class Format(StrEnum):
    JSON = "json"
    CSV = "csv"
    JSONL = "jsonl"


@dataclass(frozen=True, slots=True)
class Words:
    """What a text must hold: one word or, from quotes, words in a row; with `prefix`, a word that begins so."""

    text: str
    prefix: bool = False


_QUOTED_OR_BARE = re.compile(r'"([^"]*)"|([^\s"]+)')
_MOST_WORDS = 16


def parse_words(query: str) -> tuple[Words, ...]:
    """`late "my order" refund*` as three demands; what holds neither letter nor digit demands nothing."""
    found = (
        Words(phrase or bare.rstrip("*"), prefix=bare.endswith("*")) for phrase, bare in _QUOTED_OR_BARE.findall(query)
    )
    return tuple(dict.fromkeys(words for words in found if any(map(str.isalnum, words.text))))


def _check_words(query: str) -> str:
    if not 1 <= len(parse_words(query)) <= _MOST_WORDS:
        raise ValueError(f"must hold 1 to {_MOST_WORDS} words or numbers to look for")
    return query


def _split_facets(value: object) -> object:
    """`topic,sentiment` and a repeated parameter are the same."""
    if isinstance(value, list):
        parts = [part for item in cast("list[object]", value) for part in str(item).split(",")]
        return list(dict.fromkeys(parts))
    return value


def _parse_zone(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return ZoneInfo(value)
    except (ValueError, OSError, KeyError):  # a path, a folder, a name that is not there
        raise ValueError("is no time zone; send a name such as Europe/Berlin or UTC") from None


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page ended: the sort key of its last row."""

    timestamp: datetime
    row_id: int

    def encode(self) -> str:
        return base64.urlsafe_b64encode(f"{self.timestamp.isoformat()}|{self.row_id}".encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, cursor: str) -> Self:
        """Raises ValueError when `cursor` is not one of ours."""
        try:
            moment, row_id = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().split("|")
            position = cls(parse_time(moment), int(row_id))
        except (ValueError, binascii.Error):
            raise ValueError("is not a cursor of this service; take it from metadata.next_cursor") from None
        if not 0 <= position.row_id < 2**63:
            raise ValueError("is not a cursor of this service; take it from metadata.next_cursor")
        return position


def _decode_cursor(value: object) -> object:
    return Position.decode(value) if isinstance(value, str) and len(value) <= 256 else value


class _Timed(Wire):
    start_time: UtcTime | None = Field(default=None, description="Inclusive.")
    end_time: UtcTime | None = Field(default=None, description="Exclusive.")

    @model_validator(mode="after")
    def _end_after_start(self) -> Self:
        if self.start_time and self.end_time and self.start_time > self.end_time:
            raise ValueError("start_time must not be after end_time")
        return self


class _Judged(Wire):
    sentiment: Sentiment | None = Field(
        default=None, description="By score: positive above 0.1, negative below -0.1, neutral between."
    )
    min_confidence: float | None = Field(default=None, ge=0, le=1, description="At least this sure.")
    topic: list[Name] = Field(default=[], max_length=20, description="Any of these topics; repeat the parameter.")


_WORDS = Field(json_schema_extra={"format": "words"})  # so many of them; a pattern cannot say what is quoted


class InsightFilter(_Judged, _Timed):
    """Which insights; every condition must hold."""

    author: Name | None = Field(default=None, description="Who wrote it, as it was sent.")
    q: (
        Annotated[str, Field(max_length=256), AfterValidator(refuse_nul), AfterValidator(_check_words), _WORDS] | None
    ) = Field(
        default=None,
        description='Words that the text must hold, all of them; `"my order"` in a row; `refund*` begins so.',
    )


class InsightQuery(InsightFilter):
    """Which insights, newest first, a page at a time or all of them as a file."""

    limit: int = Field(default=100, ge=1, le=1000, description="Insights on a page; a file has all.")
    cursor: Annotated[
        Position | None,
        BeforeValidator(_decode_cursor),
        WithJsonSchema({"anyOf": [{"type": "string", "format": "cursor"}, {"type": "null"}]}),
        Field(default=None, description="`metadata.next_cursor` of the page before."),
    ]
    facet: Annotated[list[Facet], BeforeValidator(_split_facets), Field(max_length=3)] = Field(
        default=[], description="Count what matches by these, too; comma-separated: topic,sentiment,author."
    )
    format: Format | None = Field(default=None, description="csv and jsonl hold every match; also by `Accept`.")


class ReanalysisQuery(InsightFilter):
    """What to read again."""

    model: Name | None = Field(default=None, description="Only what this model read.", examples=["local-linear-1"])
    dry_run: bool = Field(default=False, description="Only say how many conversations it is, and what it would cost.")


class EventQuery(_Judged):
    """Which new insights a live stream tells."""


class TrendsQuery(_Timed):
    """Over which time, in which buckets; `start_time` and `end_time` go before `days`."""

    days: int = Field(
        default=7, ge=1, le=MOST_TREND_DAYS, description="So many days, today included, in the time zone `tz`."
    )
    start_time: UtcTime | None = Field(default=None, description="Inclusive; default: `days` before the end.")
    end_time: UtcTime | None = Field(default=None, description="Exclusive; default: now.")
    bucket: Literal["hour", "day"] = Field(default="day", description="How long a bucket is.")
    topic: Name | None = Field(default=None, description="Buckets and totals of this topic alone.")
    tz: Annotated[ZoneInfo, BeforeValidator(_parse_zone), WithJsonSchema({"type": "string", "format": "time-zone"})] = (
        Field(default=ZoneInfo("UTC"), description="Whose hours and days, such as Europe/Berlin.")
    )

    @model_validator(mode="after")
    def _within_a_year(self) -> Self:
        if self.start_time and self.end_time and self.end_time - self.start_time > timedelta(days=MOST_TREND_DAYS):
            raise ValueError(f"start_time and end_time must be at most {MOST_TREND_DAYS} days apart")
        return self


class TopicsQuery(_Timed):
    """Of which time the topics are counted; open where nothing is given."""


class ConversationQuery(Wire):
    """Which conversations, newest first."""

    status: Status | None = Field(default=None, description="Only those in this state.")
    limit: int = Field(default=100, ge=1, le=1000, description="So many at most.")
    cursor: Annotated[str, StringConstraints(pattern=r"^conv_[0-9a-f]{32}$")] | None = Field(
        default=None, description="`metadata.next_cursor` of the page before."
    )


class ErasureQuery(Wire):
    """Whose conversations to erase; nobody's is no default."""

    author: Name = Field(description="As it was sent.")


class QualityQuery(Wire):
    model: Name | None = Field(default=None, description="Only what this model read.", examples=["grok-4.3"])


class RetryQuery(Wire):
    status: Literal["failed"] = Field(default="failed", description="There is nothing else to send back.")
