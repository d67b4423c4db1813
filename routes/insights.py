"""Insights: what customers feel, and about what."""

from datetime import UTC, datetime
from functools import partial
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

import answers
import queries
from answers import Trends
from routes.shared import JSONAnswer, StateDep, errors_of
from schemas import InsightQuery, TrendsQuery

insights = APIRouter(prefix="/api/v1", responses=errors_of(400, 401, 429, 503), tags=["insights"])


@insights.get(
    "/insights",
    response_model=answers.InsightPage,
    responses={200: {"headers": {"Link": {"description": "The next page.", "schema": {"type": "string"}}}}},
    summary="Find insights, newest first",
)
async def find_insights(request: Request, query: Annotated[InsightQuery, Query()], state: StateDep) -> Response:
    """`total_count` counts all that match, exactly; `Link: rel="next"` leads to the next page."""
    page = await state["database"].read(partial(queries.find_insights, query=query))
    next_cursor = page["metadata"]["next_cursor"]
    headers = {} if next_cursor is None else {"Link": f'<{_next_url(request, next_cursor)}>; rel="next"'}
    return JSONAnswer(page, headers=headers)


@insights.get("/insights/trends", response_model=Trends, summary="What changed, since when, and which topic drove it")
async def read_trends(query: Annotated[TrendsQuery, Query()], state: StateDep) -> Response:
    """Buckets without insights are there with zeros; the change is against the period of equal length just before."""
    trends = partial(queries.read_trends, query=query, now=datetime.now(UTC))
    return JSONAnswer(await state["database"].read(trends))


def _next_url(request: Request, cursor: str) -> str:
    parameters: list[tuple[str, str]] = [pair for pair in request.query_params.multi_items() if pair[0] != "cursor"]
    return f"{request.url.path}?{urlencode([*parameters, ('cursor', cursor)])}"
