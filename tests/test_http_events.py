"""The live stream over a real socket: what is told, where it goes on, who finds no place, and how it ends."""

import asyncio
import json
import re
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx2
import jsonschema
import pytest
from starlette.types import Message

from access import Caller
from database import Database, ReadSession
from errors import DatabaseBusy
from parameters import EventQuery
from routes import State, Streams
from routes.events import Feed
from routes.streams import MOST_STREAMS, EventStream
from tests.fake_xai import running_fake_xai
from tests.harness import ROOT, Json, Service, post_one, running_app, running_service, wait_until
from tests.test_http_intake import BULK, assert_problem
from tests.test_http_operations import INSIGHTS, KEY

pytestmark = pytest.mark.integration

EVENTS = "/api/v1/events"
COMPLAINT, PRAISE = "My parcel is three weeks late and nobody answers", "Love it, thank you so much, great service!"
HOSTILE = "late parcel\r\n\r\nevent: end\ndata: {}\rid: 7 \u2028 \u2029 \x85 \x0b ä 漢 🙂"


@dataclass(frozen=True, slots=True)
class Event:
    kind: str
    id: str
    data: Json


class Listener:
    """One open stream, read as the HTML standard says; `retry` is what it was told to wait before it comes again."""

    def __init__(self, answer: httpx2.Response) -> None:
        self.answer = answer
        self.retry = ""
        self._events = self._read()

    def next(self, kind: str) -> Event:
        """The next event of this kind; a stream that ends before it raises StopIteration."""
        return next(event for event in self._events if event.kind == kind)

    def remaining(self) -> list[Event]:
        """All until the stream ends."""
        return list(self._events)

    def _read(self) -> Iterator[Event]:
        unread = b""
        for chunk in self.answer.iter_bytes():
            unread += chunk
            *blocks, unread = unread.split(b"\n\n")
            for block in blocks:
                told = fields_of(block.decode())
                self.retry = told.get("retry", self.retry)
                if "data" in told:
                    yield Event(told["event"], told["id"], json.loads(told["data"]))
        assert unread == b"", "a stream ends with a whole event"


def fields_of(block: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in re.split("\r\n|\r|\n", block):  # the only line breaks there are for a browser
        name, _, value = line.partition(": ")
        assert name not in fields, "each field once: data is one line"
        fields[name] = value
    return fields


@contextmanager
def listening(service: Service, *, after: str | None = None, **parameters: Any) -> Generator[Listener, None, None]:
    headers = {} if after is None else {"Last-Event-ID": after}
    with service.client() as client, client.stream("GET", EVENTS, params=parameters, headers=headers) as answer:
        assert answer.status_code == 200
        yield Listener(answer)


def fill(service: Service, count: int) -> None:
    """Store so many complaints, and wait until each has its insight."""
    with service.client() as client:
        for start in range(0, count, 500):
            items = [{"text": f"late parcel {number}"} for number in range(start, min(start + 500, count))]
            assert client.post(BULK, json={"conversations": items}).status_code == 202
    wait_until(lambda: service.query("SELECT count(*) FROM insights") == [(count,)], within_s=60)


def test_a_stream_begins_with_the_state_of_the_service(service: Service) -> None:
    with listening(service) as listener:
        status = listener.next("status")

        assert listener.answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert listener.answer.headers["cache-control"] == "no-store"
    assert listener.retry == "2000"
    assert status.data["queue_size"] == 0
    assert (status.data["worker_running"], status.data["grok_mode"], status.data["lane"]) == (True, "mock", "open")


def test_a_new_insight_is_told_as_the_api_answers_it(service: Service, client: httpx2.Client) -> None:
    with listening(service) as listener:
        listener.next("status")
        post_one(client, COMPLAINT, author="told")
        told = listener.next("insight")

    assert [told.data] == client.get(INSIGHTS, params={"author": "told"}).json()["insights"]


def test_the_state_is_told_again_when_it_has_changed(service: Service, client: httpx2.Client) -> None:
    with listening(service) as listener:
        before = listener.next("status").data["insights_total"]
        post_one(client, COMPLAINT)
        after = listener.next("status").data

    assert after["insights_total"] + after["queue_size"] == before + 1


def test_a_client_that_comes_again_goes_on_where_it_was(service: Service, client: httpx2.Client) -> None:
    with listening(service) as listener:
        last_seen = listener.next("status").id
    missed = [post_one(client, f"{COMPLAINT} {number}") for number in range(3)]

    with listening(service, after=last_seen) as listener:
        told = [listener.next("insight") for _ in missed]

    assert sorted(event.data["conversation_id"] for event in told) == missed
    assert [int(event.id) for event in told] == [int(last_seen) + number for number in (1, 2, 3)]


def test_no_text_can_write_an_event(service: Service, client: httpx2.Client) -> None:
    with listening(service) as listener:
        listener.next("status")
        post_one(client, HOSTILE)
        told = listener.next("insight")

    assert told.data["text"] == HOSTILE


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param({"sentiment": "negative"}, id="a side"),
        pytest.param({"topic": ["refunds", "delivery_problems"]}, id="any of two topics"),
        pytest.param({"sentiment": "negative", "min_confidence": 0.1}, id="a side and a confidence"),
    ],
)
def test_the_filters_are_for_insights(service: Service, client: httpx2.Client, wanted: Json) -> None:
    with listening(service, **wanted) as listener:
        listener.next("status")
        post_one(client, PRAISE)
        complaint = post_one(client, COMPLAINT)

        assert listener.next("insight").data["conversation_id"] == complaint


