"""Taking conversations in: the two POSTs that everything else hangs on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ValidationError

import answers
import store
from answers import BulkItemResult
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
from errors import BodyTooLarge, Conflict, InvalidSchema
from problems import MEDIA_TYPE, describe, to_body
from routes.shared import JSONAnswer, body_of, caller_of, errors_of, get_state, validate
from schemas import MAX_BULK_ITEMS, BulkIn, ConversationIn

_QUEUED = "Conversation queued for analysis"

taking_in = APIRouter(prefix="/api/v1", responses=errors_of(400, 401, 403, 429, 503))


@dataclass(frozen=True, slots=True)
class Sent:
    """A request's body and what identifies it for idempotency."""

    body: bytes
    media_type: str
    idempotency: store.Idempotency | None


_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Your name for this request: sent again within 24 hours, with the same body, nothing is done twice.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
_LOCATION = {"Location": {"description": "Where the conversation is.", "schema": {"type": "string"}}}


def _body(model: type[BaseModel]) -> dict[str, Any]:
    return {**body_of(model), "parameters": [_IDEMPOTENCY_KEY]}


def _bulk_body() -> dict[str, Any]:
    body = _body(BulkIn)
    content = body["requestBody"]["content"]
    content[NDJSON_TYPE] = {
        "schema": {"type": "string", "format": "json-lines", "description": "One conversation a line, 1 to 500."}
    }
    item = ConversationIn.model_json_schema()
    content[JSON_TYPE]["schema"]["properties"]["conversations"]["items"] = item
    return body


@taking_in.post(
    "/conversations",
    status_code=202,
    response_model=answers.Accepted,
    responses={202: {"headers": _LOCATION}, **errors_of(408, 409, 413, 415, 422, 507)},
    openapi_extra=_body(ConversationIn),
    summary="Send one conversation",
    tags=["conversations"],
)
async def post_conversation(request: Request) -> Response:
    """Answers 202 once it is on disk; `Idempotency-Key` and `external_id` make sending again safe."""
    sent = await _read(request, SINGLE_LIMIT_BYTES, JSON_TYPE)
    conversation = validate(ConversationIn, parse_json(sent.body))
    [outcome] = await get_state(request)["intake"].accept([conversation], sent.idempotency)
    if outcome.result == "conflict":
        raise Conflict("This external_id was stored with other content; use another, or send the same content.")
    message = _QUEUED if outcome.result == "accepted" else "Conversation was accepted before"
    answer: answers.Accepted = {
        "status": "accepted",
        "conversation_id": outcome.conversation_id,
        "message": message,
    }
    headers = {"Location": f"/api/v1/conversations/{outcome.conversation_id}"}
    return JSONAnswer(answer, status_code=202, headers=headers)


@taking_in.post(
    "/conversations/bulk",
    status_code=202,
    response_model=answers.BulkAccepted,
    responses=errors_of(408, 413, 415, 422, 507),
    openapi_extra=_bulk_body(),
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
    answer: answers.BulkAccepted = {
        "status": "accepted",
        "accepted": counts["accepted"],
        "duplicates": counts["duplicate"],
        "rejected": counts["invalid"],
        "results": ordered,
    }
    return JSONAnswer(answer, status_code=202)


TAKEN_IN = {"post_conversation": post_conversation, "post_bulk": post_bulk}  # past FastAPI


async def _read(request: Request, limit_bytes: int, *media_types: str) -> Sent:
    headers = request.headers
    media_type = check_media_type(headers.get("content-type"), *media_types)
    body = await read_body(request.stream(), announced_bytes=headers.get("content-length"), limit_bytes=limit_bytes)
    if (key := headers.get("idempotency-key")) is None:
        return Sent(body, media_type, None)
    if not 1 <= len(key) <= 255:
        raise InvalidSchema("Idempotency-Key must have 1 to 255 characters.")
    client = caller_of(request).client
    return Sent(body, media_type, store.Idempotency.of(client=client, route=request.url.path, key=key, body=body))


def _validate_items(sent: Sent) -> tuple[dict[int, BulkItemResult], dict[int, ConversationIn]]:
    """What is wrong with the invalid items, and the valid ones, each by its index."""
    results: dict[int, BulkItemResult] = {}
    valid: dict[int, ConversationIn] = {}
    for index, item in enumerate(_split_items(sent)):
        try:
            value = parse_json(item) if isinstance(item, bytes) else item
            if isinstance(item, bytes) and len(item) > SINGLE_LIMIT_BYTES:
                raise BodyTooLarge("One conversation may have at most 1 MB.")
            valid[index] = validate(ConversationIn, value)
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
            raise InvalidSchema(f"Send 1 to {MAX_BULK_ITEMS} conversations in one request.") from None
        raise InvalidSchema(describe(error.errors(include_input=False, include_url=False))) from None


def _item_result(index: int, outcome: store.Accepted) -> BulkItemResult:
    if outcome.result == "conflict":
        details = "Its external_id was stored with other content; use another, or send the same content."
        return {"index": index, "status": "invalid", "error": Conflict.code, "details": details}
    return {"index": index, "status": outcome.result, "conversation_id": outcome.conversation_id}
