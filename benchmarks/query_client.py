"""One client that asks several servers the same questions in turn, over kept connections, and times the answers."""

from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, TypeVar

import orjson

from benchmarks.figures import percentile
from benchmarks.http_load import Connection, connect, request_bytes
from benchmarks.servers import Server

T = TypeVar("T")


@dataclass(slots=True)
class Timings:
    """How long one server took to answer, in milliseconds, and what it was asked."""

    answers: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])

    def add(self, latency_ms: float, path: str) -> None:
        self.answers.append((latency_ms, path))

    def ms(self, percent: float) -> float:
        return percentile([latency_ms for latency_ms, _ in self.answers], percent)

    def slowest(self, most: int) -> list[tuple[float, str]]:
        return sorted(self.answers, reverse=True)[:most]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    latency_ms: float

    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass(slots=True)
class Asker:
    """A connection to one server; made anew, off the clock, when the server hung up while others were asked."""

    name: str
    server: Server
    connection: Connection

    async def ask(self, path: str) -> Answer:
        """Raises: RuntimeError, when the answer is not 200."""
        answer = await self.try_to_ask(path)
        if answer.status != 200:
            raise RuntimeError(f"{self.name}: {answer.status} for {path}: {answer.body[:200].decode(errors='replace')}")
        return answer

    async def try_to_ask(self, path: str) -> Answer:
        """The answer whatever its status is: an endpoint may not be there yet."""
        try:
            return await self._exchange(path)
        except ConnectionResetError:
            self.connection = await connect(self.server.address)
            return await self._exchange(path)

    async def _exchange(self, path: str) -> Answer:
        request = request_bytes("GET", path, self.server.address)
        started_at = perf_counter()
        reply = await self.connection.exchange(request)
        return Answer(reply.status, reply.body, (perf_counter() - started_at) * 1000)


@asynccontextmanager
async def asking(servers: Sequence[tuple[str, Server]]) -> AsyncGenerator[list[Asker], None]:
    askers = [Asker(name, server, await connect(server.address)) for name, server in servers]
    try:
        yield askers
    finally:
        for asker in askers:
            asker.connection.close()


async def ask_in_turn(askers: Sequence[Asker], paths: Iterable[str], *, most_s: float = 600) -> dict[str, Timings]:
    """Every path to every server, one request at a time; it ends early when `most_s` are over.

    Whoever was asked first is asked last the next time, so that nobody always profits from what the other warmed.
    """
    timings = {asker.name: Timings() for asker in askers}
    for number, path in enumerate(until(paths, most_s=most_s)):
        for asker in askers if number % 2 else reversed(askers):
            answer = await asker.ask(path)
            timings[asker.name].add(answer.latency_ms, path)
    return timings


def until(values: Iterable[T], *, most_s: float) -> Iterator[T]:
    """At least one, then as many as there is time for."""
    ends_at = perf_counter() + most_s
    for value in values:
        yield value
        if perf_counter() >= ends_at:
            return
