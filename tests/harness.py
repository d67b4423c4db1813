"""What several test modules stand on: a service in a child process, xAI by script, and a clock turned by hand."""

import asyncio
import http.client
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
from tests.fake_xai import FakeXai, FakeXaiServer, FakeXaiTransport
from tests.fake_xai_answers import XAI, Answer, Draft, Json, score_of
from tests.fake_xai_faults import Choice, Fault
from tests.nursery import Forked, Nursery

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
    "post_all",
    "post_one",
    "running_app",
    "running_service",
    "score_of",
    "statuses",
    "wait_for_call",
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

    async def answer(self, request: httpx2.Request, body: bytes) -> httpx2.Response:
        payload: Json = json.loads(body)
        self.calls.append(SeenCall(payload, request.headers, self.fake.monotonic()))
        return await super().answer(request, body)


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
    nursery: Nursery | None = None  # forked there, it starts in a tenth of the time
    process: subprocess.Popen[bytes] | Forked | None = None
    log_name: str = "service.log"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def file(self) -> Path:
        return self.folder / "insights.db"

    @property
    def log(self) -> Path:
        return self.folder / self.log_name

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, **more: str) -> None:
        """Return once `/ready` says so; `more` is of this start only."""
        self.launch(**more)
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        self.wait_until_ready_or_ended()
        if not self.is_running:
            raise AssertionError(f"the service ended at its start: {self.log.read_text()[-2000:]}")

    def wait_until_ready_or_ended(self) -> None:
        wait_until(lambda: self.is_ready() or not self.is_running, within_s=_START_S)

    def launch(self, **more: str) -> None:
        """Start it, and do not wait."""
        environment = {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": f"sqlite:///{self.file}",
            "TOPICS_FILE": str(ROOT / "topics.yaml"),
            "PORT": str(self.port),
            "RATE_LIMIT_REQUESTS": str(_NO_LIMIT),
            "ENVIRONMENT": "test",
            **self.environment,
            **more,
        }
        if self.nursery is not None:
            self.process = self.nursery.start(environment=environment, folder=self.folder, log=self.log)
            return
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "main.py")], cwd=self.folder, env=environment, stderr=log, stdout=log
            )

    def kill(self) -> None:
        self._end_by(signal.SIGKILL)

    def stop(self, number: int = signal.SIGTERM) -> float:
        """How many seconds it took to end after the signal."""
        started = time.monotonic()
        self._end_by(number)
        return time.monotonic() - started

    def signal(self, number: int) -> None:
        """Send it, and do not wait for the end."""
        if self.process is not None and self.is_running:
            self.process.send_signal(number)

    def wait_for_end(self, *, within_s: float = _START_S) -> int:
        """Its status; what a signal has ended, is that signal's number below zero."""
        assert self.process is not None
        return self.process.wait(timeout=within_s)

    def client(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=30, trust_env=False)

    def remove_database(self) -> None:
        """The file and all that stands beside it: a log without its file makes the next start refuse."""
        for file in self.folder.glob(f"{self.file.name}*"):
            file.unlink()

    def log_lines(self) -> list[Json]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows of the file, read beside the service."""
        connection = sqlite3.connect(self.file)
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()

    def _end_by(self, number: int) -> None:
        if self.is_running:
            self.signal(number)
            self.wait_for_end()

    def is_ready(self) -> bool:
        asking = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)  # lighter than a client of httpx2's
        try:
            asking.request("GET", "/ready")
            return asking.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            asking.close()


@contextmanager
def running_service(
    folder: Path, nursery: Nursery | None = None, /, **environment: str
) -> Generator[Service, None, None]:
    service = Service(folder, environment, nursery=nursery)
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


async def worked_off(client: httpx2.AsyncClient, *, within_s: float = 30) -> None:
    """Until nothing waits and nothing is being analyzed; the size is null while it cannot be asked."""
    async with asyncio.timeout(within_s):
        while (await client.get("/health")).json()["queue_size"] != 0:
            pass


def statuses(client: httpx2.Client, ids: Iterable[str]) -> list[str]:
    return [client.get(f"/api/v1/conversations/{one}").json()["status"] for one in ids]


def post_one(client: httpx2.Client, text: str, **members: object) -> str:
    """Send one conversation; its id."""
    answer = client.post("/api/v1/conversations", json={"text": text, **members})
    assert answer.status_code == 202, answer.text
    conversation_id: str = answer.json()["conversation_id"]
    return conversation_id


def post_all(service: Service, *texts: str) -> list[str]:
    """Send them in one request; their ids."""
    with service.client() as client:
        answer = client.post("/api/v1/conversations/bulk", json={"conversations": [{"text": text} for text in texts]})
    assert answer.status_code == 202, answer.text
    return [result["conversation_id"] for result in answer.json()["results"]]


def wait_for_call(xai: FakeXaiServer, *, after: int) -> None:
    """Until it has been asked more often than that."""
    wait_until(lambda: len(xai.journal.chats) > after)


def wait_for_status(client: httpx2.Client, conversation_id: str, *wanted: str, within_s: float = 10.0) -> Json:
    def reached() -> bool:
        return client.get(f"/api/v1/conversations/{conversation_id}").json()["status"] in wanted

    wait_until(reached, within_s=within_s)
    found: Json = client.get(f"/api/v1/conversations/{conversation_id}").json()
    return found
