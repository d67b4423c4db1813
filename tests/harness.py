"""What several test modules stand on: a service in a child process, a scripted xAI, and a clock turned by hand."""

import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
from starlette.types import ASGIApp, Receive, Scope, Send

from main import create_app
from settings import Settings

ROOT = Path(__file__).resolve().parent.parent
XAI = Path(__file__).resolve().parent / "xai"
GOOD_KEY = "xai-test-key-0123456789"
_START_S = 30.0
_NO_LIMIT = 1_000_000

Json = dict[str, Any]


class HandClock:
    """Time that passes only when told to; `sleep` turns it by what was asked for."""

    def __init__(self) -> None:
        self._started_at = datetime(2026, 3, 1, 12, tzinfo=UTC)
        self._passed_s = 0.0
        self.slept_s: list[float] = []

    def now(self) -> datetime:
        return self._started_at + timedelta(seconds=self._passed_s)

    def monotonic(self) -> float:
        return self._passed_s

    def turn(self, seconds: float) -> None:
        self._passed_s += seconds

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.turn(seconds)
        await asyncio.sleep(0)


def score_of(text: str) -> float:
    """A score that belongs to this text alone, so that crossed answers show."""
    return (zlib.crc32(text.encode()) % 2001 - 1000) / 1000


def result_for(item: Mapping[str, Any], **changed: object) -> Json:
    text: str = item["text"]
    return {
        "id": item["id"],
        "sentiment_score": score_of(text),
        "clusters": ["other"],
        "confidence": 0.9,
        "reasoning": f"crc {zlib.crc32(text.encode())}",
        "summary": "what the customer wants",
        "language": "en",
        **changed,
    }


def items_of(payload: Json) -> list[Json]:
    items: list[Json] = json.loads(payload["messages"][-1]["content"])["items"]
    return items


def texts_of(payload: Json) -> list[str]:
    return [item["text"] for item in items_of(payload)]


def completion(content: str | None, *, finish_reason: str | None = "stop", **changed: object) -> Json:
    """A chat completion as xAI sends it."""
    return {
        "id": "5f0b1b52-7c1e-4a53-9e0b-0d3b6f0e2a11",
        "object": "chat.completion",
        "created": 1_772_000_000,
        "model": "grok-4.3",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish_reason},
        ],
        "usage": None,
        **changed,
    }


def good_answer(payload: Json) -> Json:
    return completion(json.dumps({"results": [result_for(item) for item in items_of(payload)]}))


Step = Callable[[Json], httpx2.Response]


def say(body: Json | str, *, status: int = 200, **headers: str) -> Step:
    """A step that answers the same whatever was asked; header names with `_` for `-`."""
    content = body if isinstance(body, str) else json.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _payload: httpx2.Response(status, headers=named, content=content)


def say_well(payload: Json) -> httpx2.Response:
    return httpx2.Response(200, json=good_answer(payload))


def break_off(error: Exception) -> Step:
    def raise_it(_payload: Json) -> httpx2.Response:
        raise error

    return raise_it


@dataclass(frozen=True, slots=True)
class Call:
    payload: Json
    raw: bytes
    headers: httpx2.Headers
    at_s: float


class ScriptedXai(httpx2.AsyncBaseTransport):
    """Answers step by step, then well for ever; keeps what it was asked."""

    def __init__(
        self, *script: Step, monotonic: Callable[[], float] = time.monotonic, latency_s: float | None = None
    ) -> None:
        self.script = list(script)
        self.calls: list[Call] = []
        self.in_flight = self.most_in_flight = 0
        self._monotonic = monotonic
        self.latency_s = latency_s

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        raw = await request.aread()
        payload: Json = json.loads(raw)
        self.calls.append(Call(payload, raw, request.headers, self._monotonic()))
        step = self.script.pop(0) if self.script else say_well
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if self.latency_s is not None:
                await asyncio.sleep(self.latency_s)
            return step(payload)
        finally:
            self.in_flight -= 1


def make_settings(folder: Path, **values: object) -> Settings:
    """Settings for a service in this process, deaf to `.env` and generous with requests."""
    given: Json = {
        "_env_file": None,
        "database_url": f"sqlite:///{folder / 'insights.db'}",
        "topics_file": ROOT / "topics.yaml",
        "rate_limit_requests": _NO_LIMIT,
        "grok_mode": "mock",
        "log_level": "ERROR",
        **values,
    }
    return Settings(**given)


