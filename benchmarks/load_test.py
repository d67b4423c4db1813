"""Load a running service with single POSTs, within its limits, and say what came of it."""

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Annotated
from urllib.parse import urlsplit

import orjson
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.figures import histogram, percentile
from benchmarks.http_load import ACCEPTED, Address, Connection, Reply, connect, request_bytes, run
from benchmarks.texts import conversation

TRY_LATER = (429, 503)  # both carry Retry-After
MAX_TRIES = 60  # at one second each: a minute of refusals is a failure, not a limit
WAIT_TIMEOUT_S = 600.0
FINISHED = ("completed", "failed", "skipped")
LAST_IDS = 20  # looked at one by one when the queue is empty

console = Console(width=None if sys.stdout.isatty() else 120)  # 120: in a log, rows stay whole


@dataclass(slots=True)
class Outcome:
    latencies_ms: list[float] = field(default_factory=list[float])
    statuses: Counter[int] = field(default_factory=Counter[int])
    ids: list[str] = field(default_factory=list[str])
    problems: list[str] = field(default_factory=list[str])
    started_at: float = 0.0
    elapsed_s: float = 0.0


class Caller:
    """One client of the service: connects again when hung up on, and comes back when it is told to."""

    def __init__(self, address: Address, statuses: Counter[int]) -> None:
        self._address = address
        self._statuses = statuses
        self._connection: Connection | None = None

    async def call(self, method: str, path: str, body: bytes = b"") -> tuple[Reply, float]:
        """The answer that is no "try later", and the milliseconds it alone took.

        Raises: OSError or TimeoutError when the server cannot be reached, hangs up or stays silent.
        """
        request = request_bytes(method, path, self._address, body=body)
        for _ in range(MAX_TRIES - 1):
            reply, latency_ms = await self._exchange(request)
            if reply.status not in TRY_LATER:
                return reply, latency_ms
            await asyncio.sleep(float(reply.header("retry-after") or 1))
        return await self._exchange(request)

    async def _exchange(self, request: bytes) -> tuple[Reply, float]:
        connection = self._connection or await connect(self._address)
        self._connection = None
        started_at = perf_counter()
        reply = await connection.exchange(request)
        latency_ms = (perf_counter() - started_at) * 1000
        if (reply.header("connection") or "").lower() != "close":
            self._connection = connection
        self._statuses[reply.status] += 1
        return reply, latency_ms

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


async def load(address: Address, *, count: int, concurrency: int) -> Outcome:
    outcome = Outcome(started_at=perf_counter())
    numbers = iter(range(count))
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("POST", total=count)
        posting = [_post_all(address, numbers, outcome) for _ in range(min(concurrency, count))]
        showing = asyncio.create_task(_show_progress(progress, outcome), name="progress")
        await asyncio.gather(*posting)
        showing.cancel()
        progress.update(task, completed=count)
    outcome.elapsed_s = perf_counter() - outcome.started_at
    return outcome


async def _show_progress(progress: Progress, outcome: Outcome) -> None:
    while True:
        progress.update(progress.task_ids[0], completed=len(outcome.ids))
        await asyncio.sleep(0.2)


async def _post_all(address: Address, numbers: Iterator[int], outcome: Outcome) -> None:
    """One client: posts until the numbers are used up; a problem is noted, and the next number follows."""
    caller = Caller(address, outcome.statuses)
    for number in numbers:
        try:
            reply, latency_ms = await caller.call("POST", "/api/v1/conversations", orjson.dumps(conversation(number)))
        except (OSError, TimeoutError) as exc:
            outcome.problems.append(f"{type(exc).__name__}: {exc}")
            continue
        if reply.status == ACCEPTED:
            outcome.latencies_ms.append(latency_ms)
            outcome.ids.append(orjson.loads(reply.body)["conversation_id"])
        else:
            outcome.problems.append(f"{reply.status}: {reply.body[:200].decode(errors='replace')}")
    caller.close()


