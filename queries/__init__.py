"""Every statement that reads, each over a snapshot."""

from queries.following import Followed, LiveCounts, count_live, follow_insights, newest_position
from queries.insights import find_insights, next_insights
from queries.operating import OperatorCounts, ScrapeCounts, UsageRow, count_for_operator, count_for_scrape
from queries.paging import count_matches
from queries.quality import read_quality
from queries.reading import (
    KnownAnalysis,
    get_conversation,
    get_correction,
    is_deeper_than,
    known_analyses,
    list_conversations,
    oldest_due,
    queue_depth,
)
from queries.reanalyses import (
    count_to_reread,
    list_reanalyses,
    next_to_reread,
    oldest_order,
    ticks_per_conversation,
)
from queries.searching import mark_of_erased
from queries.topic_counts import count_topics
from queries.trends import read_trends

__all__ = [
    "Followed",
    "KnownAnalysis",
    "LiveCounts",
    "OperatorCounts",
    "ScrapeCounts",
    "UsageRow",
    "count_for_operator",
    "count_for_scrape",
    "count_live",
    "count_matches",
    "count_to_reread",
    "count_topics",
    "find_insights",
    "follow_insights",
    "get_conversation",
    "get_correction",
    "is_deeper_than",
    "known_analyses",
    "list_conversations",
    "list_reanalyses",
    "mark_of_erased",
    "newest_position",
    "next_insights",
    "next_to_reread",
    "oldest_due",
    "oldest_order",
    "queue_depth",
    "read_quality",
    "read_trends",
    "ticks_per_conversation",
]
