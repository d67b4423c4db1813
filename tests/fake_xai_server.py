"""The fake xAI on a real socket: an HTTP/1.1 server of its own, because resets, drips and cuts need the raw wire."""

import asyncio
import re
import socket
import struct
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from http import HTTPStatus
from typing import NamedTuple, cast

from tests.fake_xai_answers import GOOD_KEY, Answer
from tests.fake_xai_core import FakeXai, Request
from tests.fake_xai_faults import always, delay
from tests.fake_xai_journal import Call, Journal

_MOST_HEAD_BYTES = 64 * 1024
_START_S = 10.0
_FOREVER_S = 3600.0
_PULSE_S = 0.01
_REASONS = {status.value: status.phrase for status in HTTPStatus}


class _Head(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    length: int


def _read_head(raw: bytes) -> _Head:
    """Raises ValueError for what is no request of HTTP/1.1 with a known length."""
    first, *lines = raw.decode("latin-1").split("\r\n")
    if not (found := re.fullmatch(r"([A-Z]+) (\S+) HTTP/1\.1", first)):
        raise ValueError("no request line")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    if "transfer-encoding" in headers:
        raise ValueError("a body without its length")
    return _Head(found[1], found[2], headers, int(headers.get("content-length", "0")))


class _Connection(asyncio.Protocol):
    """One client's connection: one request after the other, each answered before the next is looked at."""

    def __init__(self, server: "FakeXaiServer") -> None:
        self._server = server
        self._buffer = bytearray()
        self._head: _Head | None = None
        self._arrived_at = 0.0
        self._sending: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if not self._buffer and self._head is None:
            self._arrived_at = self._server.fake.monotonic()
        self._buffer += data
        self._serve()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the base class's
        self._server.connections.discard(self)
        if self._sending is not None:
            self._sending.cancel()

    def abort(self) -> asyncio.Task[None] | None:
        """Break off whatever is under way; what is left of it ends with the task."""
        self._transport.abort()
        if self._sending is not None:
            self._sending.cancel()
        return self._sending

    def _serve(self) -> None:
        while self._sending is None and not self._transport.is_closing():
            try:
                request = self._take_request()
            except ValueError:
                self._transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                self._transport.close()
                return
            if request is None:
                return
            self._answer(request)

    def _take_request(self) -> Request | None:
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > _MOST_HEAD_BYTES:
                    raise ValueError("a head without end")
                return None
            self._head = _read_head(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
        head = self._head
        if len(self._buffer) < head.length:
            return None
        body = bytes(self._buffer[: head.length])
        del self._buffer[: head.length]
        self._head = None
        now = self._server.fake.monotonic()
        return Request(head.method, head.path, head.headers, body, self._arrived_at, now)

    def _answer(self, request: Request) -> None:
        try:
            call, answer = self._server.fake.receive(request)
        except Exception as error:  # noqa: BLE001 - a judge, plan or fault of a test may raise anything: told at the end
            self._server.errors.append(error)
            self._reset()
            return
        if answer.delay_s or answer.drip_s:
            self._sending = asyncio.get_running_loop().create_task(self._send_slowly(call, answer), name="sending")
            return
        self._send_at_once(call, answer)

    def _send_at_once(self, call: Call, answer: Answer) -> None:
        answered = answer.ending != "reset" and not self._transport.is_closing()
        if answer.ending == "reset":
            self._reset()
        elif answer.ending == "cut":
            self._transport.write(_head_of(answer) + answer.body[: len(answer.body) // 2])
            self._transport.close()
        else:
            self._transport.write(_head_of(answer) + answer.body)
        self._server.fake.finish(call, answered=answered)

    async def _send_slowly(self, call: Call, answer: Answer) -> None:
        try:
            await asyncio.sleep(answer.delay_s)
            if answer.drip_s:
                await self._drip(answer)
        except asyncio.CancelledError:  # the client has left, or the server stops
            self._server.fake.finish(call, answered=False)
            raise
        self._sending = None
        if answer.drip_s:
            self._server.fake.finish(call, answered=True)
        else:
            self._send_at_once(call, answer)
        self._serve()

    async def _drip(self, answer: Answer) -> None:
        self._transport.write(_head_of(answer))
        for at in range(len(answer.body)):
            self._transport.write(answer.body[at : at + 1])
            await asyncio.sleep(answer.drip_s)

    def _reset(self) -> None:
        """Close so that the client is told of it by a RST, and reads nothing."""
        raw: socket.socket = self._transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


def _head_of(answer: Answer) -> bytes:
    lines = [
        f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, '')}",
        *(f"{name}: {value}" for name, value in answer.headers.items()),
        f"content-length: {len(answer.body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class FakeXaiServer:
    """Listens from the moment it is made; answers while `start` to `stop` go by in one event loop."""

    def __init__(self, fake: FakeXai, *, port: int = 0) -> None:
        self.fake = fake
        self.connections: set[_Connection] = set()
        self.errors: list[Exception] = []
        self._socket = socket.create_server(("127.0.0.1", port), backlog=1024)
        self.port: int = self._socket.getsockname()[1]
        self._listening: asyncio.Server | None = None
        self._pulse: asyncio.Task[None] | None = None
        self._stalls: list[tuple[float, float]] = []

    @property
    def journal(self) -> Journal:
        return self.fake.journal

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def environment(self) -> dict[str, str]:
        """What the service needs to take this for xAI."""
        return {"GROK_KEY": GOOD_KEY, "GROK_BASE_URL": self.url}

    def hang(self) -> None:
        """Answer no call until the end."""
        self.fake.plan = always(delay(_FOREVER_S))

    def calls_above(self, limit: int, window_s: float = 1.0) -> int:
        """How often more than `limit` calls arrived within `window_s`, and that for certain.

        What it reads late, on a busy machine, may have arrived at any time since it last looked.
        """
        arrived = sorted(call.arrived_at for call in self.journal.calls)
        pairs = zip(arrived, arrived[limit:], strict=False)
        return sum(last - self.earliest(first) < window_s for first, last in pairs)

    def earliest(self, arrived_at: float) -> float:
        """When a call may have arrived that was noted at this moment."""
        return min((since for since, until in self._stalls if since <= arrived_at <= until), default=arrived_at)

    async def _feel_pulse(self) -> None:
        looked_at = self.fake.monotonic()
        while True:
            await asyncio.sleep(_PULSE_S)
            now = self.fake.monotonic()
            if now - looked_at > 2 * _PULSE_S:
                self._stalls.append((looked_at, now + _PULSE_S))
            looked_at = now

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._pulse = asyncio.create_task(self._feel_pulse(), name="pulse of the fake xAI")
        self._listening = await loop.create_server(lambda: _Connection(self), sock=self._socket)

    async def stop(self) -> None:
        if self._pulse is not None:
            self._pulse.cancel()
        if self._listening is not None:
            self._listening.close()
        sending = [connection.abort() for connection in set(self.connections)]
        await asyncio.gather(*(task for task in sending if task is not None), return_exceptions=True)
        await asyncio.sleep(0)  # what was aborted closes its socket in the loop's next round


@contextmanager
def running_fake_xai(fake: FakeXai | None = None, *, port: int = 0) -> Generator[FakeXaiServer, None, None]:
    """The fake on a socket, in a thread of its own; what a plan, a fault or a judge has raised is raised at the end."""
    server = FakeXaiServer(fake or FakeXai(), port=port)
    started: Future[Callable[[], object]] = Future()
    thread = threading.Thread(target=asyncio.run, args=(_serve(server, started),), name="fake xAI")
    thread.start()
    stop = started.result(timeout=_START_S)
    try:
        yield server
    finally:
        stop()
        thread.join()
    if server.errors:
        raise server.errors[0]


async def _serve(server: FakeXaiServer, started: "Future[Callable[[], object]]") -> None:
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    await server.start()
    started.set_result(lambda: loop.call_soon_threadsafe(stopping.set))
    await stopping.wait()
    await server.stop()
