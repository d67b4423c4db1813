"""Single POSTs, the service beside the plain design: alternating rounds, then a kill, then a look at both disks."""

import itertools
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import orjson

from benchmarks import servers
from benchmarks.figures import percentile
from benchmarks.http_load import Address, Tally, drive, request_bytes, run
from benchmarks.texts import conversation

THROUGHPUT_BAR = 10.0  # requests/s, at least so many times the plain design's
P99_BAR = 1 / 8  # p99, at most this part of the plain design's
WARM_UP_S = 0.5
STEADY_WITHIN = 2.0  # rounds whose ratios differ by more were not measured under the same conditions
SETTLE_S = 0.3  # after a pause: time to take up the background work again before the clock runs


@dataclass(frozen=True, slots=True)
class Round:
    server: str
    per_s: float
    p50_ms: float
    p99_ms: float
    accepted_count: int
    other_count: int


@dataclass(frozen=True, slots=True)
class DiskCheck:
    """What was acknowledged with 202 beside what the database file holds after `kill -9`."""

    server: str
    acknowledged_count: int
    stored_count: int
    missing_count: int
    repeated_count: int

    @property
    def exact(self) -> bool:
        return self.acknowledged_count == self.stored_count and self.missing_count == self.repeated_count == 0


@dataclass(slots=True)
class SinglePosts:
    rounds: list[Round] = field(default_factory=list[Round])
    checks: list[DiskCheck] = field(default_factory=list[DiskCheck])
    fsync_ms: list[float] = field(default_factory=list[float])

    def middle(self, server: str, figure: str) -> float:
        """The median over a server's rounds of `per_s`, `p50_ms` or `p99_ms`."""
        values: list[float] = [getattr(row, figure) for row in self.rounds if row.server == server]
        return median(values)

    def ratio(self, figure: str) -> float:
        return self.middle("service", figure) / self.middle("plain", figure)

    def round_ratios(self, figure: str) -> list[float]:
        """Service to plain design within each round, smallest first."""
        ours, plain = (
            [getattr(row, figure) for row in self.rounds if row.server == name] for name in ("service", "plain")
        )
        return sorted(mine / other for mine, other in zip(ours, plain, strict=True))

    @property
    def steady(self) -> bool:
        """Whether the rounds agree; else something besides the two used the disk or the CPUs, and medians mislead."""
        return all(found[-1] <= STEADY_WITHIN * found[0] for found in map(self.round_ratios, ("per_s", "p99_ms")))

    @property
    def fast(self) -> bool:
        """Whether the medians reach the throughput bar; rounds that disagree must each reach it."""
        return (self.ratio("per_s") if self.steady else self.round_ratios("per_s")[0]) >= THROUGHPUT_BAR

    @property
    def prompt(self) -> bool:
        """The same for p99."""
        return (self.ratio("p99_ms") if self.steady else self.round_ratios("p99_ms")[-1]) <= P99_BAR

    @property
    def refused_count(self) -> int:
        return sum(row.other_count for row in self.rounds if row.server == "service")

    @property
    def passed(self) -> bool:
        return self.fast and self.prompt and self.refused_count == 0 and all(check.exact for check in self.checks)


def single_posts(address: Address) -> Iterator[bytes]:
    """Requests without end, each with another conversation."""
    for number in itertools.count():
        yield request_bytes("POST", "/api/v1/conversations", address, body=orjson.dumps(conversation(number)))


def measure_ceiling(*, clients: int, seconds: float) -> float:
    """Requests/s of the same client against a server that does nothing: figures near it are the client's own."""
    with servers.trivial_server() as address:
        return run(drive(address, single_posts(address), clients=clients, duration_s=seconds)).accepted_per_s


def measure_single_posts(folder: Path, *, rounds: int, seconds: float, clients: int) -> SinglePosts:
    result = SinglePosts()
    with ExitStack() as stack:
        lanes = [_Lane(stack.enter_context(start(folder))) for start in (servers.plain_design, servers.service)]
        for lane in lanes:
            lane.load(clients=clients, seconds=WARM_UP_S)
        for number in range(1, rounds + 1):
            result.fsync_ms.append(time_fsync(folder))
            print(f"  round {number}/{rounds} one fsync {result.fsync_ms[-1]:.2f} ms", flush=True)
            for lane in lanes:
                row = _as_round(lane.server.name, lane.load(clients=clients, seconds=seconds))
                result.rounds.append(row)
                print(f"  round {number}/{rounds} {_describe(row)}", flush=True)
        for lane in lanes:
            lane.server.kill()
        result.checks = [_check_disk(lane) for lane in lanes]
    return result


def time_fsync(folder: Path) -> float:
    """Milliseconds for one small write to reach this disk (median of 30): what every durable commit pays at least."""
    times: list[float] = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(30):
            started_at = perf_counter()
            file.write(b"x" * 4096)
            os.fsync(file.fileno())
            times.append(perf_counter() - started_at)
    return median(times) * 1000


class _Lane:
    """One server under load: it runs only while it is measured, and remembers every answer it gave."""

    def __init__(self, server: servers.Server) -> None:
        self.server = server
        self.bodies: list[bytes] = []
        self._requests = single_posts(server.address)
        server.pause()

    def load(self, *, clients: int, seconds: float) -> Tally:
        self.server.resume()
        sleep(SETTLE_S)
        try:
            tally = run(drive(self.server.address, self._requests, clients=clients, duration_s=seconds))
        finally:
            self.server.pause()
        self.bodies.extend(tally.bodies)
        return tally


def _as_round(name: str, tally: Tally) -> Round:
    if not tally.latencies_s:
        raise RuntimeError(f"the {name} server accepted nothing; its answers: {dict(tally.statuses)}")
    return Round(
        server=name,
        per_s=tally.accepted_per_s,
        p50_ms=percentile(tally.latencies_s, 50) * 1000,
        p99_ms=percentile(tally.latencies_s, 99) * 1000,
        accepted_count=len(tally.bodies),
        other_count=tally.other_count,
    )


def _describe(row: Round) -> str:
    text = f"{row.server:<8}{row.per_s:>9,.0f} req/s   p50 {row.p50_ms:>8.1f} ms   p99 {row.p99_ms:>8.1f} ms"
    return f"{text}   {row.other_count} not accepted" if row.other_count else text


def _check_disk(lane: _Lane) -> DiskCheck:
    acknowledged: list[str] = [orjson.loads(body)["conversation_id"] for body in lane.bodies]
    stored = lane.server.stored_ids()
    return DiskCheck(
        server=lane.server.name,
        acknowledged_count=len(acknowledged),
        stored_count=len(stored),
        missing_count=len(set(acknowledged) - set(stored)),
        repeated_count=len(acknowledged) - len(set(acknowledged)),
    )
