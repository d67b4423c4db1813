"""Conversations as they are stored: one, all, and those that failed, to be sent back."""

from datetime import UTC, datetime
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

import answers
import queries
import store
from parameters import ConversationQuery, RetryQuery
from routes.shared import ConversationId, JSONAnswer, StateDep, errors_of, limit_expensive

conversations = APIRouter(prefix="/api/v1", responses=errors_of(400, 401, 403, 429, 503), tags=["conversations"])


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
    limit_expensive(request, state)
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
