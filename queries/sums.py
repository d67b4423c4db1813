"""What the insights of a time add up to, in total, by topic and by bucket.

All from the counters: whole hours and days are added up, and only what lies between a moment and the next full hour is
counted row by row. The sums are whole numbers, so the means are those of the rows themselves.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Select,
    SQLColumnExpression,
    Text,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    union_all,
)

from answers import Feelings
from database import ReadSession
from models import (
    ALL_TOPICS,
    ANY_CONFIDENCE,
    CONFIDENCE_UNITS,
    EPOCH,
    SCORE_UNITS,
    InsightCount,
    InsightRow,
    InsightTopic,
)
from queries.columns import ALL, OF_TOPIC, Rows
from queries.counting import COUNTS, SPANS, TOPICS, Edge, Periods, cut, single_topics
from queries.hot import Hot
from schemas import Sentiment

_HOUR = timedelta(hours=1)
_KEPT = (
    *(COUNTS[sentiment] for sentiment in Sentiment),
    InsightCount.score_sum,
    InsightCount.confidence_sum,
)


def _whole(column: SQLColumnExpression[int]) -> ColumnElement[int]:
    """PostgreSQL adds whole numbers up to decimals, and no rows add up to null."""
    return func.coalesce(cast(func.sum(column), BigInteger), literal_column("0", BigInteger))


def _in_units(column: SQLColumnExpression[float], units: int) -> ColumnElement[int]:
    return cast(func.round(column * literal_column(f"{units}", Integer)), BigInteger)


_COUNTED = tuple([_whole(column) for column in _KEPT])
_FROM_ROWS = (  # the same sums, of the rows themselves
    *(func.count().filter(InsightRow.sentiment == literal_column(f"'{sentiment}'")) for sentiment in Sentiment),
    _whole(_in_units(InsightRow.sentiment_score, SCORE_UNITS)),
    _whole(_in_units(InsightRow.confidence, CONFIDENCE_UNITS)),
)
_SINCE = InsightCount.period - bindparam("first")
_BUCKET = (_SINCE // bindparam("stride")).label("bucket")
_OF_TOPIC_AND_SPAN = (
    InsightCount.topic == bindparam("topic"),
    InsightCount.span == bindparam("span"),
    InsightCount.confidence == literal_column(f"{ANY_CONFIDENCE}", BigInteger),
    InsightCount.period.between(bindparam("first"), bindparam("last")),
)
_BY_BUCKET = Hot(
    select(_BUCKET, *_COUNTED)
    .where(*_OF_TOPIC_AND_SPAN, _SINCE % bindparam("stride") < bindparam("inside"))
    .group_by(_BUCKET)
)
# where each bucket is one period: nothing is to be grouped
_BY_PERIOD = Hot(select(_SINCE, *_KEPT).where(*_OF_TOPIC_AND_SPAN))
_MOST_KEPT = 400  # bounds of one series: all day long the same days are asked for; hours are too many to be kept
_MOST_SLOTS = 6  # of one statement: two periods, each of days and the hours at both ends


@dataclass(slots=True)
class Sums:
    """Insights by sentiment, and what they add up to: scores in ten-thousandths, confidences in hundredths."""

    positive: int = 0
    neutral: int = 0
    negative: int = 0
    score: int = 0
    confidence: int = 0

    @property
    def count(self) -> int:
        return self.positive + self.neutral + self.negative

    def less(self, other: "Sums") -> "Sums":
        return Sums(
            self.positive - other.positive,
            self.neutral - other.neutral,
            self.negative - other.negative,
            self.score - other.score,
            self.confidence - other.confidence,
        )

    def add(self, row: Sequence[int], *, sign: int = 1) -> None:
        positive, neutral, negative, score, confidence = row
        self.positive += sign * positive
        self.neutral += sign * neutral
        self.negative += sign * negative
        self.score += sign * score
        self.confidence += sign * confidence


_Arm = Callable[[int, str], Select[*tuple[Any, ...]]]  # what a slot adds to a statement of a dialect
_Slot = tuple[Mapping[str, Sums], Periods | Edge]  # where sums go by topic, and of what


@dataclass(slots=True)
class _Run:
    """Buckets in a row that are alike: each `stride` hours after the last, with `inside` whole hours of them inside."""

    index: int
    buckets: int
    first: int
    stride: int
    inside: int

    def parameters(self, topic: str) -> dict[str, str | int]:
        """Of _BY_BUCKET; a run of whole days (UTC) reads a row a day instead of 24."""
        if self.stride == self.inside == 24 and self.first % 24 == 0:
            first, stride, inside, span = self.first // 24, 1, 1, "day"
        else:
            first, stride, inside, span = self.first, self.stride, self.inside, "hour"
        last = first + self.buckets * stride - 1
        return {"topic": topic, "span": span, "first": first, "last": last, "stride": stride, "inside": inside}


def feelings_of(sums: Sums) -> Feelings:
    count = sums.count
    return {
        "count": count,
        "positive": sums.positive,
        "neutral": sums.neutral,
        "negative": sums.negative,
        "negative_share": negative_share(sums),
        "mean_sentiment": round(sums.score / SCORE_UNITS / count, 4) if count else None,
        "mean_confidence": round(sums.confidence / CONFIDENCE_UNITS / count, 4) if count else None,
    }


def negative_share(sums: Sums) -> float | None:
    return round(sums.negative / sums.count, 4) if sums.count else None


def sum_by_topic(session: ReadSession, *, start: datetime | None, end: datetime | None) -> dict[str, Sums]:
    """What the insights from `start` until before `end` add up to: all under `*`, and by topic where any has it."""
    return sum_ranges(session, [(start, end)])[0]


def sum_ranges(
    session: ReadSession, ranges: Sequence[tuple[datetime | None, datetime | None]]
) -> list[dict[str, Sums]]:
    """The same of several times; None is open."""
    sums = [defaultdict[str, Sums](Sums) for _ in ranges]
    periods, edges = list[_Slot](), list[_Slot]()
    for place, (start, end) in zip(sums, ranges, strict=True):
        whole, rest = cut(start, end, spans=SPANS)
        periods += [(place, one) for one in whole]
        edges += [(place, one) for one in rest]
    topics = single_topics(session)
    _add(session, periods, _periods, topics=[ALL_TOPICS, *topics])
    _add(session, edges, _edge_of_all, _edge_by_topic, topics=topics)
    return [{topic: part for topic, part in one.items() if part.count} for one in sums]  # what was erased left zeros


def sum_by_bucket(session: ReadSession, bounds: Sequence[datetime], *, topic: str = ALL_TOPICS) -> list[Sums]:
    """What the insights of each bucket add up to; bucket i lasts from bounds[i] until before bounds[i + 1]."""
    found: dict[int, Sums] = {}
    hours = [_hour_of(bound) for bound in bounds]
    for run in _known_runs(tuple(hours)) if len(hours) <= _MOST_KEPT else _runs(hours):
        values = run.parameters(topic)
        statement = _BY_PERIOD if values["stride"] == 1 else _BY_BUCKET
        for offset, *sums in statement.rows(session, values):
            found[run.index + offset] = Sums(*sums)
    series = [found.get(number) or Sums() for number in range(len(bounds) - 1)]
    are_full = [is_full for _, is_full in hours]
    edges = [
        ({topic: sums}, edge)
        for sums, (start, end), whole in zip(series, pairwise(bounds), pairwise(are_full), strict=True)
        if not all(whole)
        for edge in _outside_of_whole_hours(start, end)
    ]
    _add(session, edges, _edge_of_all if topic == ALL_TOPICS else _edge_of_topics, topics=[topic])
    return series


def _outside_of_whole_hours(start: datetime, end: datetime) -> Iterator[Edge]:
    first, after = EPOCH - (EPOCH - start) // _HOUR * _HOUR, EPOCH + (end - EPOCH) // _HOUR * _HOUR
    if first > after:
        yield Edge(start, end)
        return
    if start < first:
        yield Edge(start, first)
    if after < end:
        yield Edge(after, end)


@lru_cache(maxsize=10_000)
def _hour_of(moment: datetime) -> tuple[int, bool]:
    """Whole hours since 1970, and whether it is a full hour."""
    hour, past = divmod(moment - EPOCH, _HOUR)
    return hour, not past


def _add(session: ReadSession, slots: Sequence[_Slot], *arms: _Arm, topics: Sequence[str]) -> None:
    """Some slots at a time, for each statement costs more than what it reads."""
    for first in range(0, len(slots), _MOST_SLOTS):
        some = slots[first : first + _MOST_SLOTS]
        values = {
            f"{name}_{slot}": value for slot, (_, one) in enumerate(some) for name, value in one.parameters.items()
        }
        statement = _union(arms, len(some), session.dialect.name)
        for slot, topic, *sums in statement.rows(session, values | {"topics": topics}):
            place, one = some[int(slot)]
            place[topic].add(sums, sign=one.sign)


@cache
def _union(arms: Sequence[_Arm], slots: int, dialect: str) -> Hot:
    return Hot(union_all(*(arm(slot, dialect) for arm in arms for slot in range(slots))))


def _periods(slot: int, _dialect: str) -> Select[*tuple[Any, ...]]:
    return (
        select(literal_column(f"{slot}", Integer), InsightCount.topic, *_COUNTED)
        .where(InsightCount.span == bindparam(f"span_{slot}"), InsightCount.topic.in_(TOPICS))
        .where(InsightCount.confidence == literal_column(f"{ANY_CONFIDENCE}", BigInteger))
        .where(InsightCount.period.between(bindparam(f"first_{slot}"), bindparam(f"last_{slot}")))
        .group_by(InsightCount.topic)
    )


def _edge_of_all(slot: int, _dialect: str) -> Select[*tuple[Any, ...]]:
    """Row by row."""
    everything = literal_column(f"'{ALL_TOPICS}'", Text)
    return select(literal_column(f"{slot}", Integer), everything, *_FROM_ROWS).where(_within(ALL, slot))


def _edge_by_topic(slot: int, dialect: str) -> Select[*tuple[Any, ...]]:
    """Row by row, with the topics of each: SQLite reads both from indexes alone, by time and then by insight.

    PostgreSQL would read all of `insight_topics` if it were not told of which time they are.
    """
    rows = _of_topics(slot).where(_within(ALL, slot))
    return rows if dialect == "sqlite" else rows.where(InsightTopic.topic.in_(TOPICS), _within(OF_TOPIC, slot))


def _edge_of_topics(slot: int, _dialect: str) -> Select[*tuple[Any, ...]]:
    """Row by row of these topics, by the topic's own time: its key begins with topic and time."""
    return _of_topics(slot).where(InsightTopic.topic.in_(TOPICS), _within(OF_TOPIC, slot))


