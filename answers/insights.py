"""What is answered of insights: one, and a page of them."""

from datetime import datetime
from typing import NotRequired

from typing_extensions import TypedDict


class GrokAnalysis(TypedDict):
    """An analysis as clients see it; `model` says who made it.

    `injection_suspected`: the text looks like instructions to a model; its confidence is capped. `corrected`: a person
    said otherwise, or agreed; sentiment, score, clusters and confidence are then as corrected.
    `unlisted_topics`: what the model named that is no topic of the file, in its own words.
    """

    sentiment_score: float
    sentiment: str
    clusters: list[str]
    confidence: float
    reasoning: str
    summary: str
    language: str
    model: str
    injection_suspected: bool
    corrected: bool
    unlisted_topics: list[str]


class Insight(TypedDict):
    """`snippet`, with `q` alone: where the words are, as HTML with the words in `<mark>`."""

    conversation_id: str
    timestamp: datetime
    text: str
    author: str | None
    grok_analysis: GrokAnalysis
    snippet: NotRequired[str]


class InsightPageMetadata(TypedDict):
    total_count: int
    returned_count: int
    start_time: datetime | None
    end_time: datetime | None
    next_cursor: str | None


class FacetValue(TypedDict):
    """`url` leads to the insights that have this value, and otherwise match as asked."""

    value: str
    count: int
    url: str


class InsightPage(TypedDict):
    insights: list[Insight]
    metadata: InsightPageMetadata
    facets: NotRequired[dict[str, list[FacetValue]]]
