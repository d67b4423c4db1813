"""What customers feel over time: by bucket in any time zone, in total, and by topic.

All from the counters: whole hours and days are added up, and only what lies between a moment and the next full hour is
counted row by row. The sums are whole numbers, so the means are those of the rows themselves.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Integer,
    Text,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    union_all,
)

from answers import Feelings, TopicTrend, Totals, Trends
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
from parameters import TrendsQuery
from queries.buckets import Frame
from queries.columns import ALL, OF_TOPIC
from queries.counting import COUNTS, SPANS, Edge, cut, single_topics, topic_key
from queries.hot import Hot
from schemas import Sentiment

_HOUR = timedelta(hours=1)
_KEPT = (
    *(COUNTS[sentiment] for sentiment in Sentiment),
    InsightCount.score_sum,
    InsightCount.confidence_sum,
)
_COUNTED = tuple(map(func.sum, _KEPT))
_FROM_ROWS = (  # the same sums, of the rows themselves, in whole units
    *(func.count().filter(InsightRow.sentiment == literal_column(f"'{sentiment}'")) for sentiment in Sentiment),
    func.sum(cast(func.round(InsightRow.sentiment_score * literal_column(f"{SCORE_UNITS}", Integer)), BigInteger)),
    func.sum(cast(func.round(InsightRow.confidence * literal_column(f"{CONFIDENCE_UNITS}", Integer)), BigInteger)),
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
_TOPICS: BindParameter[str] = bindparam("topics", expanding=True)
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

    def add(self, row: Sequence[Any], *, sign: int = 1) -> None:
        """A row of the driver's: PostgreSQL adds whole numbers up to decimals, and no rows add up to null."""
        positive, neutral, negative, score, confidence = row
        self.positive += sign * int(positive)
        self.neutral += sign * int(neutral)
        self.negative += sign * int(negative)
        self.score += sign * int(score or 0)
        self.confidence += sign * int(confidence or 0)


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


def read_trends(session: ReadSession, query: TrendsQuery, *, now: datetime) -> Trends:
    """Raises: InvalidSchema, when the period cannot be used."""
    frame = Frame.of(query, now=now)
    topic = ALL_TOPICS if query.topic is None else topic_key(query.topic)
    sums, earlier = _sum_ranges(session, [(frame.start, frame.end), (frame.before, frame.start)])
    series = sum_by_bucket(session, frame.bounds, topic=topic)
    topics = _topic_trends(sums, earlier)
    return {
        "period": {"start_time": frame.start, "end_time": frame.end},
        "previous_period": {"start_time": frame.before, "end_time": frame.start},
        "bucket": query.bucket,
        "tz": query.tz.key,
        "topic": query.topic,
        "totals": _totals(sums.get(topic, Sums()), earlier.get(topic, Sums())),
        "driver": _driver(topics, sums.get(ALL_TOPICS, Sums()), earlier.get(ALL_TOPICS, Sums())),
        "topics": topics,
        "buckets": [
            {"start_time": first, "end_time": last, **feelings_of(part)}
            for part, (first, last) in zip(series, pairwise(frame.bounds), strict=True)
        ],
    }


def _topic_trends(sums: Mapping[str, Sums], earlier: Mapping[str, Sums]) -> list[TopicTrend]:
    """Every topic of either period, the most complained about first."""
    nothing = Sums()
    all_now, all_before = sums.get(ALL_TOPICS, nothing), earlier.get(ALL_TOPICS, nothing)
    change = _difference(_share(all_now), _share(all_before))
    trends: list[TopicTrend] = []
    for topic in sorted({*sums, *earlier} - {ALL_TOPICS}):
        now, before = sums.get(topic, nothing), earlier.get(topic, nothing)
        without, without_before = _share(all_now.less(now)), _share(all_before.less(before))
        trends.append(
            {
                "topic": topic,
                **_totals(now, before),
                "negative_share_without": without,
                "contribution": _difference(change, _difference(without, without_before)),
            }
        )
    return sorted(trends, key=lambda trend: (-trend["negative"], -trend["count"], trend["topic"]))


