"""Loops that die or hang are started again, and nothing is once the service ends."""

import asyncio
from collections.abc import Callable

import pytest

from survival import Supervisor

pytestmark = pytest.mark.unit

PATIENCE_S = 0.05


class Loop:
    """Does what it is told at each run, in order; then ends well."""

    def __init__(self, *runs: str) -> None:
        self._runs = list(runs)
        self.beats = 0
        self.started = 0
        self.cancelled = 0

    async def run(self) -> None:
        self.started += 1
        match self._runs.pop(0) if self._runs else "end":
            case "die":
                raise RuntimeError("a bug of ours")
            case "hang":
                try:
                    await asyncio.sleep(3600)
                finally:
                    self.cancelled += 1
            case "beat":
                for _ in range(10):
                    self.beats += 1
                    await asyncio.sleep(PATIENCE_S / 2)
            case _:
                pass


@pytest.fixture
def restarted() -> list[str]:
    return []


@pytest.fixture
def supervisor(restarted: list[str]) -> Supervisor:
    return Supervisor(patience_s=PATIENCE_S, on_restart=restarted.append, look_every_s=0.01, first_rest_s=0.01)


@pytest.mark.parametrize("fault", ["die", "hang"])
async def test_a_loop_that_dies_or_hangs_is_started_again(
    supervisor: Supervisor, restarted: list[str], fault: str
) -> None:
    loop = Loop(fault, fault)

    await supervisor.keep("queue", loop.run, beats=lambda: loop.beats)

    assert (loop.started, restarted) == (3, ["queue", "queue"])
    assert loop.cancelled == (2 if fault == "hang" else 0)


@pytest.mark.parametrize("run", ["end", "beat"])
async def test_a_loop_that_ends_well_or_shows_life_is_left_alone(
    supervisor: Supervisor, restarted: list[str], run: str
) -> None:
    loop = Loop(run)

    await supervisor.keep("queue", loop.run, beats=lambda: loop.beats)

    assert (loop.started, restarted) == (1, [])


async def test_nothing_is_started_again_once_the_service_ends(supervisor: Supervisor, restarted: list[str]) -> None:
    loop = Loop("die")
    supervisor.end()

    await supervisor.keep("queue", loop.run, beats=lambda: loop.beats)

    assert restarted == []


async def test_the_end_does_not_wait_for_a_rest_between_two_starts(restarted: list[str]) -> None:
    supervisor = Supervisor(patience_s=PATIENCE_S, on_restart=restarted.append, first_rest_s=3600)
    loop = Loop("die")
    keeping = asyncio.create_task(supervisor.keep("queue", loop.run, beats=lambda: loop.beats))
    await _until(lambda: bool(restarted))

    supervisor.end()

    await asyncio.wait_for(keeping, 1)


async def test_who_is_cancelled_ends_its_loop_first(supervisor: Supervisor, restarted: list[str]) -> None:
    loop = Loop("hang")
    patient = Supervisor(patience_s=3600, on_restart=restarted.append)
    keeping = asyncio.create_task(patient.keep("queue", loop.run, beats=lambda: loop.beats))
    await _until(lambda: loop.started == 1)

    keeping.cancel()
    await asyncio.wait([keeping])

    assert (loop.cancelled, restarted) == (1, [])


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - a loop of plain counters
            await asyncio.sleep(0.005)
