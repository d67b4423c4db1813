"""Every statement that reads, each over a snapshot."""

from queries.operating import OperatorCounts, UsageRow, count_for_operator
from queries.reading import (
    find_insights,
    get_conversation,
    is_deeper_than,
    known_analyses,
    list_conversations,
    oldest_due,
    queue_depth,
)
from queries.topic_counts import count_topics
from queries.trends import read_trends

__all__ = [
    "OperatorCounts",
    "UsageRow",
    "count_for_operator",
    "count_topics",
    "find_insights",
    "get_conversation",
    "is_deeper_than",
    "known_analyses",
    "list_conversations",
    "oldest_due",
    "queue_depth",
    "read_trends",
]
