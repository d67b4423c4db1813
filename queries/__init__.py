"""Every statement that reads, each over a snapshot."""

from queries.operating import OperatorCounts, ScrapeCounts, UsageRow, count_for_operator, count_for_scrape
from queries.reading import (
    find_insights,
    get_conversation,
    is_deeper_than,
    known_analyses,
    list_conversations,
    oldest_due,
    queue_depth,
)
from queries.trends import read_trends

__all__ = [
    "OperatorCounts",
    "ScrapeCounts",
    "UsageRow",
    "count_for_operator",
    "count_for_scrape",
    "find_insights",
    "get_conversation",
    "is_deeper_than",
    "known_analyses",
    "list_conversations",
    "oldest_due",
    "queue_depth",
    "read_trends",
]
