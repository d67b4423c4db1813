"""Have conversations read again: by another model, with other topics; first asking what it would cost."""

from datetime import UTC, datetime
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

import answers
import queries
import store
from answers import Estimate
from parameters import ReanalysisQuery
from routes.shared import JSONAnswer, State, StateDep, current_topics, errors_of, limit_expensive
from xai import TICKS_PER_USD

reanalyses = APIRouter(prefix="/api/v1", responses=errors_of(400, 401, 403, 429, 503), tags=["quality"])


@reanalyses.post(
    "/reanalyze",
    status_code=202,
    response_model=answers.ReanalysisAccepted,
    responses={200: {"model": answers.ReanalysisAccepted, "description": "With `dry_run=true`."}, **errors_of(507)},
    summary="Read again what matches",
)
async def reanalyze(request: Request, query: Annotated[ReanalysisQuery, Query()], state: StateDep) -> Response:
    """Each keeps its insight until there is a new one. New conversations go first; `dry_run=true` only says the cost.

    No answer that was kept from before the request serves, and a correction stays. At most 10 times a minute.
    """
    limit_expensive(request, state)
    query = current_topics(state, query)
    estimate = await _estimate(query, state)
    if query.dry_run:
        return JSONAnswer({"status": "dry_run", **estimate})
    number = await state["upkeep"].order(query, matched=estimate["conversations"])
    return JSONAnswer({"status": "accepted", "reanalysis_id": number, **estimate}, status_code=202)


@reanalyses.get("/reanalyses", response_model=answers.Reanalyses, summary="What is being read again, and how far it is")
async def list_reanalyses(state: StateDep) -> Response:
    """The newest 100 first; `ended_at` is null while some are still to be sent back."""
    return JSONAnswer({"reanalyses": await state["database"].read(queries.list_reanalyses)})


@reanalyses.delete(
    "/reanalyses/{reanalysis_id}", status_code=204, responses=errors_of(404, 409, 507), summary="Stop a reanalysis"
)
async def stop_reanalysis(
    reanalysis_id: Annotated[int, Path(ge=1, lt=2**63, description="As it was answered when it was ordered.")],
    state: StateDep,
) -> Response:
    """What has been sent back is read all the same; the rest keeps its insight."""
    await state["database"].write(partial(store.end_reanalysis, order=reanalysis_id, now=datetime.now(UTC)))
    return Response(status_code=204)


async def _estimate(query: ReanalysisQuery, state: State) -> Estimate:
    count = await state["database"].read(partial(queries.count_to_reread, query=query))
    if state["grok_mode"] == "mock":
        return {"conversations": count, "estimated_usd": 0.0, "basis": "offline"}
    each = await state["database"].read(partial(queries.ticks_per_conversation, model=state["grok_model"]))
    ticks = count * (state["ticks_of_one"] if each is None else each)
    usd = round(ticks / TICKS_PER_USD, 6)
    return {"conversations": count, "estimated_usd": usd, "basis": "price_list" if each is None else "usage"}
