"""A worker that makes no progress is seen from outside, and a loop that dies or hangs is started again."""

import asyncio
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

import queries
import store
from batch_processor import BatchProcessor
from database import Database, WriteSession
from queue_lock import QueueLock
from schemas import ConversationIn
from store import Submission
from survival import Supervisor, arm, parse_failpoints
from tests.faults.figures import Figures
from tests.harness import HandClock, running_app
from tests.scripted_analyzer import make_processor

pytestmark = [pytest.mark.integration, pytest.mark.slow]

RED_WITHIN_S = 30


@pytest.fixture(autouse=True)
def disarmed() -> Generator[None]:
    yield
    arm([])


@dataclass
class Aged:
    """A processor whose signs of life look older than they are: what takes half a minute is seen in a second."""

    processor: BatchProcessor
    by: timedelta

    @property
    def ticked_at(self) -> datetime:
        return self.processor.ticked_at - self.by

    @property
    def idle_since(self) -> datetime | None:
        since = self.processor.idle_since
        return None if since is None else since - self.by

    def wake(self, requests: int = 1) -> None:
        self.processor.wake(requests)


@pytest.mark.fault(7)
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("before_claim:raise", id="each turn fails"),
        pytest.param("before_commit:pause={seconds}", id="the writer hangs"),
    ],
)
async def test_ready_is_red_soon_after_progress_stops(tmp_path: Path, fault: str, figures: Figures) -> None:
    aged_by = timedelta(seconds=figures.times(RED_WITHIN_S - 2, 0))

    def look_older(state: dict[str, Any]) -> dict[str, Any]:
        return {**state, "processor": Aged(state["processor"], aged_by)}

    async with running_app(tmp_path, change_state=look_older) as api:
        before = (await api.get("/ready")).status_code
        arm(parse_failpoints(fault.format(seconds=figures.times(5, 40))))
        sending = asyncio.create_task(api.post("/api/v1/conversations", json={"text": "late parcel"}))
        stopped = time.monotonic()
        await until_red(api)
        red_after_s = time.monotonic() - stopped
        arm([])
        await asyncio.gather(sending, return_exceptions=True)

    figures.note_most(red_after_s=red_after_s, looked_older_by_s=aged_by.total_seconds())
    assert before == 200


async def until_red(api: httpx2.AsyncClient) -> None:
    async with asyncio.timeout(RED_WITHIN_S + 10):
        while (await api.get("/ready")).status_code == 200:  # noqa: ASYNC110 - it is what is looked at from outside
            await asyncio.sleep(0.1)


class LosesAnswers(Database):
    """Commits the next claims and never answers: as when a connection dies without a word."""

    answers_to_lose = 0

    async def write(self, unit: Callable[[WriteSession], Any], *, alone: bool = False) -> Any:
        value = await super().write(unit, alone=alone)
        if self.answers_to_lose and isinstance(unit, partial) and unit.func is store.claim_batch and value:
            self.answers_to_lose -= 1
            await asyncio.Event().wait()
        return value


@pytest.mark.fault(7)
async def test_a_loop_that_hangs_is_started_again_and_has_its_rows_back_at_once(
    sqlite_url: str, clock: HandClock, figures: Figures
) -> None:
    database = LosesAnswers.connect(sqlite_url)
    assert isinstance(database, LosesAnswers)
    await database.open()
    assert database.file is not None
    processor = make_processor(database, clock, queue_lock=QueueLock(database.file))
    restarted: list[str] = []
    supervisor = Supervisor(
        patience_s=0.2, on_restart=restarted.append, look_every_s=0.02, first_rest_s=0.01, longest_rest_s=0.1
    )
    keeping = asyncio.create_task(supervisor.keep("processor", processor.run, beats=lambda: processor.beats))
    for number in range(figures.times(2, 20)):
        database.answers_to_lose = 1
        submission = Submission([ConversationIn(text=f"parcel {number} is late")])
        await database.write(partial(store.accept, submissions=[submission], now=clock.now()))
        processor.wake()
        async with asyncio.timeout(20):
            while await database.read(queries.queue_depth):  # noqa: ASYNC110 - what is waited for is in the database
                await asyncio.sleep(0.01)
        figures.count(hangs=1)
    supervisor.end()
    processor.stop()
    await keeping
    statuses = await database.read(lambda s: s.exec_driver_sql("SELECT DISTINCT status FROM conversations").all())
    await database.close()

    figures.count(restarts=len(restarted))
    assert statuses == [("completed",)]  # and no time has passed: their leases cannot have ended
    assert len(restarted) >= figures.counts["hangs"]
