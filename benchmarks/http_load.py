"""A lean HTTP/1.1 load client: prepared requests, keep-alive connections, answers counted and timed.

It understands just what a benchmark needs: one request at a time on a connection, and answers with a Content-Length.
`python benchmarks/http_load.py --port N` serves the same 202 to everything: with it the client finds its own ceiling.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Annotated, NamedTuple, TypeVar, cast

import typer

if sys.platform != "win32":
    import uvloop

T = TypeVar("T")

ACCEPTED = 202
ANSWER_TIMEOUT_S = 60.0  # longer than SQLite's busy timeout and SQLAlchemy's pool timeout together: a hang, not a queue
TRIVIAL_BODY = b'{"status":"accepted"}'
TRIVIAL_ANSWER = b"HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: 21\r\n\r\n" + TRIVIAL_BODY


class Address(NamedTuple):
    host: str
    port: int
    tls: bool = False


class Reply(NamedTuple):
    status: int
    head: bytes
    body: bytes

    def header(self, name: str) -> str | None:
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.decode("latin-1").lower() == name.lower():
                return value.strip().decode("latin-1")
        return None


@dataclass(slots=True)
class Tally:
    """What came back: every 202 with its latency and body in order of arrival, every other status, lost connections."""

    duration_s: float
    latencies_s: list[float] = field(default_factory=list[float])
    bodies: list[bytes] = field(default_factory=list[bytes])
    statuses: Counter[int] = field(default_factory=Counter[int])
    lost_count: int = 0
    in_time_count: int = 0

    @property
    def accepted_per_s(self) -> float:
        """202s that came before the time was up; those under way then count as accepted, not as throughput."""
        return self.in_time_count / self.duration_s

    @property
    def other_count(self) -> int:
        return self.statuses.total() - self.statuses[ACCEPTED] + self.lost_count

    def add(self, reply: Reply, latency_s: float, *, in_time: bool) -> None:
        self.statuses[reply.status] += 1
        if reply.status == ACCEPTED:
            self.latencies_s.append(latency_s)
            self.bodies.append(reply.body)
            self.in_time_count += in_time


def request_bytes(method: str, path: str, address: Address, *, body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nhost: {address.host}:{address.port}\r\n"
    if body:
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def read_reply(received: bytes) -> Reply | None:
    """The answer, or None while part of it is still to come.

    Raises: ValueError when the answer says no length (chunked): this client counts, it does not stream.
    """
    head_end = received.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    head = received[:head_end]
    status = int(head[9:12])
    length_at = head.lower().find(b"\r\ncontent-length:")
    if length_at < 0 and status not in (204, 304):
        raise ValueError("the load client needs answers with a Content-Length")
    length = int(head[length_at + 17 :].split(b"\r\n", 1)[0]) if length_at >= 0 else 0
    body = received[head_end + 4 :]
    return Reply(status, head, body) if len(body) >= length else None


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._received = b""
        self._answered: Callable[[Reply | None], None] | None = None

    def send(self, request: bytes, answered: Callable[[Reply | None], None]) -> None:
        """Write the request; `answered` is called once, with None when the connection is lost instead."""
        if self._transport is None:
            answered(None)
            return
        self._answered = answered
        self._transport.write(request)

    async def exchange(self, request: bytes) -> Reply:
        """Raises: ConnectionResetError when the server hangs up, TimeoutError after `ANSWER_TIMEOUT_S`."""
        future: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
        self.send(request, lambda reply: None if future.done() else future.set_result(reply))
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            reply = await future
        if reply is None:
            raise ConnectionResetError("the server closed the connection instead of answering")
        return reply

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's transport does not inherit from it

    def data_received(self, data: bytes) -> None:
        self._received += data
        reply = read_reply(self._received)
        if reply is not None:
            self._received = b""
            self._settle(reply)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        self._transport = None
        self._settle(None)

    def _settle(self, reply: Reply | None) -> None:
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(reply)


async def connect(address: Address) -> Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, address.host, address.port, ssl=address.tls or None)
    return connection


async def drive(address: Address, requests: Iterator[bytes], *, clients: int, duration_s: float) -> Tally:
    """Keep `clients` connections busy for `duration_s`: each sends its next request when the answer to its last is in.

    Requests under way at the end are awaited, so every request sent is in the tally.
    A shared iterator: it also ends when `requests` is used up. Raises: TimeoutError when answers stay away.
    """
    connections = [await connect(address) for _ in range(clients)]
    run = _Run(requests, Tally(duration_s), clients)
    try:
        for connection in connections:
            run.send_next(connection)
        async with asyncio.timeout(duration_s + ANSWER_TIMEOUT_S):
            await run.all_idle.wait()
    finally:
        for connection in connections:
            connection.close()
    return run.tally


class _Run:
    def __init__(self, requests: Iterator[bytes], tally: Tally, clients: int) -> None:
        self.tally = tally
        self.all_idle = asyncio.Event()
        self._requests = requests
        self._busy_count = clients
        self._ends_at = perf_counter() + tally.duration_s

    def send_next(self, connection: Connection) -> None:
        sent_at = perf_counter()
        request = next(self._requests, None) if sent_at < self._ends_at else None
        if request is None:
            self._rest()
            return
        connection.send(request, partial(self._take, connection, sent_at))

    def _take(self, connection: Connection, sent_at: float, reply: Reply | None) -> None:
        if reply is None:
            self.tally.lost_count += 1
            self._rest()
            return
        now = perf_counter()
        self.tally.add(reply, now - sent_at, in_time=now <= self._ends_at)
        self.send_next(connection)

    def _rest(self) -> None:
        self._busy_count -= 1
        if self._busy_count == 0:
            self.all_idle.set()


def run(work: Coroutine[object, object, T]) -> T:
    """Run on uvloop where there is one: the client then takes about half the CPU."""
    loop_factory = uvloop.new_event_loop if sys.platform != "win32" else None
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(work)


class TrivialServer(asyncio.Protocol):
    """Answers 202 to whatever arrives."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's transport does not inherit from it

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - the protocol's signature
        self._transport.write(TRIVIAL_ANSWER)


async def serve_trivially(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(TrivialServer, "127.0.0.1", port)
    await server.serve_forever()


def main(port: Annotated[int, typer.Option(help="Port on 127.0.0.1 to answer on.")]) -> None:
    """Answer every request with the same 202."""
    run(serve_trivially(port))


if __name__ == "__main__":
    typer.run(main)
