"""Conversations as they are stored: one, all, and those that failed, to be sent back."""

from datetime import UTC, datetime
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

import answers
import queries
import store
from errors import RateLimitExceeded
from routes.shared import JSONAnswer, StateDep, errors_of
from schemas import ConversationQuery, RetryQuery

conversations = APIRouter(prefix="/api/v1", responses=errors_of(400, 401, 429, 503), tags=["conversations"])
ConversationId = Annotated[  # PostgreSQL cannot be asked for a text with NUL
    str,
    Path(
        max_length=64,
        pattern=r"^[^\x00]*$",
        examples=["conv_0194f9c2472c2a3277f827c50d0cd2fc"],
        description="As it was answered when the conversation was sent.",
    ),
]


@conversations.get(
    "/conversations",
    response_model=answers.ConversationPage,
    summary="List conversations, newest first",
)
async def list_conversations(query: Annotated[ConversationQuery, Query()], state: StateDep) -> Response:
    return JSONAnswer(await state["database"].read(partial(queries.list_conversations, query=query)))


@conversations.get(
    "/conversations/{conversation_id}",
    response_model=answers.Conversation,
    responses=errors_of(404),
    summary="Read one conversation, with its insight",
)
async def get_conversation(conversation_id: ConversationId, state: StateDep) -> Response:
    return JSONAnswer(await state["database"].read(partial(queries.get_conversation, conversation_id=conversation_id)))


@conversations.post(
    "/conversations/retry",
    status_code=202,
    response_model=answers.Retried,
    responses=errors_of(507),
    summary="Send all failed conversations back to pending",
)
async def retry_failed(request: Request, query: Annotated[RetryQuery, Query()], state: StateDep) -> Response:  # noqa: ARG001
    """At most 10 times a minute, which clients share: it may touch every row."""
    wait_s = state["retry_limiter"].admit(str(request.scope["state"]["client"]))
    if wait_s > 0:
        raise RateLimitExceeded("At most 10 of these a minute.", retry_after_s=max(1, -int(-wait_s // 1)))
    retried = await state["database"].write(partial(store.retry_failed, now=datetime.now(UTC)))
    state["processor"].wake()
    return JSONAnswer({"status": "accepted", "retried": retried}, status_code=202)


@conversations.post(
    "/conversations/{conversation_id}/retry",
    status_code=202,
    response_model=answers.Retried,
    responses=errors_of(404, 409, 507),
    summary="Send one failed conversation back to pending",
)
async def retry_conversation(conversation_id: ConversationId, state: StateDep) -> Response:
    now = datetime.now(UTC)
    await state["database"].write(partial(store.retry_conversation, conversation_id=conversation_id, now=now))
    state["processor"].wake()
    return JSONAnswer({"status": "accepted", "retried": 1}, status_code=202)