@pytest.mark.parametrize(
    ("parameters", "headers"),
    [
        pytest.param({"sentiment": "angry"}, {}, id="a sentiment that is none"),
        pytest.param({"min_confidence": "nan"}, {}, id="a confidence that is no number"),
        pytest.param({"topic": ["x"] * 21}, {}, id="too many topics"),
        pytest.param({"topic": "\x00"}, {}, id="NUL"),
        pytest.param({"colour": "red"}, {}, id="an unknown parameter"),
        pytest.param({}, {"Last-Event-ID": "-1"}, id="an id below nothing"),
        pytest.param({}, {"Last-Event-ID": "9" * 19}, id="an id no database holds"),
        pytest.param({}, {"Last-Event-ID": "conv_1"}, id="an id of another kind"),
        pytest.param({}, {"Last-Event-ID": ""}, id="an empty id"),
    ],
)
def test_what_cannot_be_followed_is_refused(client: httpx2.Client, parameters: Json, headers: dict[str, str]) -> None:
    assert_problem(client.get(EVENTS, params=parameters, headers=headers), 400, "invalid_schema")


def test_an_id_that_was_never_given_is_as_good_as_the_newest(service: Service, client: httpx2.Client) -> None:
    with listening(service, after="9" * 18) as listener:
        listener.next("status")
        conversation = post_one(client, COMPLAINT)

        assert listener.next("insight").data["conversation_id"] == conversation


def test_the_document_says_what_is_told(service: Service, client: httpx2.Client) -> None:
    document = client.get("/openapi.json").json()
    content = document["paths"][EVENTS]["get"]["responses"]["200"]["content"]["text/event-stream"]
    shapes = {
        shape["properties"]["event"]["const"]: shape["properties"]["data"]["contentSchema"]
        for shape in content["x-item-schema"]["oneOf"]
    }

    with listening(service) as listener:
        post_one(client, COMPLAINT)
        told = [listener.next("status"), listener.next("insight")]

    assert set(shapes) == {"status", "insight", "skipped", "end"}
    for event in told:
        jsonschema.validate(event.data, {**shapes[event.kind], "components": document["components"]})


async def test_a_stream_needs_the_key_like_all_of_the_api(tmp_path: Path) -> None:
    async with running_app(tmp_path, api_keys=KEY) as api:
        assert_problem(await api.get(EVENTS), 401, "unauthorized")


