"""What the API answers, shape by shape; TypedDicts, because answers are built once and serialised once."""

from answers.conversations import Accepted, BulkAccepted, BulkItemResult, Conversation, ConversationPage, Retried
from answers.insights import GrokAnalysis, Insight, InsightPage
from answers.operations import (
    Budget,
    DayOfModel,
    Grok,
    Health,
    Quality,
    Queue,
    Ready,
    Saved,
    Savings,
    Share,
    Spending,
    Summary,
)
from answers.problem import Problem
from answers.topic_counts import TopicCount, TopicCounts
from answers.trends import Bucket, Feelings, Period, TopicTrend, Totals, Trends

__all__ = [
    "Accepted",
    "Bucket",
    "Budget",
    "BulkAccepted",
    "BulkItemResult",
    "Conversation",
    "ConversationPage",
    "DayOfModel",
    "Feelings",
    "Grok",
    "GrokAnalysis",
    "Health",
    "Insight",
    "InsightPage",
    "Period",
    "Problem",
    "Quality",
    "Queue",
    "Ready",
    "Retried",
    "Saved",
    "Savings",
    "Share",
    "Spending",
    "Summary",
    "TopicCount",
    "TopicCounts",
    "TopicTrend",
    "Totals",
    "Trends",
]
