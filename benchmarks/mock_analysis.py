"""Offline analysis: how many conversations a second the service analyzes, and how soon one can be read."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import orjson

from benchmarks import servers
from benchmarks.bulk_posts import bulk_posts
from benchmarks.http_load import ACCEPTED, Connection, connect, request_bytes, run
from benchmarks.texts import conversation

ANALYSIS_BAR_PER_S = 300.0
LATENCY_BAR_MS = 100.0
WAIT_TIMEOUT_S = 90.0
SAMPLE_TIMEOUT_S = 10.0
POLL_S = 0.001
FINISHED = ("completed", "skipped")
LATENCY_FIRST = 40_000  # texts that the backlog did not hold: an answer from the cache would be no analysis


@dataclass(slots=True)
class MockAnalysis:
    conversation_count: int
    elapsed_s: float = 0.0
    counts: dict[str, int] = field(default_factory=dict[str, int])
    readable_ms: list[float] = field(default_factory=list[float])

    @property
    def analyzed_per_s(self) -> float:
        return self.conversation_count / self.elapsed_s

    @property
    def readable_median_ms(self) -> float:
        return median(self.readable_ms)

    @property
    def passed(self) -> bool:
        good = self.counts.get("completed", 0) == self.conversation_count
        return good and self.analyzed_per_s >= ANALYSIS_BAR_PER_S and self.readable_median_ms < LATENCY_BAR_MS


def measure_mock_analysis(folder: Path, *, conversations: int, samples: int) -> MockAnalysis:
    result = MockAnalysis(conversations)
    with servers.service(folder) as server:
        first_accepted_at = run(_load_backlog(server, conversations))
        result.counts, finished_at = _await_finished(server, conversations)
        result.elapsed_s = finished_at - first_accepted_at
        print(f"  {conversations} conversations in {result.elapsed_s:.1f} s: {result.counts}", flush=True)
        sleep(1)  # idle again: what follows must wake it
        result.readable_ms = run(_time_readable(server, samples))
        print(f"  {samples} single posts: readable after {result.readable_median_ms:.1f} ms (median)", flush=True)
    return result


async def _load_backlog(server: servers.Server, conversations: int) -> float:
    """Bulk-load the backlog; the moment of the first 202."""
    connection = await connect(server.address)
    first_accepted_at = 0.0
    rows = min(500, conversations)
    requests = bulk_posts(server.address, rows=rows)
    for _ in range(conversations // rows):
        reply = await connection.exchange(next(requests))
        first_accepted_at = first_accepted_at or perf_counter()
        if reply.status != ACCEPTED:
            raise RuntimeError(f"a bulk POST was answered with {reply.status}: {reply.body[:200]!r}")
    connection.close()
    return first_accepted_at


def _await_finished(server: servers.Server, conversations: int) -> tuple[dict[str, int], float]:
    """The counts by status when nothing is left to analyze, and that moment; failed rows are finished too."""
    deadline = perf_counter() + WAIT_TIMEOUT_S
    while perf_counter() < deadline:
        counts = server.status_counts()
        if sum(counts.get(status, 0) for status in (*FINISHED, "failed")) >= conversations:
            return counts, perf_counter()
        sleep(0.05)
    raise RuntimeError(f"not analyzed within {WAIT_TIMEOUT_S:.0f} s: {server.status_counts()}")


async def _time_readable(server: servers.Server, samples: int) -> list[float]:
    connection = await connect(server.address)
    try:
        return [await _time_one(connection, server, LATENCY_FIRST + number) for number in range(samples)]
    finally:
        connection.close()


async def _time_one(connection: Connection, server: servers.Server, number: int) -> float:
    """Milliseconds from sending one POST to the answer of the GET that shows its insight."""
    body = orjson.dumps(conversation(number))
    post = request_bytes("POST", "/api/v1/conversations", server.address, body=body)
    started_at = perf_counter()
    accepted = await connection.exchange(post)
    conversation_id: str = orjson.loads(accepted.body)["conversation_id"]
    get = request_bytes("GET", f"/api/v1/conversations/{conversation_id}", server.address)
    while perf_counter() - started_at < SAMPLE_TIMEOUT_S:
        status: str = orjson.loads((await connection.exchange(get)).body)["status"]
        if status == "completed":
            return (perf_counter() - started_at) * 1000
        if status in ("failed", "skipped"):
            raise RuntimeError(f"a conversation that should be analyzed ended as {status}")
        await asyncio.sleep(POLL_S)
    raise RuntimeError(f"no insight within {SAMPLE_TIMEOUT_S:.0f} s")
