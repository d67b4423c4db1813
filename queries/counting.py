"""How many insights match, exactly, without a scan: whole days and hours from the counters, the edges from an index.

    start ---raw--- hour ---hours--- midnight ---days--- midnight ---hours--- hour ---raw--- end

Counters by confidence, and of topics together, are kept by day only: their edges are up to a day long.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import combinations
from typing import Any

from sqlalchemy import Select, bindparam, exists, func, select
from sqlalchemy.orm import aliased

from database import ReadSession
from models import (
    ALL_TOPICS,
    ANY_CONFIDENCE,
    CONFIDENCE_UNITS,
    EPOCH,
    TENTH,
    InsightCount,
    InsightTopic,
    tenth_key,
)
from parameters import InsightFilter
from queries.columns import ALL, OF_TOPIC
from schemas import MOST_TOPICS, Sentiment

_NO_TOPIC = ""  # no name is empty: nothing is counted under it
_LENGTHS = {"day": timedelta(days=1), "hour": timedelta(hours=1)}
LAST_MOMENT = datetime.max.replace(tzinfo=UTC)
_TICK = timedelta(microseconds=1)
_FAR = 2**40  # hours: long before the year 1, long after 9999


@dataclass(frozen=True, slots=True)
class Periods:
    """Whole hours or days, from `first` until before `after`, counted since 1970; None is open."""

    span: str
    first: int | None
    after: int | None

    @property
    def parameters(self) -> dict[str, str | int]:
        first = -_FAR if self.first is None else self.first
        return {"span": self.span, "first": first, "last": _FAR if self.after is None else self.after - 1}


@dataclass(frozen=True, slots=True)
class Edge:
    """What is left between a moment and the next whole period; `start` inclusive, `end` exclusive, None is open."""

    start: datetime
    end: datetime | None

    @property
    def parameters(self) -> dict[str, datetime]:
        return {"start": self.start, "last": LAST_MOMENT if self.end is None else self.end - _TICK}


def cut(start: datetime | None, end: datetime | None, *, spans: Sequence[str]) -> tuple[list[Periods], list[Edge]]:
    """A range of time as whole periods of these spans (longest first) and the edges that no period fills."""
    if not spans:
        return [], [Edge(start, end)] if start is not None and (end is None or start < end) else []
    span, *shorter = spans
    length = _LENGTHS[span]
    first = None if start is None else -((EPOCH - start) // length)  # rounded up
    after = None if end is None else (end - EPOCH) // length
    last = (LAST_MOMENT - EPOCH) // length if after is None else after - 1
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


def count_insights(session: ReadSession, wanted: InsightFilter) -> int:
    """How many insights a filter matches that names no author and no words."""
    topics = frozenset(wanted.topic)
    daily = wanted.min_confidence is not None or len(topics) > 1
    periods, edges = cut(wanted.start_time, wanted.end_time, spans=("day",) if daily else ("day", "hour"))
    weights = _weights(topics)
    return sum(_count_edge(session, wanted, edge) for edge in edges) + sum(
        weights[key] * count
        for period in periods
        for key, count in _count_periods(session, wanted, period, keys=list(weights))
    )


def estimate(session: ReadSession, wanted: InsightFilter, *, topics: Sequence[str]) -> dict[str | None, int]:
    """About how many match in each topic, or among all under None: whole days, those that are cut included."""
    keys: dict[str | None, str] = {topic: topic_key(topic) for topic in topics}
    keys = keys or {None: ALL_TOPICS}
    first = None if wanted.start_time is None else (wanted.start_time - EPOCH) // _LENGTHS["day"]
    after = None if wanted.end_time is None else -((EPOCH - wanted.end_time) // _LENGTHS["day"])
    counts = dict(_count_periods(session, wanted, Periods("day", first, after), keys=list(set(keys.values()))))
    return {topic: counts.get(key, 0) for topic, key in keys.items()}


def count_alone(session: ReadSession, topic: str, *, start: datetime | None, end: datetime | None) -> int:
    """How many insights of a time have this topic and no other."""
    periods, edges = cut(start, end, spans=("day",))
    others = [other for other in single_topics(session) if other != topic]
    together = ((topic, *beside) for size in range(MOST_TOPICS) for beside in combinations(others, size))
    weights = {"+".join(sorted(topics)): 1 if len(topics) % 2 else -1 for topics in together}
    return sum(_count_alone_in_edge(session, edge, topic=topic) for edge in edges) + sum(
        weights[key] * count
        for period in periods
        for key, count in _count_periods(session, InsightFilter(), period, keys=list(weights))
    )


def _weights(topics: frozenset[str]) -> dict[str, int]:
    """The counters to add up: an insight with two of the topics is counted under each, so the pair is taken off again.

    Inclusion and exclusion: one topic +1, two together -1, three +1. No insight has more.
    """
    named = sorted(topic for topic in topics if topic_key(topic))
    together = (each for size in range(1, MOST_TOPICS + 1) for each in combinations(named, size))
    return {"+".join(each): 1 if len(each) % 2 else -1 for each in together} if topics else {ALL_TOPICS: 1}


def topic_key(topic: str) -> str:
    """Under what a topic is counted; `*` and `a+b` are keys too, but no topics, whoever asks for them."""
    return _NO_TOPIC if topic == ALL_TOPICS or "+" in topic else topic


def _leaping_through_topics() -> Select[Any]:
    """Every key there is, found by leaping from one to the next."""
    spanned = InsightCount.span == bindparam("span")
    keys = select(func.min(InsightCount.topic).label("topic")).where(spanned).cte("keys", recursive=True)
    leap = select(func.min(InsightCount.topic)).where(spanned, InsightCount.topic > keys.c.topic).scalar_subquery()
    keys = keys.union_all(select(leap).where(keys.c.topic.is_not(None)))
    return select(keys.c.topic)


_KEYS = _leaping_through_topics()


def single_topics(session: ReadSession) -> list[str]:
    """Every topic that any insight has ever had; what is found together is counted by day only."""
    return [key for key in session.scalars(_KEYS, {"span": "hour"}) if key not in {None, ALL_TOPICS}]


_PERIODS = (
    select(InsightCount.topic, func.sum(InsightCount.count))
    .where(
        InsightCount.span == bindparam("span"),
        InsightCount.topic.in_(bindparam("topics", expanding=True)),
        InsightCount.sentiment.in_(bindparam("sentiments", expanding=True)),
        InsightCount.confidence.in_(bindparam("confidences", expanding=True)),
        InsightCount.period.between(bindparam("first"), bindparam("last")),
    )
    .group_by(InsightCount.topic)
)


def _count_periods(
    session: ReadSession, wanted: InsightFilter, period: Periods, *, keys: Sequence[str]
) -> Iterator[tuple[str, int]]:
    values = {
        **period.parameters,
        "topics": keys,
        "sentiments": sentiments_of(wanted),
        "confidences": _confidences(wanted.min_confidence),
    }
    for key, count in session.execute(_PERIODS, values):
        yield key, int(count)


def _confidences(least: float | None) -> list[int]:
    """The counters to add up, each named: a range would read every period of them all."""
    if least is None:
        return [ANY_CONFIDENCE]
    first = next(one for one in range(CONFIDENCE_UNITS + 1) if one / CONFIDENCE_UNITS >= least)
    full_tenth = -(-first // TENTH)
    below = range(first, min(full_tenth * TENTH, CONFIDENCE_UNITS + 1))
    return [*below, *(tenth_key(tenth * TENTH) for tenth in range(full_tenth, CONFIDENCE_UNITS // TENTH + 1))]


def _count_edge(session: ReadSession, wanted: InsightFilter, edge: Edge) -> int:
    topics = list(set(wanted.topic))
    values = {
        **edge.parameters,
        "sentiments": sentiments_of(wanted),
        "min_confidence": wanted.min_confidence or 0.0,
        **({"topics": topics} if topics else {}),
    }
    return session.scalar(_edge_statement(session.dialect.name, min(len(topics), 2)), values) or 0


@cache
def _edge_statement(dialect: str, topics: int) -> Select[int]:
    """Row by row along the time; 0 topics, 1, or 2 for several, of which an insight may have more than one."""
    rows = (OF_TOPIC if topics else ALL).walked(dialect)
    statement = select(func.count(rows.id.distinct()) if topics > 1 else func.count()).where(
        rows.timestamp.between(bindparam("start"), bindparam("last")),
        rows.sentiment.in_(bindparam("sentiments", expanding=True)),
        rows.confidence >= bindparam("min_confidence"),
    )
    if topics:
        return statement.where(InsightTopic.topic.in_(bindparam("topics", expanding=True)))
    return statement


def _count_alone_in_edge(session: ReadSession, edge: Edge, *, topic: str) -> int:
    beside = aliased(InsightTopic)
    has_more = exists().where(beside.insight_id == InsightTopic.insight_id, beside.topic != topic)
    within = OF_TOPIC.timestamp.between(edge.parameters["start"], edge.parameters["last"])
    wanted = [InsightTopic.topic == topic, within, ~has_more]
    return session.scalar(select(func.count()).select_from(InsightTopic).where(*wanted)) or 0


def sentiments_of(wanted: InsightFilter) -> list[Sentiment]:
    return [wanted.sentiment] if wanted.sentiment else list(Sentiment)
