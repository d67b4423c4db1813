"""No budget is ever passed, whatever calls end in and whoever is killed; the truth is counted beside the books.

BUDGET_KILLS=100 kills the service more often, KILL_SEED=... as it was done before.
"""

import asyncio
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from account import Ledger
from database import Database
from errors import GrokBudgetReached
from grok_client import Cost, PlannedCall
from tests.books import MOST_TICKS, NO_LIMIT, Books, usage_of
from tests.fake_xai import FakeXai, FakeXaiServer, running_fake_xai
from tests.harness import HandClock, Service, running_service, wait_until
from xai import TICKS_PER_USD


@pytest.fixture
def books(database: Database, clock: HandClock) -> Books:
    return Books(database, clock)


# Within one process, a thousand times


@dataclass
class Run:
    """A budget of its own, and up to three lives of a process; the truth is counted beside the books."""

    books: Books
    dice: random.Random
    budget_ticks: int = 0
    true_ticks: int = 0
    kills: int = 0
    calls: int = 0
    refusals: int = 0
    steps_to_live: int = 0

    async def go(self) -> None:
        await self.books.clear()
        self.budget_ticks = round(MOST_TICKS * self.dice.uniform(0.5, 8))
        for _ in range(self.dice.randint(1, 3)):
            await self._live_once()
            await self.books.take_over()

    async def _live_once(self) -> None:
        """Up to ten workers at a time on a new ledger; when it is killed, nobody cleans up what was under way."""
        ledger, death = self.books.ledger(budget_ticks=self.budget_ticks), asyncio.Event()
        self.steps_to_live = self.dice.choice([self.dice.randint(1, 30), NO_LIMIT])
        workers = [asyncio.create_task(self._work(ledger, death)) for _ in range(self.dice.randint(1, 10))]
        everyone = asyncio.gather(*workers, return_exceptions=True)
        dying = asyncio.create_task(death.wait())
        ends: set[asyncio.Future[Any]] = {everyone, dying}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        self.kills += not everyone.done()
        dying.cancel()
        for worker in workers:
            worker.cancel()
        for ended in await everyone:
            assert ended is None or isinstance(ended, asyncio.CancelledError), repr(ended)
        await asyncio.gather(dying, return_exceptions=True)

    async def _work(self, ledger: Ledger, death: asyncio.Event) -> None:
        for _ in range(self.dice.randint(1, 3)):
            scale = self.dice.uniform(0.1, 1)
            call = PlannedCall("grok-4.3", int(1000 * scale), int(320 * scale), 1)
            try:
                number = await ledger.reserve(call)
            except GrokBudgetReached:
                self.refusals += 1
                return
            await self._step(death)  # reserved and never sent, if it dies here
            cost = self._call_xai(call)
            await self._step(death)  # sent and never settled
            await ledger.settle(number, call, cost)

    async def _step(self, death: asyncio.Event) -> None:
        self.steps_to_live -= 1
        if self.steps_to_live <= 0:
            death.set()
        await asyncio.sleep(0)

    def _call_xai(self, call: PlannedCall) -> Cost:
        """What it truly costs counts from here on, whatever we learn of it."""
        self.calls += 1
        match self.dice.choice(["answer", "bill", "lost", "error"]):
            case "error":
                return "free"
            case "lost":
                self.true_ticks += call.prompt_bytes * 12_500 + call.output_tokens * 25_000
                return "unknown"
            case "bill":
                ticks = self.dice.randint(0, call.prompt_bytes * 12_500 + call.output_tokens * 25_000)
                self.true_ticks += ticks
                return usage_of(1, 1, ticks=ticks)
            case _:
                prompt, completion = self.dice.randint(0, call.prompt_bytes), self.dice.randint(0, call.output_tokens)
                self.true_ticks += prompt * 12_500 + completion * 25_000
                return usage_of(prompt, completion)


RUNS = {"sqlite": 900, "postgresql": 100}  # a thousand together


@pytest.mark.slow
async def test_no_budget_is_ever_passed(books: Books) -> None:
    dice = random.Random(20_261_120)
    runs = [Run(books, dice) for _ in range(RUNS[books.database.dialect])]
    wrong: list[Run] = []
    for run in runs:
        await run.go()
        if not run.true_ticks <= await books.cost_ticks() <= run.budget_ticks:
            wrong.append(run)

    calls, kills, refusals = (sum(getattr(run, name) for run in runs) for name in ("calls", "kills", "refusals"))
    print(f"{len(runs)} runs, {calls} calls, {kills} kills, {refusals} refusals, {len(wrong)} past the budget")
    assert wrong == []
    assert min(calls, kills, refusals) >= len(runs) // 4


# Killed for good: child processes against the fake


KILLS = int(os.environ.get("BUDGET_KILLS", "10"))
KILL_SEED = int(os.environ.get("KILL_SEED", "0")) or random.randrange(1, 10**9)


def booked_usd(service: Service) -> float:
    """What the books hold as spent or reserved."""
    [(spent,)] = service.query("SELECT coalesce(sum(cost_ticks), 0) FROM grok_usage")
    [(reserved,)] = service.query("SELECT coalesce(sum(reserved_ticks), 0) FROM grok_calls")
    return float(spent + reserved) / TICKS_PER_USD


def open_accounts(service: Service) -> int:
    [(count,)] = service.query("SELECT count(*) FROM grok_calls WHERE reserved_ticks > 0")
    return int(count)


def true_usd(server: FakeXaiServer) -> float:
    return sum(call.cost_ticks for call in server.journal.chats) / TICKS_PER_USD


def complain(service: Service, tag: str) -> None:
    texts = [f"Parcel {tag}-{number} is lost, nobody answers and I want my money back" for number in range(100)]
    with service.client() as client:
        sent = client.post("/api/v1/conversations/bulk", json={"conversations": [{"text": text} for text in texts]})
    assert sent.status_code == 202


@pytest.mark.integration
@pytest.mark.slow
def test_no_budget_is_passed_by_a_service_that_is_killed_again_and_again(tmp_path: Path) -> None:
    dice = random.Random(KILL_SEED)
    wrong: list[str] = []
    booked = true = 0.0
    in_hand = spent_up = 0
    with running_fake_xai(FakeXai(latency_s=0.8, keeps_payloads=False)) as server:
        for life in range(KILLS):
            budget = round(booked + dice.uniform(0.01, 0.1), 6)
            environment = {**server.environment, "GROK_DAILY_BUDGET_USD": str(budget), "LOG_LEVEL": "WARNING"}
            with running_service(tmp_path, **environment) as service:  # which ends by a kill
                complain(service, f"{life}")
                time.sleep(dice.uniform(0.2, 1.5))
            wait_until(lambda: server.fake.in_flight == 0)
            booked, true = booked_usd(service), true_usd(server)
            in_hand += open_accounts(service) > 0
            spent_up += budget - booked < 0.01  # less than a pack may cost
            if not true <= booked <= budget:
                wrong.append(f"life {life}: true {true:.6f}, booked {booked:.6f}, budget {budget:.6f}")

    calls = len(server.journal.chats)
    print(
        f"seed {KILL_SEED}: {KILLS} kills, {in_hand} with calls in hand, {spent_up} with the budget spent,"
        f" {calls} calls, {true:.4f} USD of {booked:.4f} booked"
    )
    assert wrong == []
    assert calls >= KILLS
