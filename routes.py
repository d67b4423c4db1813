"""HTTP in and out: each handler reads the request, calls one function of the store or the queries, and answers."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, TypedDict, cast
from urllib.parse import urlencode

import orjson
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ValidationError

import queries
import schemas
import store
from batch_processor import BatchProcessor
from bodies import (
    BULK_LIMIT_BYTES,
    JSON_TYPE,
    NDJSON_TYPE,
    SINGLE_LIMIT_BYTES,
    check_media_type,
    parse_json,
    read_body,
    split_ndjson,
)
from database import Database
from errors import BodyTooLarge, Conflict, GrokOutage, InvalidSchema, Overloaded, RateLimitExceeded
from intake import Intake
from problems import MEDIA_TYPE, describe, invalid_schema, to_body
from rate_limiter import FairLimiter
from schemas import BulkIn, BulkItemResult, ConversationIn, ConversationQuery, InsightQuery, RetryQuery

_STALLED_S = 30  # a worker whose last turn is older makes no progress
_QUEUED = "Conversation queued for analysis"


class State(TypedDict):
    """What `main` builds and every handler shares."""

    database: Database
    intake: Intake
    processor: BatchProcessor
    retry_limiter: FairLimiter
    grok_mode: str
    worker_running: Callable[[], bool]
    grok_outage: Callable[[], GrokOutage | None]


class JSONAnswer(Response):
    """Serialised once, by orjson, with times in UTC and `Z`."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_UTC_Z)


@dataclass(frozen=True, slots=True)
class Sent:
    """A request's body and what identifies it for idempotency."""

    body: bytes
    media_type: str
    idempotency: store.Idempotency | None


def get_state(request: Request) -> State:
    return cast("State", request.scope["state"])


async def _provide_state(request: Request) -> State:
    return get_state(request)  # a provider that is no coroutine would run in a thread of its own


StateDep = Annotated[State, Depends(_provide_state)]
ConversationId = Annotated[  # PostgreSQL cannot be asked for a text with NUL
    str, Path(max_length=64, pattern=r"^[^\x00]*$", examples=["conv_0194f9c2472c2a3277f827c50d0cd2fc"])
]


def _body_of(model: type[BaseModel], *, lines: bool = False) -> dict[str, Any]:
    """The body for the OpenAPI document: bodies are read and parsed by us, strictly, so FastAPI cannot know it."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    content: dict[str, Any] = {JSON_TYPE: {"schema": schema}}
    if lines:
        content[NDJSON_TYPE] = {"schema": {"type": "string", "description": "One conversation a line, 1 to 500."}}
        item = ConversationIn.model_json_schema()
        schema["properties"]["conversations"]["items"] = item
    return {"requestBody": {"required": True, "content": content}}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": schemas.Problem} for status in statuses}


router = APIRouter()
taking_in = APIRouter(prefix="/api/v1", responses=_errors(400, 401, 429, 503))
api = APIRouter(prefix="/api/v1", responses=_errors(400, 401, 429, 503))


@taking_in.post(
    "/conversations",
    status_code=202,
    response_model=schemas.Accepted,
    responses=_errors(408, 409, 413, 415, 422, 507),
    openapi_extra=_body_of(ConversationIn),
    summary="Send one conversation",
    tags=["conversations"],
)
async def post_conversation(request: Request) -> Response:
    """Answers 202 once it is on disk; `Idempotency-Key` and `external_id` make sending again safe."""
    sent = await _read(request, SINGLE_LIMIT_BYTES, JSON_TYPE)
    conversation = _validate(ConversationIn, parse_json(sent.body))
    [outcome] = await get_state(request)["intake"].accept([conversation], sent.idempotency)
    if outcome.result == "conflict":
        raise Conflict("This external_id was stored with other content; use another, or send the same content.")
    message = _QUEUED if outcome.result == "accepted" else "Conversation was accepted before"
    answer: schemas.Accepted = {
        "status": "accepted",
        "conversation_id": outcome.conversation_id,
        "message": message,
    }
    headers = {"Location": f"/api/v1/conversations/{outcome.conversation_id}"}
    return JSONAnswer(answer, status_code=202, headers=headers)


@taking_in.post(
    "/conversations/bulk",
    status_code=202,
    response_model=schemas.BulkAccepted,
    responses=_errors(408, 413, 415, 422, 507),
    openapi_extra=_body_of(BulkIn, lines=True),
    summary="Send up to 500 conversations",
    tags=["conversations"],
)
async def post_bulk(request: Request) -> Response:
    """Stores the valid items in one transaction and reports the others; an item's `index` is its place in the body."""
    sent = await _read(request, BULK_LIMIT_BYTES, JSON_TYPE, NDJSON_TYPE)
    results, valid = _validate_items(sent)
    outcomes = await get_state(request)["intake"].accept(list(valid.values()), sent.idempotency) if valid else []
    for index, outcome in zip(valid, outcomes, strict=True):
        results[index] = _item_result(index, outcome)
    ordered = [results[index] for index in sorted(results)]
    if all(item["status"] == "invalid" for item in ordered):
        body, _ = to_body(InvalidSchema("Not one item is valid; see results."), {"results": ordered})
        return Response(body, status_code=400, media_type=MEDIA_TYPE)
    counts = {kind: sum(item["status"] == kind for item in ordered) for kind in ("accepted", "duplicate", "invalid")}
    answer: schemas.BulkAccepted = {
        "status": "accepted",
        "accepted": counts["accepted"],
        "duplicates": counts["duplicate"],
        "rejected": counts["invalid"],
        "results": ordered,
    }
    return JSONAnswer(answer, status_code=202)


