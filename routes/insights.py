"""Insights: what customers feel, and about what."""

from datetime import UTC, datetime
from functools import partial
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

import answers
import queries
from answers import TopicCounts, Trends
from routes.shared import JSONAnswer, StateDep, current_topic, errors_of
from schemas import InsightQuery, TopicsQuery, TrendsQuery

insights = APIRouter(prefix="/api/v1", responses=errors_of(400, 401, 429, 503), tags=["insights"])


@insights.get("/insights", response_model=answers.InsightPage, summary="Insights, newest first")
async def find_insights(request: Request, query: Annotated[InsightQuery, Query()], state: StateDep) -> Response:
    """`total_count` counts all that match, exactly; `Link: rel="next"` leads to the next page."""
    query = query.model_copy(update={"topic": [current_topic(state, topic) for topic in query.topic]})
    page = await state["database"].read(partial(queries.find_insights, query=query))
    next_cursor = page["metadata"]["next_cursor"]
    headers = {} if next_cursor is None else {"Link": f'<{_next_url(request, next_cursor)}>; rel="next"'}
    return JSONAnswer(page, headers=headers)


@insights.get("/insights/trends", response_model=Trends, summary="What changed, since when, and which topic drove it")
async def read_trends(query: Annotated[TrendsQuery, Query()], state: StateDep) -> Response:
    """Buckets without insights are there with zeros; the change is against the period of equal length just before."""
    if query.topic is not None:
        query = query.model_copy(update={"topic": current_topic(state, query.topic)})
    trends = partial(queries.read_trends, query=query, now=datetime.now(UTC))
    return JSONAnswer(await state["database"].read(trends))


@insights.get("/topics", response_model=TopicCounts, summary="Every topic, how often it was found and how that felt")
async def count_topics(query: Annotated[TopicsQuery, Query()], state: StateDep) -> Response:
    """The topics of the file in its order, then those that only insights have (`listed` is false)."""
    counts = partial(queries.count_topics, query=query, topics=state["topics"])
    return JSONAnswer(await state["database"].read(counts))


def _next_url(request: Request, cursor: str) -> str:
    parameters: list[tuple[str, str]] = [pair for pair in request.query_params.multi_items() if pair[0] != "cursor"]
    return f"{request.url.path}?{urlencode([*parameters, ('cursor', cursor)])}"
