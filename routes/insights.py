"""Insights: what customers feel, and about what; a page, a file, and how it changed."""

from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

import answers
import queries
from answers import FacetValue, TopicCounts, Trends
from parameters import Format, InsightQuery, TopicsQuery, TrendsQuery
from routes.exporting import MEDIA_TYPES, InsightsFile
from routes.shared import JSONAnswer, StateDep, current_topic, current_topics, errors_of, get_state, query_of

insights = APIRouter(prefix="/api/v1", responses=errors_of(400, 401, 403, 429, 503), tags=["insights"])
_LINK = {"Link": {"description": "The next page.", "schema": {"type": "string"}}}
_FILES: dict[str, Any] = {
    media_type.partition(";")[0]: {"schema": {"type": "string", "description": f"With `format={form}`: every match."}}
    for form, media_type in MEDIA_TYPES.items()
}


@insights.get(
    "/insights",
    response_model=answers.InsightPage,
    responses={200: {"description": "A page, or all of them as a file.", "content": _FILES, "headers": _LINK}},
    summary="Find insights, newest first",
)
async def find_insights(request: Request, query: Annotated[InsightQuery, Query()], state: StateDep) -> Response:
    """`total_count` counts all that match, exactly; `Link: rel="next"` leads to the next page.

    With `format=csv` or `jsonl` (or such an `Accept`) every match comes as a file; `X-Total-Count` says how many match.
    """
    database, query = state["database"], current_topics(state, query)
    if (form := query.format or _accepted(request)) is not Format.JSON:
        total = await database.read(partial(queries.count_matches, wanted=query))
        return InsightsFile(state["files"], query, form=form, total_count=total)
    page = await database.read(partial(queries.find_insights, query=query))
    for facet, values in page.get("facets", {}).items():
        _add_urls(request, facet, values)
    next_cursor = page["metadata"]["next_cursor"]
    headers = {} if next_cursor is None else {"Link": f'<{_url(request, cursor=next_cursor)}>; rel="next"'}
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


async def _answer_find(request: Request) -> Response:
    return await find_insights(request, query_of(request, InsightQuery), get_state(request))


async def _answer_trends(request: Request) -> Response:
    return await read_trends(query_of(request, TrendsQuery), get_state(request))


ANSWERED = {"find_insights": _answer_find, "read_trends": _answer_trends}  # past FastAPI


def _accepted(request: Request) -> Format:
    """The first media type of `Accept` that there is a form of; JSON otherwise."""
    kinds = {media_type.partition(";")[0]: form for form, media_type in MEDIA_TYPES.items()}
    kinds |= {"application/json": Format.JSON, "application/jsonl": Format.JSONL}
    accepted = [part.partition(";")[0].strip().lower() for part in request.headers.get("accept", "").split(",")]
    return next((kinds[media_type] for media_type in accepted if media_type in kinds), Format.JSON)


def _add_urls(request: Request, facet: str, values: list[FacetValue]) -> None:
    for value in values:
        value["url"] = _url(request, **{facet: value["value"]})


def _url(request: Request, **changed: str) -> str:
    """This request again, but for what is changed; another filter begins on its first page."""
    left_out = {*changed, "cursor"}
    kept = [pair for pair in request.query_params.multi_items() if pair[0] not in left_out]
    return f"{request.url.path}?{urlencode([*kept, *changed.items()])}"
