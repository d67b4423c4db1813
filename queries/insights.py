"""Insights as clients see them: a page, the next rows of a file, and those that are to be read again."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row

from answers import GrokAnalysis, Insight, InsightPage
from database import ReadSession
from models import InsightRow
from parameters import InsightFilter, InsightQuery, Position
from queries.facets import count_facets
from queries.paging import count_matches, read_page
from queries.searching import snippets

ANALYSIS_COLUMNS = (
    InsightRow.sentiment_score,
    InsightRow.sentiment,
    InsightRow.clusters,
    InsightRow.confidence,
    InsightRow.reasoning,
    InsightRow.grok_analysis,
    InsightRow.model,
    InsightRow.corrected_at,
)
INSIGHT_COLUMNS = (
    InsightRow.id,
    InsightRow.conversation_id,
    InsightRow.timestamp,
    InsightRow.text,
    InsightRow.author,
    *ANALYSIS_COLUMNS,
)


def find_insights(session: ReadSession, query: InsightQuery) -> InsightPage:
    """A page of insights, newest first, and how many there are in all."""
    rows = read_page(session, query, columns=INSIGHT_COLUMNS, limit=query.limit + 1, after=query.cursor)
    page = rows[: query.limit]
    last = _position(page[-1]) if len(rows) > query.limit else None
    answer: InsightPage = {
        "insights": [to_insight(row) for row in page],
        "metadata": {
            "total_count": count_matches(session, query),
            "returned_count": len(page),
            "start_time": query.start_time,
            "end_time": query.end_time,
            "next_cursor": None if last is None else last.encode(),
        },
    }
    if query.q is not None:
        found = snippets(session, query.q, [row.id for row in page])
        for row, insight in zip(page, answer["insights"], strict=True):
            insight["snippet"] = found[row.id]
    if query.facet:
        answer["facets"] = count_facets(session, query)
    return answer


def next_insights(
    session: ReadSession, wanted: InsightFilter, *, after: Position | None, limit: int
) -> tuple[list[Insight], Position | None]:
    """The next insights past `after`, and where they end; None with the last of them."""
    rows = read_page(session, wanted, columns=INSIGHT_COLUMNS, limit=limit, after=after)
    return [to_insight(row) for row in rows], _position(rows[-1]) if len(rows) == limit else None


def to_insight(row: Sequence[Any]) -> Insight:
    """From a row of INSIGHT_COLUMNS, by place: by name costs three times as much."""
    _, conversation_id, timestamp, text, author, *analysis = row
    return {
        "conversation_id": conversation_id,
        "timestamp": timestamp,
        "text": text,
        "author": author,
        "grok_analysis": to_analysis(analysis),
    }


def to_analysis(row: Sequence[Any]) -> GrokAnalysis:
    """From a row of ANALYSIS_COLUMNS."""
    score, sentiment, clusters, confidence, reasoning, said, model, corrected_at = row
    return {
        "sentiment_score": score,
        "sentiment": sentiment,
        "clusters": clusters,
        "confidence": confidence,
        "reasoning": reasoning,
        "summary": said.get("summary", ""),
        "language": said.get("language", "und"),
        "model": model,
        "injection_suspected": said.get("injection_suspected", False),
        "unlisted_topics": said.get("unlisted_topics", []),
        "corrected": corrected_at is not None,
    }


def _position(row: Row[*tuple[Any, ...]]) -> Position:
    return Position(row.timestamp, row.id)
