"""What customers felt over time: by bucket, in total and by topic; times are UTC."""

from datetime import datetime

from typing_extensions import TypedDict


class Feelings(TypedDict):
    """Insights by sentiment; the means are null when there is none."""

    count: int
    positive: int
    neutral: int
    negative: int
    negative_share: float | None
    mean_sentiment: float | None
    mean_confidence: float | None


class Bucket(Feelings):
    start_time: datetime
    end_time: datetime


class Change(TypedDict):
    """Against the period of equal length just before; null where one of the two has nothing to compare."""

    count: int
    negative_share: float | None
    mean_sentiment: float | None


class Totals(Feelings):
    change: Change


class TopicTrend(Totals):
    """`negative_share_without`: of all insights but this topic's. `contribution`: how much of the change of that
    share would not be there without the topic; above 0 it made things worse.
    """

    topic: str
    negative_share_without: float | None
    contribution: float | None


class Period(TypedDict):
    start_time: datetime
    end_time: datetime


class Trends(TypedDict):
    """`driver`: the topic that explains most of how the negative share changed; null when it did not, or none does."""

    period: Period
    previous_period: Period
    bucket: str
    tz: str
    topic: str | None
    totals: Totals
    driver: str | None
    topics: list[TopicTrend]
    buckets: list[Bucket]
