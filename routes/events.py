"""Live: the state of the service and every new insight, as server-sent events.

    connect --> retry, status --> turn: status if changed, [skipped], insight* --> rest 1 s --> turn ... --> end

Every stream asks the database for what is new, so it hears of what any process has written.
"""

from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import TypeAdapter

import queries
from access import Caller
from answers import LiveStatus, SkippedInsights, StreamEnd
from errors import Overloaded
from parameters import EventQuery
from routes.shared import State, StateDep, caller_of, current_topics, errors_of
from routes.streams import EventStream, write_event

_RETRY_MS = 2000  # a restart takes about as long
_TURN_S = 1.0
_SILENT_TURNS = 15  # proxies close what is silent for 30 to 60 s

LastEventId = Annotated[
    str | None,
    Header(pattern=r"^[0-9]{1,18}$", description="The id of the last event seen; a browser sends it by itself."),
]


def _schema_of(kind: str, data: dict[str, Any]) -> dict[str, Any]:
    content = {"type": "string", "contentMediaType": "application/json", "contentSchema": data}
    return {
        "type": "object",
        "required": ["event", "id", "data"],
        "properties": {"event": {"const": kind}, "id": {"type": "string"}, "data": content},
    }


_EVENTS: dict[str, Any] = {
    "schema": {"type": "string", "description": "Events as the HTML standard writes them, each as in `x-item-schema`."},
    "x-item-schema": {
        "oneOf": [
            _schema_of("status", TypeAdapter(LiveStatus).json_schema()),
            _schema_of("insight", {"$ref": "#/components/schemas/Insight"}),
            _schema_of("skipped", TypeAdapter(SkippedInsights).json_schema()),
            _schema_of("end", TypeAdapter(StreamEnd).json_schema()),
        ]
    },
}

events = APIRouter(prefix="/api/v1", responses=errors_of(400, 401, 403, 429, 503), tags=["insights"])


@events.get(
    "/events",
    response_class=Response,
    responses={200: {"description": "The stream.", "content": {EventStream.media_type: _EVENTS}}},
    summary="Live: the state of the service, and insights as they are written",
)
async def follow_events(
    request: Request, query: Annotated[EventQuery, Query()], state: StateDep, *, last_event_id: LastEventId = None
) -> Response:
    """Ends only with the service or its key, or when you close it. The filters are for `insight` events.

    With `Last-Event-ID` it goes on after that event; of more than 1,000 insights missed, it tells the newest 100.
    """
    query = current_topics(state, query)
    if last_event_id is None:
        now = datetime.now(UTC)
        position = await state["database"].read(partial(queries.newest_position, now=now))
    else:
        position = int(last_event_id)
    return EventStream(Feed(state, query, caller=caller_of(request), position=position).events(), state["streams"])


class Feed:
    """What one client is told, and up to where."""

    def __init__(self, state: State, query: EventQuery, *, caller: Caller, position: int) -> None:
        self._state = state
        self._caller = caller
        self._query = query
        self._position = position
        self._told: LiveStatus | None = None

    async def events(self) -> AsyncGenerator[bytes, None]:
        yield b"retry: %d\n\n" % _RETRY_MS
        silent_turns = 0
        while not self._state["streams"].ended and self._caller.is_welcome():
            told = await self._turn()
            for event in told:
                yield event
            silent_turns = 0 if told else silent_turns + 1
            if silent_turns == _SILENT_TURNS:
                yield b": still here\nid: %d\n\n" % self._position
                silent_turns = 0
            await self._state["streams"].rest(_TURN_S)
        end = StreamEnd(reason="shutdown" if self._state["streams"].ended else "key_revoked")
        yield write_event("end", end, position=self._position)

    async def _turn(self) -> list[bytes]:
        told: list[bytes] = []
        with suppress(Overloaded):  # a database that does not answer may do so at the next turn
            told += await self._status_if_changed()
            told += await self._new_insights()
        return told

    async def _status_if_changed(self) -> list[bytes]:
        status = await self._state["streams"].share_status(partial(_read_status, self._state))
        if status == self._told:
            return []
        self._told = status
        return [write_event("status", status, position=self._position)]

    async def _new_insights(self) -> list[bytes]:
        follow = partial(queries.follow_insights, query=self._query, after=self._position, now=datetime.now(UTC))
        followed = await self._state["database"].read(follow)
        told: list[bytes] = []
        if followed.skipped:
            skipped: SkippedInsights = {"count": followed.skipped, "url": _url_of(self._query)}
            told.append(write_event("skipped", skipped, position=followed.start))
        told += [write_event("insight", insight, position=row_id) for row_id, insight in followed.insights]
        self._position = followed.position
        return told


async def _read_status(state: State) -> LiveStatus:
    counts = await state["database"].read(partial(queries.count_live, now=datetime.now(UTC)))
    lane = state["lane"]
    return {
        "queue_size": counts.queue_size,
        "oldest_due_at": counts.oldest_due_at,
        "insights_total": counts.insights_total,
        "worker_running": state["worker_running"](),
        "grok_mode": state["grok_mode"],
        "breaker": lane.breaker_state,
        "lane": "shut" if lane.wait_s() > 0 else "open",
        "outage": None if lane.outage is None else lane.outage.code,
    }


def _url_of(query: EventQuery) -> str:
    filters = urlencode(query.model_dump(mode="json", exclude_defaults=True), doseq=True)
    return f"/api/v1/insights?{filters}" if filters else "/api/v1/insights"
