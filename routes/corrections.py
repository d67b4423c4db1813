"""Corrections: what people say of a conversation instead of the model, and how far the two agree."""

from datetime import UTC, datetime
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

import answers
import queries
import store
from bodies import JSON_TYPE, SINGLE_LIMIT_BYTES, check_media_type, parse_json, read_body
from errors import InvalidSchema
from parameters import QualityQuery
from routes.shared import ConversationId, JSONAnswer, StateDep, body_of, errors_of, get_state, validate
from schemas import CorrectionIn

corrections = APIRouter(prefix="/api/v1", responses=errors_of(400, 401, 403, 429, 503), tags=["quality"])


@corrections.put(
    "/conversations/{conversation_id}/correction",
    response_model=answers.Correction,
    responses=errors_of(404, 408, 409, 413, 415, 507),
    openapi_extra=body_of(CorrectionIn),
    summary="Say what a conversation really is about",
)
async def put_correction(request: Request, conversation_id: ConversationId) -> Response:
    """Every read uses it from now on; what the model said is kept beside it. Sent again, it changes only its time.

    A sentiment that contradicts the model's gets the score in the middle of its band (0.55, 0 or -0.55), for nobody
    measured one; its confidence is 1. To say that the model was right, send what it said.
    """
    check_media_type(request.headers.get("content-type"), JSON_TYPE)
    announced = request.headers.get("content-length")
    body = await read_body(request.stream(), announced_bytes=announced, limit_bytes=SINGLE_LIMIT_BYTES)
    state = get_state(request)
    wanted = validate(CorrectionIn, parse_json(body))
    if not set(wanted.topics or ()) <= {topic.id for topic in state["topics"]}:
        raise InvalidSchema("Invalid field topics: only those that `GET /api/v1/topics` lists")
    unit = partial(store.correct, conversation_id=conversation_id, wanted=wanted, now=datetime.now(UTC))
    await state["database"].write(unit, alone=True)
    read = partial(queries.get_correction, conversation_id=conversation_id)
    return JSONAnswer(await state["database"].read(read))


@corrections.delete(
    "/conversations/{conversation_id}/correction",
    status_code=204,
    responses=errors_of(404, 507),
    summary="Withdraw a correction",
)
async def delete_correction(conversation_id: ConversationId, state: StateDep) -> Response:
    """What the model said is true again."""
    await state["database"].write(partial(store.withdraw_correction, conversation_id=conversation_id), alone=True)
    return Response(status_code=204)


@corrections.get("/quality", response_model=answers.QualityReport, summary="How far the model agrees with corrections")
async def read_quality(query: Annotated[QualityQuery, Query()], state: StateDep) -> Response:
    """Agreement, confusion and calibration, with intervals of 95 %; as representative as what was corrected."""
    return JSONAnswer(await state["database"].read(partial(queries.read_quality, model=query.model)))
