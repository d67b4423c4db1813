"""What the API answers, shape by shape; TypedDicts, because answers are built once and serialised once."""

from answers.conversations import Accepted, BulkAccepted, BulkItemResult, Conversation, ConversationPage, Retried
from answers.events import LiveStatus, SkippedInsights, StreamEnd
from answers.insights import FacetValue, GrokAnalysis, Insight, InsightPage
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
    "FacetValue",
    "Feelings",
    "Grok",
    "GrokAnalysis",
    "Health",
    "Insight",
    "InsightPage",
    "LiveStatus",
    "Period",
    "Problem",
    "Quality",
    "Queue",
    "Ready",
    "Retried",
    "Saved",
    "Savings",
    "Share",
    "SkippedInsights",
    "Spending",
    "StreamEnd",
    "Summary",
    "TopicTrend",
    "Totals",
    "Trends",
]
