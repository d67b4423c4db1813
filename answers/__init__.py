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
from answers.quality import CalibrationBin, QualityReport, Ratio, SentimentQuality, TopicQuality
from answers.topic_counts import TopicCount, TopicCounts
from answers.trends import Bucket, Feelings, Period, TopicTrend, Totals, Trends
from answers.upkeep import Correction, Erasure, Estimate, Reanalyses, Reanalysis, ReanalysisAccepted

__all__ = [
    "Accepted",
    "Bucket",
    "Budget",
    "BulkAccepted",
    "BulkItemResult",
    "CalibrationBin",
    "Conversation",
    "ConversationPage",
    "Correction",
    "DayOfModel",
    "Erasure",
    "Estimate",
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
    "QualityReport",
    "Queue",
    "Ratio",
    "Ready",
    "Reanalyses",
    "Reanalysis",
    "ReanalysisAccepted",
    "Retried",
    "Saved",
    "Savings",
    "SentimentQuality",
    "Share",
    "SkippedInsights",
    "Spending",
    "StreamEnd",
    "Summary",
    "TopicCount",
    "TopicCounts",
    "TopicQuality",
    "TopicTrend",
    "Totals",
    "Trends",
]
