"""Read a conversation without any network: sentiment, topics, language, and a sentence that says why."""

from local_analyzer.analyzer import WEIGHTS_PATH, LocalAnalysis, LocalAnalyzer, summarize

__all__ = ["WEIGHTS_PATH", "LocalAnalysis", "LocalAnalyzer", "summarize"]
