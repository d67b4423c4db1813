"""Erase conversations, one or all of an author, with every trace they left; the answer is the receipt."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response

import answers
from errors import NotFound
from parameters import ErasureQuery
from routes.shared import ConversationId, JSONAnswer, StateDep, errors_of
from store import Erased

erasing = APIRouter(prefix="/api/v1", responses=errors_of(400, 401, 403, 429, 503), tags=["conversations"])


@erasing.delete(
    "/conversations/{conversation_id}",
    response_model=answers.Erasure,
    responses=errors_of(404, 507),
    summary="Erase one conversation",
)
async def erase_conversation(conversation_id: ConversationId, state: StateDep) -> Response:
    """Its insight goes with it, out of topics, totals, full text and the answers kept for equal texts.

    SQLite's file and log are scrubbed within seconds of the answer, or half a minute after the last time: then no
    byte of it is left in them. In a file above 128 MB, unused room of pages may keep copies of some texts until the
    file is written anew: `make vacuum`, with the service stopped. A backup that was made before keeps it.
    """
    erased = await state["upkeep"].erase([conversation_id])
    if not erased.conversations:
        raise NotFound("There is no conversation with this id.")
    return JSONAnswer(_receipt(erased))


@erasing.delete(
    "/conversations", response_model=answers.Erasure, responses=errors_of(507), summary="Erase all of an author"
)
async def erase_author(query: Annotated[ErasureQuery, Query()], state: StateDep) -> Response:
    """Some hundreds at a time; asked again after an error, it goes on. Nothing to erase is no error."""
    return JSONAnswer(_receipt(await state["upkeep"].erase_author(query.author)))


def _receipt(erased: Erased) -> answers.Erasure:
    return {
        "status": "erased",
        "erased_at": datetime.now(UTC),
        "conversations": erased.conversations,
        "insights": erased.insights,
        "corrections": erased.corrections,
        "cached_analyses": erased.cached_analyses,
    }
