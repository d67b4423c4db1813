"""Runs against the fake xAI: the service and the plain design with the same texts, and how much of a rate is used."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import orjson

from benchmarks import servers
from benchmarks.texts import conversation
from tests.fake_xai_answers import TICKS_PER_USD
from tests.fake_xai_journal import Call, Journal

CALLS_PER_S = 10  # the limit in every run
PLACES = 10
LATENCY_S = 2.0  # what xAI takes for a short text
QUICK_LATENCY_S = 0.2  # so that the limit is the bottleneck, and not the places
MANY_PLACES = 50
KEY = "a-key-for-the-fake"
ROWS_PER_POST = 500
LOAD_FIRST = 200_000  # other texts than the other runs have
RUN_TIMEOUT_S = 90.0
STARTED = "GROK_BASE_URL="
FAULTS = ("--faults", "0.15", "--kinds", "internal", "internal", "rate_limit")  # of all calls 10 % 500 and 5 % 429


@dataclass(frozen=True, slots=True)
class FakeXai:
    url: str
    journal_file: Path

    def journal(self) -> Journal:
        return Journal.load(self.journal_file)

    @property
    def settings(self) -> dict[str, str]:
        """What the service needs to take this for xAI, with the limit of every run."""
        return {
            "GROK_MODE": "real",
            "GROK_KEY": KEY,
            "GROK_BASE_URL": self.url,
            "GROK_CALLS_PER_SECOND": str(CALLS_PER_S),
            "GROK_MAX_CONCURRENCY": str(PLACES),
        }


@dataclass(frozen=True, slots=True)
class Lane:
    """One way through the same texts, as the fake saw it; rates are those of its steady part."""

    name: str
    conversation_count: int
    done_count: int
    conversations_per_s: float
    calls_per_s: float
    busiest_window: int
    usd: float
    cached_share: float  # of the prompt tokens
    booked_usd: float | None = None  # what the service says that it cost

    @property
    def usd_per_1000(self) -> float:
        return 1000 * self.usd / self.conversation_count

    @property
    def complete(self) -> bool:
        return self.done_count == self.conversation_count

    @property
    def bill_agrees(self) -> bool:
        return self.booked_usd is None or abs(self.booked_usd - self.usd) < 1e-6


@dataclass(frozen=True, slots=True)
class RateRun:
    """How much of the allowed rate was used while there was more work than it allows."""

    share: float
    busiest_window: int
    call_count: int
    error_count: int
    lost_count: int


@contextmanager
def fake_xai(folder: Path, *arguments: str, latency_s: float) -> Generator[FakeXai, None, None]:
    """The fake in a process of its own, on a free port, with its journal in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    journal_file, told = folder / "journal.jsonl", folder / "fake.log"
    command = ["-m", "tests.fake_xai", "--port", "0", "--latency", str(latency_s), "--journal", str(journal_file)]
    with told.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command, *arguments],
            cwd=servers.ROOT,
            env=_environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _await(lambda: "\n" in told.read_text() or process.poll() is not None, within_s=servers.START_TIMEOUT_S)
        first = told.read_text().partition(" ")[0]
        if not first.startswith(STARTED):
            raise RuntimeError(f"the fake xAI did not start: {told.read_text()[-500:]}")
        yield FakeXai(first.removeprefix(STARTED), journal_file)
    finally:
        process.kill()
        process.wait()


def run_plain(folder: Path, *, conversations: int) -> Lane:
    with fake_xai(folder, latency_s=LATENCY_S) as xai:
        program = str(servers.ROOT / "benchmarks" / "plain_grok.py")
        limits = ["--calls-per-s", str(CALLS_PER_S), "--places", str(PLACES)]
        work = ["--url", xai.url, "--db", str(folder / "plain.db"), "--conversations", str(conversations)]
        command = [sys.executable, program, *work, *limits]
        ended = subprocess.run(command, env=_environment(), stdout=subprocess.PIPE, timeout=RUN_TIMEOUT_S, check=False)
        if ended.returncode:
            raise RuntimeError(f"the plain design ended with status {ended.returncode}")
        return as_lane("plain", xai.journal(), sent=conversations, done=orjson.loads(ended.stdout)["done"])


def run_service(folder: Path, name: str, *, conversations: int, **settings: str) -> Lane:
    with fake_xai(folder, latency_s=LATENCY_S) as xai, servers.service(folder, **xai.settings, **settings) as server:
        post_all(server, conversations)
        _await(lambda: not open_rows(server), within_s=RUN_TIMEOUT_S)
        _await(lambda: not _summary(server)["budget"]["reserved_usd"], within_s=2 * LATENCY_S)  # a last canary
        done = server.status_counts().get("completed", 0)
        booked_usd = _summary(server)["usage"]["total"]["cost_usd"]
        return as_lane(name, xai.journal(), sent=conversations, done=done, booked_usd=booked_usd)


def run_at_full_rate(folder: Path, *, seconds: float) -> RateRun:
    """More work than the rate allows, one conversation a call, and places enough."""
    with fake_xai(folder, latency_s=QUICK_LATENCY_S) as xai, _lonely_service(folder, xai) as server:
        post_all(server, _more_than_fits(seconds), first=LOAD_FIRST)
        time.sleep(seconds)
        return as_rate_run(xai.journal(), server)


