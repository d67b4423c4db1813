"""Read a conversation without any network: sentiment, topics, language, and a sentence that says why."""

from local_analyzer.analyzer import LOCAL_MODEL, WEIGHTS_PATH, LocalAnalysis, LocalAnalyzer, summarize

__all__ = ["LOCAL_MODEL", "WEIGHTS_PATH", "LocalAnalysis", "LocalAnalyzer", "summarize"]