@asynccontextmanager
async def running_app(
    folder: Path, *, change_state: Callable[[Json], Json] = lambda state: state, **values: object
) -> AsyncGenerator[httpx2.AsyncClient, None]:
    """A client of the whole application, in this process; `change_state` may swap what the handlers share."""
    app = create_app(make_settings(folder, **values))
    async with app.router.lifespan_context(app) as lifespan_state:
        state = change_state(dict(lifespan_state or {}))
        transport = httpx2.ASGITransport(_with_state(app, state))
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client


def _with_state(app: ASGIApp, state: Json) -> ASGIApp:
    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": dict(state)}, receive, send)

    return wrapped


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Service:
    """The service in a child process, on a free port and on a file of its own; killed by its own pid."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def file(self) -> Path:
        return self.folder / "insights.db"

    @property
    def log(self) -> Path:
        return self.folder / "service.log"

    def start(self) -> None:
        """Return once `/ready` says so."""
        environment = {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": f"sqlite:///{self.file}",
            "TOPICS_FILE": str(ROOT / "topics.yaml"),
            "PORT": str(self.port),
            "RATE_LIMIT_REQUESTS": str(_NO_LIMIT),
            "ENVIRONMENT": "test",
            **self.environment,
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "main.py")], cwd=self.folder, env=environment, stderr=log, stdout=log
            )
        wait_until(self._is_ready, within_s=_START_S)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def stop(self) -> float:
        """SIGTERM; how many seconds it took to end."""
        started = time.monotonic()
        self._signal(signal.SIGTERM)
        return time.monotonic() - started

    def client(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=30, trust_env=False)

    def log_lines(self) -> list[Json]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows of the file, read beside the service."""
        connection = sqlite3.connect(self.file)
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()

    def _signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(timeout=_START_S)

    def _is_ready(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"the service ended at its start: {self.log.read_text()[-2000:]}")
        try:
            return httpx2.get(f"{self.url}/ready", trust_env=False).status_code == 200
        except httpx2.TransportError:
            return False


@contextmanager
def running_service(folder: Path, **environment: str) -> Generator[Service, None, None]:
    service = Service(folder, environment)
    try:
        service.start()
        yield service
    finally:
        service.kill()


def wait_until(holds: Callable[[], bool], *, within_s: float = 10.0) -> None:
    ends_at = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > ends_at:
            raise AssertionError(f"it did not come true within {within_s:g} s")
        time.sleep(0.02)


Reaction = Callable[[Json], tuple[int, Json | str]]


def react_well(payload: Json) -> tuple[int, Json | str]:
    return 200, good_answer(payload)


class SocketXai:
    """xAI on a real socket, in a thread; `reaction` may be swapped while it runs."""

    def __init__(self) -> None:
        self.reaction: Reaction = react_well
        self.payloads: list[Json] = []
        self._closing = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                payload: Json = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.payloads.append(payload)
                status, body = outer.reaction(payload)
                content = (body if isinstance(body, str) else json.dumps(body)).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
                pass

        self._server = _QuietServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "GROK_KEY": GOOD_KEY,
            "GROK_BASE_URL": f"http://127.0.0.1:{self._server.server_port}/v1",
        }

    def hang(self) -> None:
        """Answer no call until the end."""

        def wait(_payload: Json) -> tuple[int, Json | str]:
            self._closing.wait(60)
            return 503, ""

        self.reaction = wait

    def texts(self) -> list[str]:
        return [text for payload in self.payloads for text in texts_of(payload)]

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is nothing to print."""


@contextmanager
def socket_xai() -> Generator[SocketXai, None, None]:
    xai = SocketXai()
    try:
        yield xai
    finally:
        xai.close()


def statuses(client: httpx2.Client, ids: Iterable[str]) -> list[str]:
    return [client.get(f"/api/v1/conversations/{one}").json()["status"] for one in ids]


def post_one(client: httpx2.Client, text: str, **members: object) -> str:
    """Send one conversation; its id."""
    answer = client.post("/api/v1/conversations", json={"text": text, **members})
    assert answer.status_code == 202, answer.text
    conversation_id: str = answer.json()["conversation_id"]
    return conversation_id


def wait_for_status(client: httpx2.Client, conversation_id: str, *wanted: str, within_s: float = 10.0) -> Json:
    def reached() -> bool:
        return client.get(f"/api/v1/conversations/{conversation_id}").json()["status"] in wanted

    wait_until(reached, within_s=within_s)
    found: Json = client.get(f"/api/v1/conversations/{conversation_id}").json()
    return found