def _of_topics(slot: int) -> Select[*tuple[Any, ...]]:
    rows = select(literal_column(f"{slot}", Integer), InsightTopic.topic, *_FROM_ROWS).select_from(InsightTopic)
    return rows.join(InsightRow, InsightRow.id == InsightTopic.insight_id).group_by(InsightTopic.topic)


def _within(rows: Rows, slot: int) -> ColumnElement[bool]:
    return rows.timestamp.between(bindparam(f"start_{slot}"), bindparam(f"last_{slot}"))


def _runs(hours: Sequence[tuple[int, bool]]) -> Sequence[_Run]:
    runs: list[_Run] = []
    for index, ((start, is_full), (after, _)) in enumerate(pairwise(hours)):
        first = start if is_full else start + 1
        inside = after - first
        if inside <= 0:
            continue
        if runs and _continues(run := runs[-1], index, first=first, inside=inside):
            run.stride = first - run.first if run.buckets == 1 else run.stride
            run.buckets += 1
        else:
            runs.append(_Run(index, 1, first, inside, inside))
    return runs


@lru_cache(maxsize=64)
def _known_runs(hours: tuple[tuple[int, bool], ...]) -> Sequence[_Run]:
    return _runs(hours)


def _continues(run: _Run, index: int, *, first: int, inside: int) -> bool:
    if index != run.index + run.buckets or inside != run.inside:
        return False
    return run.buckets == 1 or first == run.first + run.buckets * run.stride