@api.get(
    "/conversations",
    response_model=schemas.ConversationPage,
    summary="List conversations, newest first",
    tags=["conversations"],
)
async def list_conversations(query: Annotated[ConversationQuery, Query()], state: StateDep) -> Response:
    return JSONAnswer(await state["database"].read(partial(queries.list_conversations, query=query)))


@api.get(
    "/conversations/{conversation_id}",
    response_model=schemas.Conversation,
    responses=_errors(404),
    summary="One conversation, with its insight",
    tags=["conversations"],
)
async def get_conversation(conversation_id: ConversationId, state: StateDep) -> Response:
    return JSONAnswer(await state["database"].read(partial(queries.get_conversation, conversation_id=conversation_id)))


@api.post(
    "/conversations/retry",
    status_code=202,
    response_model=schemas.Retried,
    summary="Send all failed conversations back to pending",
    tags=["conversations"],
)
async def retry_failed(request: Request, query: Annotated[RetryQuery, Query()], state: StateDep) -> Response:  # noqa: ARG001
    """At most 10 times a minute for each client: it may touch every row."""
    wait_s = state["retry_limiter"].admit(str(request.scope["state"]["client"]))
    if wait_s > 0:
        raise RateLimitExceeded("At most 10 of these a minute.", retry_after_s=max(1, -int(-wait_s // 1)))
    retried = await state["database"].write(partial(store.retry_failed, now=datetime.now(UTC)))
    state["processor"].wake()
    return JSONAnswer({"status": "accepted", "retried": retried}, status_code=202)


@api.post(
    "/conversations/{conversation_id}/retry",
    status_code=202,
    response_model=schemas.Retried,
    responses=_errors(404, 409),
    summary="Send one failed conversation back to pending",
    tags=["conversations"],
)
async def retry_conversation(conversation_id: ConversationId, state: StateDep) -> Response:
    now = datetime.now(UTC)
    await state["database"].write(partial(store.retry_conversation, conversation_id=conversation_id, now=now))
    state["processor"].wake()
    return JSONAnswer({"status": "accepted", "retried": 1}, status_code=202)


@api.get("/insights", response_model=schemas.InsightPage, summary="Insights, newest first", tags=["insights"])
async def find_insights(request: Request, query: Annotated[InsightQuery, Query()], state: StateDep) -> Response:
    """`total_count` counts all that match, exactly; `Link: rel="next"` leads to the next page."""
    page = await state["database"].read(partial(queries.find_insights, query=query))
    next_cursor = page["metadata"]["next_cursor"]
    headers = {} if next_cursor is None else {"Link": f'<{_next_url(request, next_cursor)}>; rel="next"'}
    return JSONAnswer(page, headers=headers)


@router.get("/health", response_model=schemas.Health, summary="Is the process alive?", tags=["operations"])
async def health(state: StateDep) -> Response:
    now = datetime.now(UTC)
    queue_size: int | None = None
    due_since: datetime | None = None
    with suppress(Overloaded):  # a database that does not answer is told below
        queue_size = await state["database"].read(queries.queue_depth)
        due_since = await state["database"].read(partial(queries.oldest_due, now=now))
    running = state["worker_running"]()
    answer: schemas.Health = {
        "status": "ok" if running and queue_size is not None and state["grok_outage"]() is None else "degraded",
        "queue_size": queue_size,
        "oldest_due_seconds": None if due_since is None else round((now - due_since).total_seconds(), 3),
        "worker_running": running,
        "grok_mode": state["grok_mode"],
    }
    return JSONAnswer(answer)


@router.get(
    "/ready",
    response_model=schemas.Ready,
    responses=_errors(503),
    summary="Can it take and analyze conversations?",
    tags=["operations"],
)
async def ready(state: StateDep) -> Response:
    if not await state["database"].schema_is_current():
        raise Overloaded("The database schema is not the one of this version; restart the service to migrate.")
    ticked_at = state["processor"].ticked_at
    stalled = ticked_at is None or (datetime.now(UTC) - ticked_at).total_seconds() > _STALLED_S
    if stalled or not state["worker_running"]():
        raise Overloaded("The worker makes no progress; see the log.", retry_after_s=5)
    if (outage := state["grok_outage"]()) is not None:
        raise Overloaded(f"Grok cannot be used, conversations wait. {outage.details}", retry_after_s=30)
    return JSONAnswer({"status": "ready"})


async def _read(request: Request, limit_bytes: int, *media_types: str) -> Sent:
    headers = request.headers
    media_type = check_media_type(headers.get("content-type"), *media_types)
    body = await read_body(request.stream(), announced_bytes=headers.get("content-length"), limit_bytes=limit_bytes)
    if (key := headers.get("idempotency-key")) is None:
        return Sent(body, media_type, None)
    if not 1 <= len(key) <= 255:
        raise InvalidSchema("Idempotency-Key must have 1 to 255 characters.")
    client = str(request.scope["state"]["client"])
    return Sent(body, media_type, store.Idempotency.of(client=client, route=request.url.path, key=key, body=body))


def _validate(model: type[ConversationIn], value: object) -> ConversationIn:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise invalid_schema(error.errors(include_input=False, include_url=False)) from None


def _validate_items(sent: Sent) -> tuple[dict[int, BulkItemResult], dict[int, ConversationIn]]:
    """What is wrong with the invalid items, and the valid ones, each by its index."""
    results: dict[int, BulkItemResult] = {}
    valid: dict[int, ConversationIn] = {}
    for index, item in enumerate(_split_items(sent)):
        try:
            value = parse_json(item) if isinstance(item, bytes) else item
            if isinstance(item, bytes) and len(item) > SINGLE_LIMIT_BYTES:
                raise BodyTooLarge("One conversation may have at most 1 MB.")
            valid[index] = _validate(ConversationIn, value)
        except (InvalidSchema, BodyTooLarge) as error:
            results[index] = {"index": index, "status": "invalid", "error": error.code, "details": error.details}
    return results, valid


def _split_items(sent: Sent) -> Sequence[Any]:
    if sent.media_type == NDJSON_TYPE:
        return split_ndjson(sent.body)
    value = parse_json(sent.body)
    try:
        return BulkIn.model_validate(value).conversations
    except ValidationError as error:
        kinds = {item["type"] for item in error.errors()}
        if kinds & {"too_long", "too_short"}:
            raise InvalidSchema(f"Send 1 to {schemas.MAX_BULK_ITEMS} conversations in one request.") from None
        raise InvalidSchema(describe(error.errors(include_input=False, include_url=False))) from None


def _item_result(index: int, outcome: store.Accepted) -> BulkItemResult:
    if outcome.result == "conflict":
        details = "Its external_id was stored with other content; use another, or send the same content."
        return {"index": index, "status": "invalid", "error": Conflict.code, "details": details}
    return {"index": index, "status": outcome.result, "conversation_id": outcome.conversation_id}


def _next_url(request: Request, cursor: str) -> str:
    parameters: list[tuple[str, str]] = [pair for pair in request.query_params.multi_items() if pair[0] != "cursor"]
    return f"{request.url.path}?{urlencode([*parameters, ('cursor', cursor)])}"