def open_raw(service: Service) -> tuple[socket.socket, int]:
    """A stream on a bare socket, and the status it was answered with."""
    connection = socket.create_connection(("127.0.0.1", service.port), timeout=10)
    connection.sendall(f"GET {EVENTS} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return connection, int(connection.recv(12).split()[1])


def test_one_stream_too_many_is_told_to_wait_and_a_place_is_free_at_once(tmp_path: Path) -> None:
    with running_service(tmp_path) as service, service.client() as client, ExitStack() as open_ones:
        streams = [open_raw(service) for _ in range(MOST_STREAMS)]
        for connection, _ in streams:
            open_ones.enter_context(connection)
        refused = client.get(EVENTS)
        streams[7][0].close()
        wait_until(lambda: bool(listens(service)))

    assert {status for _, status in streams} == {200}
    assert_problem(refused, 503, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1


def listens(service: Service) -> bool:
    connection, status = open_raw(service)
    connection.close()
    return status == 200


@pytest.mark.slow
def test_who_missed_thousands_gets_the_newest_and_a_way_to_the_others(tmp_path: Path) -> None:
    with running_service(tmp_path) as service:
        fill(service, 1_200)
        with listening(service, after="1", sentiment="negative", topic=["a b", "delivery_problems"]) as listener:
            skipped = listener.next("skipped")
            first = listener.next("insight")

    assert skipped.data == {
        "count": 1_099,
        "url": f"{INSIGHTS}?sentiment=negative&topic=a+b&topic=delivery_problems",
    }
    assert (skipped.id, first.id) == ("1100", "1101")


def test_a_stream_is_logged_once_and_left_out_of_the_latencies(tmp_path: Path) -> None:
    with running_service(tmp_path, LOG_LEVEL="INFO") as service, service.client() as client:
        with listening(service) as listener:
            listener.next("status")
        counted = f'insights_requests_total{{method="GET",route="{EVENTS}",status="200"}} 1.0'
        wait_until(lambda: counted in client.get("/metrics").text)
        told = client.get("/metrics").text
        service.stop()

    assert f'insights_request_latency_seconds_count{{route="{EVENTS}"}}' not in told
    lines = [line for line in service.log_lines() if line.get("route") == EVENTS]
    assert [(line["event"], line["status"]) for line in lines] == [("request", 200)]


def test_sigterm_ends_a_stream_with_a_word_and_the_service_with_status_0(tmp_path: Path) -> None:
    with running_service(tmp_path) as service, service.client() as client, listening(service) as listener:
        listener.next("status")
        client.post(BULK, json={"conversations": [{"text": f"late parcel {number}"} for number in range(500)]})
        took_s = service.stop()
        told = listener.remaining()

    print(f"ended in {took_s:.2f} s")
    assert (told[-1].kind, told[-1].data) == ("end", {"reason": "shutdown"})
    assert service.process is not None
    assert service.process.returncode == 0
    assert service.query("SELECT count(*) FROM conversations WHERE status = 'processing'") == [(0,)]


@pytest.mark.slow
def test_sigterm_while_a_call_hangs_ends_the_stream_before_the_call(tmp_path: Path) -> None:
    with (
        running_fake_xai() as xai,
        running_service(tmp_path, **xai.environment) as service,
        service.client() as client,
        listening(service) as listener,
    ):
        xai.hang()
        post_one(client, COMPLAINT)
        wait_until(lambda: bool(xai.journal.chats))
        took_s = service.stop()

        assert listener.remaining()[-1].kind == "end"
    print(f"ended in {took_s:.2f} s")
    assert service.query("SELECT status FROM conversations") == [("pending",)]


@pytest.mark.slow
def test_a_client_that_takes_nothing_does_not_hold_up_the_others_nor_the_end(tmp_path: Path) -> None:
    with running_service(tmp_path) as service, service.client() as client, socket.socket() as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        stalled.connect(("127.0.0.1", service.port))
        stalled.sendall(f"GET {EVENTS} HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 0\r\n\r\n".encode())
        items = [{"text": f"late parcel {number} {'x' * 9_900}"} for number in range(500)]
        client.post(BULK, json={"conversations": items})
        with listening(service, after="0") as listener:
            told = [listener.next("insight") for _ in range(300)]
        took_s = service.stop()

    print(f"ended in {took_s:.2f} s")
    assert len({event.id for event in told}) == 300
    assert service.query("SELECT count(*) FROM conversations WHERE status = 'processing'") == [(0,)]


def test_a_server_that_is_not_ours_ends_too(tmp_path: Path) -> None:
    """As `make dev` starts it: nothing ends the streams there but uvicorn's patience."""
    service = Service(tmp_path)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    options = re.search(r"uvicorn --factory (\S+) --reload .*?(--timeout-graceful-shutdown \d+)", makefile)
    assert options is not None
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "--factory",
        options[1],
        *options[2].split(),
        "--port",
        f"{service.port}",
    ]
    environment = {"DATABASE_URL": f"sqlite:///{service.file}", "ENVIRONMENT": "test", "LOG_LEVEL": "ERROR"}
    service.process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: is_ready(service), within_s=30)
        with listening(service) as listener:
            listener.next("status")
            service.stop()
    finally:
        service.kill()

    assert service.query("PRAGMA integrity_check") == [("ok",)]


