"""What several test modules stand on: a service in a child process, xAI by script, and a clock turned by hand."""

import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
from starlette.types import ASGIApp, Receive, Scope, Send

from main import create_app
from settings import Settings
from tests.fake_xai import FakeXai, FakeXaiTransport
from tests.fake_xai_answers import XAI, Answer, Draft, Json, score_of
from tests.fake_xai_faults import Choice, Fault

__all__ = [
    "ROOT",
    "XAI",
    "HandClock",
    "Json",
    "ScriptedXai",
    "SeenCall",
    "Service",
    "break_off",
    "free_port",
    "make_settings",
    "post_one",
    "running_app",
    "running_service",
    "score_of",
    "statuses",
    "wait_for_status",
    "wait_until",
]

ROOT = Path(__file__).resolve().parent.parent
_START_S = 30.0
_NO_LIMIT = 1_000_000


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


def break_off(error: Exception) -> Fault:
    def raise_it(_draft: Draft) -> Answer:
        raise error

    return raise_it


@dataclass(frozen=True, slots=True)
class SeenCall:
    """A call as the client below test made it."""

    payload: Json
    headers: httpx2.Headers
    at_s: float


class ScriptedXai(FakeXaiTransport):
    """The fake xAI in this process: answers by its script, then well for ever; keeps what it was asked."""

    def __init__(
        self, *script: Choice, monotonic: Callable[[], float] = time.monotonic, latency_s: float = 0.0
    ) -> None:
        super().__init__(FakeXai(script=list(script), monotonic=monotonic, latency_s=latency_s))
        self.calls: list[SeenCall] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        payload: Json = json.loads(await request.aread())
        self.calls.append(SeenCall(payload, request.headers, self.fake.monotonic()))
        return await super().handle_async_request(request)


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
        self.launch()
        wait_until(self._is_ready, within_s=_START_S)

    def launch(self) -> subprocess.Popen[bytes]:
        """Start it and look no further."""
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
        return self.process

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
