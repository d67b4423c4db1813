"""What every handler shares: what `main` built, how answers are serialised, which errors a route can give."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, TypedDict, TypeVar, cast, get_origin

import orjson
from fastapi import Depends, Path, Request, Response
from pydantic import BaseModel, ValidationError

import answers
from access import Caller
from account import KeyCheck
from batch_processor import BatchProcessor
from bodies import JSON_TYPE
from database import Database
from errors import RateLimitExceeded
from intake import Intake
from lane import Lane
from parameters import EventQuery, InsightQuery, ReanalysisQuery
from problems import invalid_schema
from rate_limiter import FairLimiter
from reader import PackSize
from routes.exporting import Files
from routes.streams import Streams
from telemetry import Metrics
from topics import Topic
from upkeep import Upkeep

M = TypeVar("M", bound=BaseModel)
Q = TypeVar("Q", InsightQuery, ReanalysisQuery, EventQuery)

VERSION = "0.1.0"


class State(TypedDict):
    """What `main` builds and every handler shares."""

    database: Database
    intake: Intake
    processor: BatchProcessor
    expensive_limiter: FairLimiter
    upkeep: Upkeep
    files: Files
    ticks_of_one: int
    grok_mode: str
    grok_model: str
    worker_running: Callable[[], bool]
    lane: Lane
    key_check: KeyCheck
    pack_size: PackSize
    metrics: Metrics
    streams: Streams
    budget_usd: float | None
    topics: Sequence[Topic]
    former_topics: Mapping[str, str]  # old ids to those that mean them now


class JSONAnswer(Response):
    """Serialised once, by orjson, with times in UTC and `Z`."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_UTC_Z)


def get_state(request: Request) -> State:
    return cast("State", request.scope["state"])


def caller_of(request: Request) -> Caller:
    return cast("Caller", request.scope["state"]["caller"])


async def _provide_state(request: Request) -> State:
    return get_state(request)  # a provider that is no coroutine would run in a thread of its own


def current_topic(state: State, topic: str) -> str:
    """The id to look for: an old one of a topic that was renamed or merged stands for the new one."""
    return state["former_topics"].get(topic, topic)


def current_topics(state: State, query: Q) -> Q:
    """The same query, with the ids that its topics have now."""
    return query.model_copy(update={"topic": [current_topic(state, topic) for topic in query.topic]})


StateDep = Annotated[State, Depends(_provide_state)]
ConversationId = Annotated[  # PostgreSQL cannot be asked for a text with NUL
    str,
    Path(
        max_length=64,
        pattern=r"^[^\x00]*$",
        examples=["conv_0194f9c2472c2a3277f827c50d0cd2fc"],
        description="As it was answered when the conversation was sent.",
    ),
]


def limit_expensive(request: Request, state: State) -> None:
    """For what may touch every row: at most 10 a minute, which clients share. Raises: RateLimitExceeded."""
    wait_s = state["expensive_limiter"].admit(caller_of(request).client)
    if wait_s > 0:
        raise RateLimitExceeded("At most 10 of these a minute.", retry_after_s=max(1, -int(-wait_s // 1)))


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """The body for the OpenAPI document: bodies are read and parsed by us, strictly, so FastAPI cannot know it."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"requestBody": {"required": True, "content": {JSON_TYPE: {"schema": schema}}}}


def validate(model: type[M], value: object, *, place: str = "field") -> M:
    """Raises: InvalidSchema."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise invalid_schema(error.errors(include_input=False, include_url=False), place=place) from None


def query_of(request: Request, model: type[M]) -> M:
    """The query string, read as FastAPI reads it: of what is no list the last value counts. Raises: InvalidSchema."""
    lists = _lists_of(model)
    given: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name in lists:
            given.setdefault(name, []).append(value)
        else:
            given[name] = value
    return validate(model, given, place="parameter")


@cache
def _lists_of(model: type[BaseModel]) -> frozenset[str]:
    return frozenset(name for name, field in model.model_fields.items() if get_origin(field.annotation) is list)


def errors_of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": answers.Problem} for status in statuses}