def run_with_faults(folder: Path, *, seconds: float) -> RateRun:
    """The same with errors, and `kill -9` and a restart in the middle, amid calls that were just sent."""
    with fake_xai(folder, *FAULTS, latency_s=QUICK_LATENCY_S) as xai:
        with _lonely_service(folder, xai) as server:
            post_all(server, _more_than_fits(seconds), first=LOAD_FIRST)
            time.sleep(seconds / 2)
            known = len(xai.journal().calls)
            _await(lambda: len(xai.journal().calls) > known, within_s=RUN_TIMEOUT_S)
            server.kill()
            before = len(xai.journal().calls)
        with _lonely_service(folder, xai) as server:
            time.sleep(seconds / 2)
            journal = xai.journal()
            if len(journal.calls) == before:
                raise RuntimeError("no calls after the restart")
            return as_rate_run(journal, server)


def post_all(server: servers.Server, count: int, *, first: int = 0) -> None:
    """Hand the service so many different conversations. Raises: RuntimeError when it takes one otherwise."""
    address = f"http://{server.address.host}:{server.address.port}"
    with httpx2.Client(base_url=address, timeout=30, trust_env=False) as client:
        for start in range(first, first + count, ROWS_PER_POST):
            items = [conversation(number) for number in range(start, min(start + ROWS_PER_POST, first + count))]
            answer = client.post("/api/v1/conversations/bulk", json={"conversations": items})
            if answer.status_code != 202 or answer.json()["accepted"] != len(items):
                raise RuntimeError(f"a bulk POST was answered with {answer.status_code}: {answer.text[:200]}")


def open_rows(server: servers.Server) -> int:
    counts = server.status_counts()
    return counts.get("pending", 0) + counts.get("processing", 0)


def as_lane(name: str, journal: Journal, *, sent: int, done: int, booked_usd: float | None = None) -> Lane:
    calls = journal.chats
    steady = steady_part(calls)
    seconds = steady[-1].arrived_at - steady[0].arrived_at
    return Lane(
        name=name,
        conversation_count=sent,
        done_count=done,
        conversations_per_s=len({text for call in steady[:-1] for text in call.texts}) / seconds,
        calls_per_s=(len(steady) - 1) / seconds,
        busiest_window=journal.calls_in_busiest_window(),
        usd=sum(call.cost_ticks for call in calls) / TICKS_PER_USD,
        cached_share=sum(call.cached_tokens for call in calls) / sum(call.prompt_tokens for call in calls),
        booked_usd=booked_usd,
    )


def steady_part(calls: list[Call]) -> list[Call]:
    """Without the first two rounds and what comes after the last new text; whole rounds, and the call that ends them.

    A round is as many calls as there are places. Calls come and go together: counted from the clock, a round more or
    less would be a tenth of 20 s. Raises: RuntimeError for too few calls.
    """
    last_new, known = 0, set[str]()
    for number, call in enumerate(calls):
        if not known.issuperset(call.texts):
            last_new, known = number, known | set(call.texts)
    steady = calls[2 * PLACES : last_new + 1]
    rounds = (len(steady) - 1) // PLACES
    if rounds < 1:
        raise RuntimeError(f"{len(calls)} calls are too few to tell a rate")
    return steady[: rounds * PLACES + 1]


def as_rate_run(journal: Journal, server: servers.Server) -> RateRun:
    chats = journal.chats
    return RateRun(
        share=share_of_rate(chats, limit=CALLS_PER_S),
        busiest_window=journal.calls_in_busiest_window(),
        call_count=len(chats),
        error_count=sum(call.status != 200 for call in chats),
        lost_count=server.status_counts().get("failed", 0),
    )


def share_of_rate(calls: list[Call], *, limit: int) -> float:
    """Calls/s divided by `limit`, without the start; from one call to that so many whole limits later.

    Raises: RuntimeError for too few calls.
    """
    arrived_at = sorted(call.arrived_at for call in calls)[limit:]
    limits = (len(arrived_at) - 1) // limit
    if limits < 1:
        raise RuntimeError(f"{len(calls)} calls are too few to tell a rate")
    return limits / (arrived_at[limits * limit] - arrived_at[0])


def _lonely_service(folder: Path, xai: FakeXai) -> AbstractContextManager[servers.Server]:
    settings = {**xai.settings, "GROK_PACK_SIZE": "1", "GROK_MAX_CONCURRENCY": str(MANY_PLACES)}
    return servers.service(folder, **settings)


def _more_than_fits(seconds: float) -> int:
    return int(seconds * CALLS_PER_S * 1.5)


def _summary(server: servers.Server) -> dict[str, Any]:
    address = f"http://{server.address.host}:{server.address.port}"
    summary: dict[str, Any] = httpx2.get(f"{address}/status/summary", trust_env=False).raise_for_status().json()
    return summary


def _environment() -> dict[str, str]:
    return {key: os.environ[key] for key in servers.INHERITED if key in os.environ}


def _await(holds: Callable[[], bool], *, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError(f"it did not come true within {within_s:g} s")
        time.sleep(0.02)
