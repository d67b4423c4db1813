"""One client that asks several servers the same questions in turn, over kept connections, and times the answers."""

from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from statistics import fmean
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import orjson

from benchmarks.figures import percentile
from benchmarks.http_load import Connection, connect, request_bytes
from benchmarks.servers import Server

T = TypeVar("T")

_IN_A_ROW = 25  # a tenth of a second: what disturbs the machine for longer disturbs both


class Asked(NamedTuple):
    """One answer: how long it took in milliseconds, and how much of that the server was on a CPU (Linux only)."""

    latency_ms: float
    cpu_ms: float | None
    path: str


@dataclass(slots=True)
class Timings:
    """What one server was asked, and how long it took."""

    asked: list[Asked] = field(default_factory=list[Asked])

    def add(self, answer: "Answer", path: str) -> None:
        self.asked.append(Asked(answer.latency_ms, answer.cpu_ms, path))

    def ms(self, percent: float) -> float:
        return percentile([one.latency_ms for one in self.asked], percent)

    def mean_ms(self) -> float:
        return fmean(one.latency_ms for one in self.asked)

    def cpu_ms(self, percent: float) -> float | None:
        measured = [one.cpu_ms for one in self.asked if one.cpu_ms is not None]
        return percentile(measured, percent) if measured else None

    def slowest_first(self) -> list[Asked]:
        return sorted(self.asked, key=lambda one: -one.latency_ms)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    latency_ms: float
    cpu_ms: float | None

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
        cpu_before_ms = self.server.cpu_ms()
        started_at = perf_counter()
        reply = await self.connection.exchange(request)
        latency_ms = (perf_counter() - started_at) * 1000
        cpu_ms = None if cpu_before_ms is None else (self.server.cpu_ms() or cpu_before_ms) - cpu_before_ms
        return Answer(reply.status, reply.body, latency_ms, cpu_ms)


@asynccontextmanager
async def asking(servers: Sequence[tuple[str, Server]]) -> AsyncGenerator[list[Asker], None]:
    askers = [Asker(name, server, await connect(server.address)) for name, server in servers]
    try:
        yield askers
    finally:
        for asker in askers:
            asker.connection.close()


async def ask_in_turn(askers: Sequence[Asker], paths: Iterable[str], *, most_s: float = 600) -> dict[str, Timings]:
    """Every path to every server, one request at a time; it ends early, after a row, when `most_s` are over.

    Some questions in a row to each, as one client asks one server: two that take turns at every question find the
    caches of the CPU full of each other. Whoever was asked first is asked last the next time.
    """
    timings = {asker.name: Timings() for asker in askers}
    left = until(paths, most_s=most_s)
    order = list(askers)
    while some := list(islice(left, _IN_A_ROW)):
        for asker in order:
            for path in some:
                answer = await asker.ask(path)
                timings[asker.name].add(answer, path)
        order.reverse()
    return timings


def until(values: Iterable[T], *, most_s: float) -> Iterator[T]:
    """At least one, then as many as there is time for."""
    ends_at = perf_counter() + most_s
    for value in values:
        yield value
        if perf_counter() >= ends_at:
            return
