"""How many insights match, exactly, without a scan: whole days and hours from the counters, the edges from an index.

    start ---raw--- hour ---hours--- midnight ---days--- midnight ---hours--- hour ---raw--- end

Counters by confidence, and by set of topics, are kept by day only: their edges are up to a day long, and walk an index.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import InstrumentedAttribute, aliased

from database import ReadSession
from models import ALL_TOPICS, ANY_CONFIDENCE, CONFIDENCE_UNITS, EPOCH, InsightCount, InsightRow, InsightTopic
from schemas import InsightQuery, Sentiment

_NO_TOPIC = ""  # no name is empty: nothing is counted under it
_LENGTHS = {"day": timedelta(days=1), "hour": timedelta(hours=1)}
_LAST_MOMENT = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Periods:
    """Whole hours or days, from `first` until before `after`, counted since 1970; None is open."""

    span: str
    first: int | None
    after: int | None


@dataclass(frozen=True, slots=True)
class Edge:
    """What is left between a moment and the next whole period; `start` inclusive, `end` exclusive, None is open."""

    start: datetime
    end: datetime | None


def cut(start: datetime | None, end: datetime | None, *, spans: Sequence[str]) -> tuple[list[Periods], list[Edge]]:
    """A range of time as whole periods of these spans (longest first) and the edges that no period fills."""
    if not spans:
        return [], [Edge(start, end)] if start is not None and (end is None or start < end) else []
    span, *shorter = spans
    length = _LENGTHS[span]
    first = None if start is None else -((EPOCH - start) // length)  # rounded up
    after = None if end is None else (end - EPOCH) // length
    last = (_LAST_MOMENT - EPOCH) // length if after is None else after - 1
    if first is not None and first > last:
        return cut(start, end, spans=shorter)
    periods = [Periods(span, first, after)]
    edges: list[Edge] = []
    for edge_start, edge_end in (
        (start, None if first is None else EPOCH + first * length),
        (None if after is None else EPOCH + after * length, end),
    ):
        if edge_start is not None and edge_end is not None and edge_start < edge_end:
            more_periods, more_edges = cut(edge_start, edge_end, spans=shorter)
            periods += more_periods
            edges += more_edges
    return periods, edges


def count_insights(session: ReadSession, query: InsightQuery) -> int:
    """How many insights a query matches that names no author and no words."""
    topics = frozenset(query.topic)
    daily = query.min_confidence is not None or len(topics) > 1
    periods, edges = cut(query.start_time, query.end_time, spans=("day",) if daily else ("day", "hour"))
    weights = _weights(session, topics) if periods else {}
    return sum(_count_edge(session, query, edge) for edge in edges) + sum(
        weights[key] * count
        for period in periods
        for key, count in _count_periods(session, query, period, keys=weights)
    )


def count_alone(session: ReadSession, topic: str, *, start: datetime | None, end: datetime | None) -> int:
    """How many insights of a time have this topic and no other: all that have it, less those of its sets."""
    periods, edges = cut(start, end, spans=("day",))
    everything = InsightQuery.model_validate({})
    sets = [key for key in _topic_keys(session, span="day") if "+" in key and topic in key.split("+")]
    return sum(_count_alone_in_edge(session, edge, topic=topic) for edge in edges) + sum(
        count if key == topic else -count
        for period in periods
        for key, count in _count_periods(session, everything, period, keys=[topic, *sets])
    )


def _weights(session: ReadSession, topics: frozenset[str]) -> dict[str, int]:
    """The counters to add up. An insight with two of the topics is counted under each: its set takes one off again."""
    weights = {topic_key(topic): 1 for topic in topics} or {ALL_TOPICS: 1}
    if len(topics) > 1:
        shared = {
            key: len(topics.intersection(key.split("+"))) for key in _topic_keys(session, span="day") if "+" in key
        }
        weights |= {key: 1 - count for key, count in shared.items() if count > 1}
    return weights


def topic_key(topic: str) -> str:
    """Under what a topic is counted; `*` and `a+b` are keys too, but no topics, whoever asks for them."""
    return _NO_TOPIC if topic == ALL_TOPICS or "+" in topic else topic


def _topic_keys(session: ReadSession, *, span: str) -> list[str]:
    """Every key there is, found by leaping from one to the next; sets of topics are counted by day only."""
    spanned = InsightCount.span == span
    keys = select(func.min(InsightCount.topic).label("topic")).where(spanned).cte("keys", recursive=True)
    leap = select(func.min(InsightCount.topic)).where(spanned, InsightCount.topic > keys.c.topic).scalar_subquery()
    keys = keys.union_all(select(leap).where(keys.c.topic.is_not(None)))
    return [key for key in session.scalars(select(keys.c.topic)) if key is not None]


def single_topics(session: ReadSession) -> list[str]:
    """Every topic that any insight has ever had."""
    return [key for key in _topic_keys(session, span="hour") if key != ALL_TOPICS]


def _count_periods(
    session: ReadSession, query: InsightQuery, period: Periods, *, keys: Iterable[str]
) -> Iterator[tuple[str, int]]:
    statement = (
        select(InsightCount.topic, func.sum(InsightCount.count))
        .where(InsightCount.span == period.span, InsightCount.topic.in_(keys), *in_periods(period))
        .where(InsightCount.sentiment.in_([query.sentiment] if query.sentiment else list(Sentiment)))
        .where(InsightCount.confidence.in_(_confidences(query.min_confidence)))
        .group_by(InsightCount.topic)
    )
    for key, count in session.execute(statement):
        yield key, int(count)


def _confidences(least: float | None) -> list[int]:
    """Each named: a range would read every period of them all."""
    if least is None:
        return [ANY_CONFIDENCE]
    return [confidence for confidence in range(CONFIDENCE_UNITS + 1) if confidence / CONFIDENCE_UNITS >= least]


def in_periods(period: Periods) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if period.first is not None:
        conditions.append(InsightCount.period >= period.first)
    if period.after is not None:
        conditions.append(InsightCount.period < period.after)
    return conditions


def in_edge(column: InstrumentedAttribute[datetime], edge: Edge) -> list[ColumnElement[bool]]:
    return [column >= edge.start] if edge.end is None else [column >= edge.start, column < edge.end]


def _count_edge(session: ReadSession, query: InsightQuery, edge: Edge) -> int:
    rows = InsightTopic if query.topic else InsightRow
    wanted = in_edge(rows.timestamp, edge)
    if query.sentiment is not None:
        wanted.append(rows.sentiment == query.sentiment)
    if query.min_confidence is not None:
        wanted.append(rows.confidence >= query.min_confidence)
    if query.topic:
        wanted.append(InsightTopic.topic.in_(query.topic))
        counted = func.count() if len(set(query.topic)) == 1 else func.count(InsightTopic.insight_id.distinct())
        return session.scalar(select(counted).select_from(InsightTopic).where(*wanted)) or 0
    return session.scalar(select(func.count()).select_from(InsightRow).where(*wanted)) or 0


def _count_alone_in_edge(session: ReadSession, edge: Edge, *, topic: str) -> int:
    beside = aliased(InsightTopic)
    has_more = exists().where(beside.insight_id == InsightTopic.insight_id, beside.topic != topic)
    wanted = [InsightTopic.topic == topic, *in_edge(InsightTopic.timestamp, edge), ~has_more]
    return session.scalar(select(func.count()).select_from(InsightTopic).where(*wanted)) or 0