def _driver(topics: Sequence[TopicTrend], now: Sums, before: Sums) -> str | None:
    """The topic without which the change would be smallest."""
    change = _difference(_share(now), _share(before))
    if not change:
        return None
    sign = 1 if change > 0 else -1
    parts = {trend["topic"]: sign * trend["contribution"] for trend in topics if trend["contribution"] is not None}
    driver = max(parts, key=parts.__getitem__, default=None)
    return driver if driver is not None and parts[driver] > 0 else None


def _totals(now: Sums, before: Sums) -> Totals:
    felt, felt_before = feelings_of(now), feelings_of(before)
    return {
        **felt,
        "change": {
            "count": felt["count"] - felt_before["count"],
            "negative_share": _difference(felt["negative_share"], felt_before["negative_share"]),
            "mean_sentiment": _difference(felt["mean_sentiment"], felt_before["mean_sentiment"]),
        },
    }


def feelings_of(sums: Sums) -> Feelings:
    count = sums.count
    return {
        "count": count,
        "positive": sums.positive,
        "neutral": sums.neutral,
        "negative": sums.negative,
        "negative_share": _share(sums),
        "mean_sentiment": round(sums.score / SCORE_UNITS / count, 4) if count else None,
        "mean_confidence": round(sums.confidence / CONFIDENCE_UNITS / count, 4) if count else None,
    }


def _share(sums: Sums) -> float | None:
    return round(sums.negative / sums.count, 4) if sums.count else None


def _difference(now: float | None, before: float | None) -> float | None:
    return None if now is None or before is None else round(now - before, 4)


def sum_by_topic(session: ReadSession, *, start: datetime | None, end: datetime | None) -> dict[str, Sums]:
    """What the insights from `start` until before `end` add up to: all under `*`, and by topic where any has it."""
    return _sum_ranges(session, [(start, end)])[0]


def _sum_ranges(
    session: ReadSession, ranges: Sequence[tuple[datetime | None, datetime | None]]
) -> list[dict[str, Sums]]:
    sums: list[_ByTopic] = [defaultdict(Sums) for _ in ranges]
    periods: list[_Slot] = []
    edges: list[_Slot] = []
    for place, (start, end) in zip(sums, ranges, strict=True):
        found = cut(start, end, spans=SPANS)
        periods += [(place, period.sign, period.parameters) for period in found[0]]
        edges += [(place, edge.sign, edge.parameters) for edge in found[1]]
    topics = single_topics(session)
    _add(session, periods, _periods_statement, topics=[ALL_TOPICS, *topics])
    _add(session, edges, _edges_statement)
    _add(session, edges, _topic_edges_statement, topics=topics)
    return [{topic: part for topic, part in one.items() if part.count} for one in sums]  # what was erased left zeros


def sum_by_bucket(session: ReadSession, bounds: Sequence[datetime], *, topic: str = ALL_TOPICS) -> list[Sums]:
    """What the insights of each bucket add up to; bucket i lasts from bounds[i] until before bounds[i + 1]."""
    sums: list[_ByTopic] = [defaultdict(Sums) for _ in bounds[1:]]
    for run in _runs(bounds):
        values = run.parameters(topic)
        statement = _BY_PERIOD if values["stride"] == 1 else _BY_BUCKET
        for offset, *row in statement.rows(session, values):
            sums[run.index + int(offset)][topic].add(row)
    edges: list[_Slot] = []
    for place, (start, end) in zip(sums, pairwise(bounds), strict=True):
        if not (_is_full(start) and _is_full(end)):
            edges += [(place, 1, edge.parameters) for edge in _outside_of_whole_hours(start, end)]
    if topic == ALL_TOPICS:
        _add(session, edges, _edges_statement)
    else:
        _add(session, edges, _topic_edges_statement, topics=[topic])
    return [part[topic] for part in sums]


