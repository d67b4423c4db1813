"""How many insights match, exactly, without a scan: whole days and hours from the counters, the edges from an index.

    start ---raw--- hour ---hours--- midnight ---days--- midnight ---hours--- hour ---raw--- end

A period of which the range holds more than half is taken whole, and what is outside is taken off again. Counters by
confidence, and of topics together, are kept by day only: their edges are up to half a day long each.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache, reduce
from itertools import combinations
from operator import add
from typing import Any

from sqlalchemy import BindParameter, Select, SQLColumnExpression, bindparam, exists, func, select
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
from queries.hot import Hot
from schemas import MOST_TOPICS, Sentiment

_NO_TOPIC = ""  # no name is empty: nothing is counted under it
_LENGTHS = {"day": timedelta(days=1), "hour": timedelta(hours=1)}
COUNTS: dict[str, SQLColumnExpression[int]] = {
    Sentiment.POSITIVE: InsightCount.positive,
    Sentiment.NEUTRAL: InsightCount.neutral,
    Sentiment.NEGATIVE: InsightCount.negative,
}
TOPICS: BindParameter[str] = bindparam("topics", expanding=True)
SPANS = ("day", "hour")  # what is counted under every topic, whatever its confidence
FIRST_MOMENT = datetime.min.replace(tzinfo=UTC)
LAST_MOMENT = datetime.max.replace(tzinfo=UTC)
_TICK = timedelta(microseconds=1)
_SEVERAL = 2  # topics, or more: one statement for them all
_FAR = 2**40  # hours: long before the year 1, long after 9999


@dataclass(frozen=True, slots=True)
class Periods:
    """Whole hours or days since 1970, `first` until before `after`; None is open. `sign` -1: to be taken off."""

    span: str
    first: int | None
    after: int | None
    sign: int = 1

    @property
    def parameters(self) -> dict[str, str | int]:
        first = -_FAR if self.first is None else self.first
        return {"span": self.span, "first": first, "last": _FAR if self.after is None else self.after - 1}


@dataclass(frozen=True, slots=True)
class Edge:
    """What is between a moment and a whole period; `start` inclusive, `end` exclusive, None is open."""

    start: datetime
    end: datetime | None
    sign: int = 1

    @property
    def parameters(self) -> dict[str, datetime]:
        return {"start": self.start, "last": LAST_MOMENT if self.end is None else self.end - _TICK}


def cut(
    start: datetime | None, end: datetime | None, *, spans: Sequence[str], sign: int = 1
) -> tuple[list[Periods], list[Edge]]:
    """A range of time as whole periods of these spans (longest first), and the edges that no period fills.

    Added up with their signs they are the range. All edges are at most as long as the shortest span.
    """
    if start is not None and end is not None and start >= end:
        return [], []
    if not spans:
        return [], [] if start is None else [Edge(start, end, sign)]
    span, *shorter = spans
    length = _LENGTHS[span]
    first, after = _nearest(start, length), _nearest(end, length)
    if first is not None and after is not None and first >= after:
        return cut(start, end, spans=shorter, sign=sign)
    periods, edges = [Periods(span, first, after, sign)], list[Edge]()
    for moment, period, side in ((start, first, sign), (end, after, -sign)):
        if moment is not None and period is not None:
            boundary = EPOCH + period * length
            inside = side if moment < boundary else -side
            more_periods, more_edges = cut(*sorted([moment, boundary]), spans=shorter, sign=inside)
            periods += more_periods
            edges += more_edges
    return periods, edges


def _nearest(moment: datetime | None, length: timedelta) -> int | None:
    """The period that begins nearest to a moment, and within the years 1 to 9999."""
    if moment is None:
        return None
    period, past = divmod(moment - EPOCH, length)
    late = past * 2 > length and moment <= LAST_MOMENT - length
    return period + 1 if late or moment - FIRST_MOMENT < past else period


def count_insights(session: ReadSession, wanted: InsightFilter) -> int:
    """How many insights a filter matches that names no author and no words."""
    topics = frozenset(wanted.topic)
    daily = wanted.min_confidence is not None or len(topics) > 1
    periods, edges = cut(wanted.start_time, wanted.end_time, spans=("day",) if daily else SPANS)
    weights = _weights(topics)
    return sum(edge.sign * _count_edge(session, wanted, edge) for edge in edges) + sum(
        period.sign * weights[key] * count
        for period in periods
        for key, count in _count_periods(session, wanted, period, keys=list(weights))
    )


def estimate(session: ReadSession, wanted: InsightFilter, *, topics: Sequence[str]) -> dict[str | None, int]:
    """About how many match in each topic, or among all under None: whole days, those that are cut included."""
    keys: dict[str | None, str] = {topic: topic_key(topic) for topic in topics}
    keys = keys or {None: ALL_TOPICS}
    first = None if wanted.start_time is None else (wanted.start_time - EPOCH) // _LENGTHS["day"]
    after = None if wanted.end_time is None else -((EPOCH - wanted.end_time) // _LENGTHS["day"])
    counts = Counter[str]()
    for key, count in _count_periods(session, wanted, Periods("day", first, after), keys=list(set(keys.values()))):
        counts[key] += count
    return {topic: counts[key] for topic, key in keys.items()}


def count_alone(session: ReadSession, topic: str, *, start: datetime | None, end: datetime | None) -> int:
    """How many insights of a time have this topic and no other."""
    periods, edges = cut(start, end, spans=("day",))
    others = [other for other in single_topics(session) if other != topic]
    together = ((topic, *beside) for size in range(MOST_TOPICS) for beside in combinations(others, size))
    weights = {"+".join(sorted(topics)): 1 if len(topics) % 2 else -1 for topics in together}
    return sum(edge.sign * _count_alone_in_edge(session, edge, topic=topic) for edge in edges) + sum(
        period.sign * weights[key] * count
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


_KEYS = Hot(_leaping_through_topics())


def single_topics(session: ReadSession) -> list[str]:
    """Every topic that any insight has ever had; what is found together is counted by day only."""
    return [key for (key,) in _KEYS.rows(session, {"span": "hour"}) if key not in {None, ALL_TOPICS}]


@cache
def _periods_statement(sentiments: tuple[str, ...]) -> Hot:
    counted = reduce(add, (COUNTS[sentiment] for sentiment in sentiments))
    return Hot(
        select(InsightCount.topic, InsightCount.confidence, func.sum(counted))
        .where(
            InsightCount.span == bindparam("span"),
            InsightCount.topic.in_(TOPICS),
            InsightCount.confidence.in_(bindparam("confidences", expanding=True)),
            InsightCount.period.between(bindparam("first"), bindparam("last")),
        )
        .group_by(InsightCount.topic, InsightCount.confidence)  # in the order of the key: nothing has to be sorted
    )


def _count_periods(
    session: ReadSession, wanted: InsightFilter, period: Periods, *, keys: Sequence[str]
) -> Iterator[tuple[str, int]]:
    signs, sentiments = _confidences(wanted.min_confidence), sentiments_of(wanted)
    values = {**period.parameters, "topics": keys, "confidences": list(signs)}
    for key, confidence, count in _periods_statement(sentiments).rows(session, values):
        yield key, signs[confidence] * int(count)


@lru_cache(maxsize=1_000)  # clients choose them
def _confidences(least: float | None) -> Mapping[int, int]:
    """The counters to add up (1) and to take off (-1), each named: a range would read every period of them all.

    What is below `least` may be fewer of them than what is not; and so may what is below it within its tenth.
    """
    if least is None:
        return {ANY_CONFIDENCE: 1}
    first = next(one for one in range(CONFIDENCE_UNITS + 1) if one / CONFIDENCE_UNITS >= least)
    begun = first - first % TENTH
    last_of_tenth = min(begun + TENTH, CONFIDENCE_UNITS + 1)
    above = {tenth_key(tenth): 1 for tenth in range(begun + TENTH, CONFIDENCE_UNITS + 1, TENTH)}
    below = {tenth_key(tenth): -1 for tenth in range(0, begun, TENTH)}
    within = dict.fromkeys(range(first, last_of_tenth), 1)
    without = dict.fromkeys(range(begun, first), -1)
    added = above | min(within, {tenth_key(begun): 1} | without, key=len)
    taken_off = {ANY_CONFIDENCE: 1} | below | min(without, {tenth_key(begun): -1} | within, key=len)
    return min(added, taken_off, key=len)


def _count_edge(session: ReadSession, wanted: InsightFilter, edge: Edge) -> int:
    topics, sentiments = list(set(wanted.topic)), sentiments_of(wanted)
    values = {
        **edge.parameters,
        "sentiments": sentiments,
        "topics": topics,
        "min_confidence": wanted.min_confidence or 0.0,
    }
    statement = _edge_statement(session.dialect.name, topics=min(len(topics), _SEVERAL))
    [(count,)] = statement.rows(session, values)
    return int(count)


@cache
def _edge_statement(dialect: str, *, topics: int) -> Hot:
    """Row by row along the time, of all insights, of one topic or of several, of which an insight may have more."""
    rows = (OF_TOPIC if topics else ALL).walked(dialect)
    statement = select(func.count(rows.id.distinct()) if topics == _SEVERAL else func.count()).where(
        rows.timestamp.between(bindparam("start"), bindparam("last")),
        rows.sentiment.in_(bindparam("sentiments", expanding=True)),
        rows.confidence >= bindparam("min_confidence"),
    )
    return Hot(statement.where(InsightTopic.topic.in_(TOPICS)) if topics else statement)


def _count_alone_in_edge(session: ReadSession, edge: Edge, *, topic: str) -> int:
    beside = aliased(InsightTopic)
    has_more = exists().where(beside.insight_id == InsightTopic.insight_id, beside.topic != topic)
    within = OF_TOPIC.timestamp.between(edge.parameters["start"], edge.parameters["last"])
    wanted = [InsightTopic.topic == topic, within, ~has_more]
    return session.scalar(select(func.count()).select_from(InsightTopic).where(*wanted)) or 0


def sentiments_of(wanted: InsightFilter) -> tuple[str, ...]:
    return tuple(map(str, [wanted.sentiment] if wanted.sentiment else Sentiment))