async def await_analyzed(address: Address, outcome: Outcome) -> float:
    """Wait until the queue is empty and the last conversations are finished; seconds since the first POST.

    A conversation that failed joins the problems. Raises: TimeoutError after `WAIT_TIMEOUT_S`.
    """
    caller = Caller(address, Counter())
    async with asyncio.timeout(WAIT_TIMEOUT_S):
        while await _queue_size(caller):  # noqa: ASYNC110 - the queue is in another process
            await asyncio.sleep(0.2)
        for conversation_id in outcome.ids[-LAST_IDS:]:
            status = await _await_finished(caller, conversation_id)
            if status == "failed":
                outcome.problems.append(f"{conversation_id} failed to be analyzed")
    caller.close()
    return perf_counter() - outcome.started_at


async def _queue_size(caller: Caller) -> int:
    reply, _ = await caller.call("GET", "/health")
    size: int = orjson.loads(reply.body)["queue_size"]
    return size


async def _await_finished(caller: Caller, conversation_id: str) -> str:
    while True:
        reply, _ = await caller.call("GET", f"/api/v1/conversations/{conversation_id}")
        status: str = orjson.loads(reply.body).get("status", "unknown")
        if status in FINISHED:
            return status
        await asyncio.sleep(0.1)


def show(outcome: Outcome) -> None:
    table = Table(title="Load test")
    table.add_column("measured")
    table.add_column("value", justify="right")
    table.add_row("accepted", f"{len(outcome.ids):,}")
    table.add_row("elapsed", f"{outcome.elapsed_s:.2f} s")
    table.add_row("throughput", f"{len(outcome.ids) / outcome.elapsed_s:,.1f} requests/s")
    if outcome.latencies_ms:
        table.add_row("latency min", f"{min(outcome.latencies_ms):.1f} ms")
        for percent in (50, 90, 99):
            table.add_row(f"latency p{percent}", f"{percentile(outcome.latencies_ms, percent):.1f} ms")
        table.add_row("latency max", f"{max(outcome.latencies_ms):.1f} ms")
    for status, count in sorted(outcome.statuses.items()):
        table.add_row(f"answers with {status}", f"{count:,}")
    table.add_row("failures", f"{len(outcome.problems):,}")
    console.print(table)
    if outcome.latencies_ms:
        console.print("Latency of the accepted requests:")
        console.print("\n".join(histogram(outcome.latencies_ms, unit="ms")), markup=False, highlight=False)


def read_address(url: str) -> Address:
    """Raises: typer.BadParameter for anything but http(s)://HOST[:PORT]."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise typer.BadParameter(f"{url} is not http://HOST:PORT")
    tls = parts.scheme == "https"
    return Address(parts.hostname, parts.port or (443 if tls else 80), tls)


async def _run_all(address: Address, *, count: int, concurrency: int, wait: bool) -> Outcome:
    outcome = await load(address, count=count, concurrency=concurrency)
    show(outcome)
    if wait and outcome.ids:
        with console.status("waiting until all is analyzed"):
            elapsed_s = await await_analyzed(address, outcome)
        console.print(
            f"All analyzed {elapsed_s:.2f} s after the first POST: {len(outcome.ids) / elapsed_s:,.1f} conversations/s."
        )
    return outcome


def main(
    *,
    num_conversations: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many to send.")] = 2000,
    concurrency: Annotated[int, typer.Option(min=1, max=500, help="Clients at a time.")] = 10,
    url: Annotated[str, typer.Option(help="Where the service runs.")] = "http://localhost:8000",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until all is analyzed, and time that too.")] = False,
) -> None:
    """Send conversations one by one print throughput, latencies and a histogram; exit 1 when any was not accepted."""
    address = read_address(url)
    try:
        outcome = run(_run_all(address, count=num_conversations, concurrency=concurrency, wait=wait))
    except (OSError, TimeoutError) as exc:
        console.print(f"{url}: {type(exc).__name__} {exc}", style="red", markup=False)
        raise typer.Exit(1) from exc
    for problem, count in Counter(outcome.problems).most_common(5):
        console.print(f"{count} x {problem}", style="red", markup=False)
    raise typer.Exit(1 if outcome.problems else 0)


if __name__ == "__main__":
    typer.run(main)