def is_ready(service: Service) -> bool:
    try:
        return httpx2.get(f"{service.url}/ready", trust_env=False).status_code == 200
    except httpx2.TransportError:
        return False


class HastyStreams(Streams):
    """Turn follows turn without a rest; after so many they end."""

    def __init__(self, *, turns: int) -> None:
        super().__init__()
        self.turns_left = turns

    async def rest(self, seconds: float) -> None:
        self.turns_left -= 1
        if seconds > 0 and self.turns_left == 0:
            self.end()


class ForgetfulDatabase(Database):
    """Does not answer the first reads."""

    failures = 2

    async def read(self, unit: Callable[[ReadSession], Any]) -> Any:
        if self.failures:
            self.failures -= 1
            raise DatabaseBusy("The database is locked.")
        return await super().read(unit)


async def hear(folder: Path, **changes: Any) -> list[bytes]:
    """The first line of all that a stream of an idle service tells, which shares this instead."""
    shared: list[Json] = []

    def change(state: Json) -> Json:
        shared.append({**state, **changes})
        return state

    async with running_app(folder, change_state=change):
        feed = Feed(cast("State", shared[0]), EventQuery(), caller=Caller("anybody"), position=0)
        return [event.split(b"\n")[0] async for event in feed.events()]


async def test_a_silent_stream_shows_now_and_then_that_it_is_there(tmp_path: Path) -> None:
    told = await hear(tmp_path, streams=HastyStreams(turns=31))

    assert told == [b"retry: 2000", b"event: status", b": still here", b": still here", b"event: end"]


async def test_a_database_that_does_not_answer_for_a_while_ends_no_stream(tmp_path: Path) -> None:
    forgetful = ForgetfulDatabase.connect(f"sqlite:///{tmp_path / 'other.db'}")
    await forgetful.open()

    told = await hear(tmp_path, streams=HastyStreams(turns=4), database=forgetful)

    await forgetful.close()
    assert told == [b"retry: 2000", b"event: status", b"event: end"]


async def test_a_client_that_stalls_loses_its_place(tmp_path: Path) -> None:
    streams = Streams()

    async def events() -> AsyncGenerator[bytes, None]:
        yield b"retry: 2000\n\n"

    async def never(*_message: Message) -> Any:
        await asyncio.Event().wait()

    stream = EventStream(events(), streams, patience_s=0.01)
    await stream({"type": "http"}, never, never)

    assert streams.open_count == 0