def _outside_of_whole_hours(start: datetime, end: datetime) -> Iterator[Edge]:
    first, after = EPOCH - (EPOCH - start) // _HOUR * _HOUR, EPOCH + (end - EPOCH) // _HOUR * _HOUR
    if first > after:
        yield Edge(start, end)
        return
    if start < first:
        yield Edge(start, first)
    if after < end:
        yield Edge(after, end)


def _is_full(moment: datetime) -> bool:
    return moment.minute == moment.second == moment.microsecond == 0


_ByTopic = defaultdict[str, Sums]
_Slot = tuple[_ByTopic, int, Mapping[str, object]]  # where sums go, their sign, and which counters or rows they are of


def _add(
    session: ReadSession, slots: Sequence[_Slot], statement: Callable[[int], Hot], *, topics: Sequence[str] = ()
) -> None:
    """Some slots at a time, for each statement costs more than what it reads."""
    for first in range(0, len(slots), _MOST_SLOTS):
        some = slots[first : first + _MOST_SLOTS]
        values = {f"{name}_{slot}": value for slot, (_, _, given) in enumerate(some) for name, value in given.items()}
        found = statement(len(some)).rows(session, values | {"topics": topics})
        for slot, topic, *row in found:
            place, sign, _ = some[int(slot)]
            place[topic].add(row, sign=sign)


@cache
def _periods_statement(slots: int) -> Hot:
    return Hot(
        union_all(
            *(
                select(literal_column(f"{slot}", Integer), InsightCount.topic, *_COUNTED)
                .where(InsightCount.span == bindparam(f"span_{slot}"), InsightCount.topic.in_(_TOPICS))
                .where(InsightCount.confidence == literal_column(f"{ANY_CONFIDENCE}", BigInteger))
                .where(InsightCount.period.between(bindparam(f"first_{slot}"), bindparam(f"last_{slot}")))
                .group_by(InsightCount.topic)
                for slot in range(slots)
            )
        )
    )


@cache
def _edges_statement(slots: int) -> Hot:
    """Row by row, all of them."""
    return Hot(
        union_all(
            *(
                select(literal_column(f"{slot}", Integer), literal_column(f"'{ALL_TOPICS}'", Text), *_FROM_ROWS).where(
                    ALL.timestamp.between(bindparam(f"start_{slot}"), bindparam(f"last_{slot}"))
                )
                for slot in range(slots)
            )
        )
    )


@cache
def _topic_edges_statement(slots: int) -> Hot:
    """Row by row, by the topic's own time: its key begins with topic and time."""
    return Hot(
        union_all(
            *(
                select(literal_column(f"{slot}", Integer), InsightTopic.topic, *_FROM_ROWS)
                .select_from(InsightTopic)
                .join(InsightRow, InsightRow.id == InsightTopic.insight_id)
                .where(InsightTopic.topic.in_(_TOPICS))
                .where(OF_TOPIC.timestamp.between(bindparam(f"start_{slot}"), bindparam(f"last_{slot}")))
                .group_by(InsightTopic.topic)
                for slot in range(slots)
            )
        )
    )


def _runs(bounds: Sequence[datetime]) -> Iterator[_Run]:
    hours = [divmod(bound - EPOCH, _HOUR) for bound in bounds]
    run: _Run | None = None
    for index, ((start, past), (after, _)) in enumerate(pairwise(hours)):
        first = start + 1 if past else start
        if after <= first:
            continue
        inside = after - first
        if run is not None and _continues(run, index, first=first, inside=inside):
            run.stride = first - run.first if run.buckets == 1 else run.stride
            run.buckets += 1
            continue
        if run is not None:
            yield run
        run = _Run(index, 1, first, inside, inside)
    if run is not None:
        yield run


def _continues(run: _Run, index: int, *, first: int, inside: int) -> bool:
    if index != run.index + run.buckets or inside != run.inside:
        return False
    return run.buckets == 1 or first == run.first + run.buckets * run.stride
