"""What customers feel over time: by bucket in any time zone, in total, and by topic, against the period before."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import reduce
from itertools import pairwise

from answers import TopicTrend, Totals, Trends
from database import ReadSession
from models import ALL_TOPICS
from parameters import TrendsQuery
from queries.buckets import Frame
from queries.counting import topic_key
from queries.sums import Sums, feelings_of, negative_share, sum_by_bucket, sum_ranges


def read_trends(session: ReadSession, query: TrendsQuery, *, now: datetime) -> Trends:
    """Raises: InvalidSchema, when the period cannot be used."""
    frame = Frame.of(query, now=now)
    topic = ALL_TOPICS if query.topic is None else topic_key(query.topic)
    sums, earlier = sum_ranges(session, [(frame.start, frame.end), (frame.before, frame.start)])
    whole, whole_before = sums.get(topic, Sums()), earlier.get(topic, Sums())
    series = sum_by_bucket(session, frame.bounds[:-1], topic=topic)
    if frame.start < frame.end:  # the last bucket, which mostly ends amid an hour, is what is left
        series.append(reduce(Sums.less, series, whole))
    topics = _topic_trends(sums, earlier)
    return {
        "period": {"start_time": frame.start, "end_time": frame.end},
        "previous_period": {"start_time": frame.before, "end_time": frame.start},
        "bucket": query.bucket,
        "tz": query.tz.key,
        "topic": query.topic,
        "totals": _totals(whole, whole_before),
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
    change = _difference(negative_share(all_now), negative_share(all_before))
    trends: list[TopicTrend] = []
    for topic in sorted({*sums, *earlier} - {ALL_TOPICS}):
        now, before = sums.get(topic, nothing), earlier.get(topic, nothing)
        without, without_before = negative_share(all_now.less(now)), negative_share(all_before.less(before))
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
    change = _difference(negative_share(now), negative_share(before))
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


def _difference(now: float | None, before: float | None) -> float | None:
    return None if now is None or before is None else round(now - before, 4)
