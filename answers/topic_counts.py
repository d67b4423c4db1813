"""What is answered of topics: each with what insights say of it, and how many insights found none."""

from datetime import datetime

from typing_extensions import TypedDict

from answers.trends import Feelings


class TopicCount(Feelings):
    """`listed` topics are those of the topics file; others are left on insights, and have an id alone."""

    id: str
    name: str | None
    description: str | None
    listed: bool


class Untagged(TypedDict):
    """Insights whose only topic is `other`; the share is of all, null when there are none."""

    count: int
    share: float | None


class TopicTotals(TypedDict):
    """`unlisted_labels`: how often the model ever named what is no topic, whenever that was."""

    insights: int
    untagged: Untagged
    unlisted_labels: int


class OpenPeriod(TypedDict):
    """Null where it is open."""

    start_time: datetime | None
    end_time: datetime | None


class TopicCounts(TypedDict):
    period: OpenPeriod
    totals: TopicTotals
    topics: list[TopicCount]
