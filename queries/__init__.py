"""Every statement that reads, each over a snapshot."""

from queries.following import Followed, LiveCounts, count_live, follow_insights, newest_position
from queries.insights import find_insights, next_insights
from queries.operating import OperatorCounts, UsageRow, count_for_operator
from queries.reading import (
    get_conversation,
    is_deeper_than,
    known_analyses,
    list_conversations,
    oldest_due,
    queue_depth,
)
from queries.trends import read_trends

__all__ = [
    "Followed",
    "LiveCounts",
    "OperatorCounts",
    "UsageRow",
    "count_for_operator",
    "count_live",
    "find_insights",
    "follow_insights",
    "get_conversation",
    "is_deeper_than",
    "known_analyses",
    "list_conversations",
    "newest_position",
    "next_insights",
    "oldest_due",
    "queue_depth",
    "read_trends",
]
