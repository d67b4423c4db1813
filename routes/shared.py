"""What every handler shares: what `main` built, how answers are serialised, which errors a route can give."""

from collections.abc import Callable
from typing import Annotated, Any, TypedDict, cast

import orjson
from fastapi import Depends, Request, Response

import answers
from account import KeyCheck
from batch_processor import BatchProcessor
from database import Database
from intake import Intake
from lane import Lane
from rate_limiter import FairLimiter
from reader import PackSize
from telemetry import Metrics

VERSION = "0.1.0"


class State(TypedDict):
    """What `main` builds and every handler shares."""

    database: Database
    intake: Intake
    processor: BatchProcessor
    retry_limiter: FairLimiter
    grok_mode: str
    grok_model: str
    worker_running: Callable[[], bool]
    lane: Lane
    key_check: KeyCheck
    pack_size: PackSize
    metrics: Metrics
    budget_usd: float | None


class JSONAnswer(Response):
    """Serialised once, by orjson, with times in UTC and `Z`."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_UTC_Z)


def get_state(request: Request) -> State:
    return cast("State", request.scope["state"])


async def _provide_state(request: Request) -> State:
    return get_state(request)  # a provider that is no coroutine would run in a thread of its own


StateDep = Annotated[State, Depends(_provide_state)]


def errors_of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": answers.Problem} for status in statuses}
