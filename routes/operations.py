"""The operator's view: is it alive, is it ready, what has it done and at what cost."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

from fastapi import APIRouter, Response

import answers
import queries
from answers import Summary
from errors import InsightsError, Overloaded
from routes.measuring import measure
from routes.shared import JSONAnswer, State, StateDep, errors_of
from routes.summary import summarize
from telemetry import METRICS_TYPE

_HEALTH_PATIENCE_S = 1  # a probe waits some seconds
STALLED_S = 30  # a worker whose last turn is older makes no progress
_SCRAPE_PATIENCE_S = 5  # Prometheus gives a scrape 10

operations = APIRouter(tags=["operations"])


@operations.get("/health", response_model=answers.Health, summary="Is the process alive?")
async def check_health(state: StateDep) -> Response:
    now = datetime.now(UTC)
    queue_size: int | None = None
    due_since: datetime | None = None
    busy = False
    try:
        async with asyncio.timeout(_HEALTH_PATIENCE_S):
            queue_size = await state["database"].read(queries.queue_depth)
            due_since = await state["database"].read(partial(queries.oldest_due, now=now))
    except Overloaded:
        pass  # told below
    except TimeoutError:
        busy = True  # other reads are before this one: no reason to call the process dead
    running = state["worker_running"]()
    answer: answers.Health = {
        "status": "ok" if running and (queue_size is not None or busy) and state["lane"].outage is None else "degraded",
        "queue_size": queue_size,
        "oldest_due_seconds": None if due_since is None else round((now - due_since).total_seconds(), 3),
        "worker_running": running,
        "grok_mode": state["grok_mode"],
    }
    return JSONAnswer(answer)


@operations.get(
    "/ready",
    response_model=answers.Ready,
    responses=errors_of(503),
    summary="Can the service take and analyze conversations?",
)
async def check_ready(state: StateDep) -> Response:
    if not await state["database"].schema_is_current():
        raise Overloaded("The database schema is not the one of this version; restart the service to migrate.")
    if not state["worker_running"]() or await _stands_still(state):
        raise Overloaded("The worker makes no progress; see the log.", retry_after_s=5)
    if (outage := state["lane"].outage) is not None:
        raise Overloaded(f"Grok cannot be used, conversations wait. {outage.details}", retry_after_s=30)
    check = state["key_check"]
    answer: answers.Ready = {"status": "ready", "grok": check.verdict, "details": check.details}
    return JSONAnswer(answer)


async def _stands_still(state: State) -> bool:
    """No turn for too long, here or where the queue is owned; or nothing found though rows have long been due."""
    now, processor = datetime.now(UTC), state["processor"]
    if _is_old(processor.ticked_at, now=now):
        return True
    if processor.idle_since is None or not _is_old(processor.idle_since, now=now):
        return False
    due_since = await state["database"].read(partial(queries.oldest_due, now=now))
    return due_since is not None and _is_old(due_since, now=now)


def _is_old(moment: datetime, *, now: datetime) -> bool:
    return (now - moment).total_seconds() > STALLED_S


@operations.get(
    "/status/summary",
    response_model=Summary,
    responses=errors_of(401, 403, 429, 503),
    summary="What the service does, at what cost",
)
async def read_summary(state: StateDep) -> Response:
    now = datetime.now(UTC)
    counts = await state["database"].read(partial(queries.count_for_operator, day=now.date().isoformat()))
    return JSONAnswer(summarize(counts, state, now=now))


@operations.get("/metrics", response_class=Response, summary="Requests, calls, tokens, cost and queue for Prometheus")
async def read_metrics(state: StateDep) -> Response:
    now = datetime.now(UTC)
    counts: queries.ScrapeCounts | None = None
    with suppress(InsightsError, TimeoutError):  # a database that does not answer is a finding, too
        async with asyncio.timeout(_SCRAPE_PATIENCE_S):
            counts = await state["database"].read(partial(queries.count_for_scrape, now=now))
    return Response(state["metrics"].render(measure(counts, state, now=now)), media_type=METRICS_TYPE)
