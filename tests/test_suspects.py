"""Rows whose owners died: the one that is at fault is failed, and nobody else, however often the service dies."""

import random
from collections.abc import Collection
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import select

import store
from database import Database
from models import Conversation
from schemas import ConversationIn
from store import Claim, Skipped, Submission
from tests.harness import HandClock

LEASE = timedelta(seconds=60)


class Owner:
    """A process that works the queue, dies, and is there again."""

    def __init__(self, database: Database, clock: HandClock) -> None:
        self._database = database
        self._clock = clock
        self.hand: list[Claim] = []

    async def accept(self, *texts: str) -> None:
        submission = Submission([ConversationIn(text=text) for text in texts])
        await self._database.write(partial(store.accept, submissions=[submission], now=self._clock.now()))

    async def claim(self, *, limit: int = 100) -> list[str]:
        self._clock.turn(0.001)
        most = max((claim.rescues for claim in self.hand), default=None)
        unit = partial(store.claim_batch, limit=limit, now=self._clock.now(), lease=LEASE, most_rescues=most)
        claims = await self._database.write(unit)
        self.hand += claims
        return sorted(claim.text for claim in claims)

    async def finish(self, *claims: Claim) -> None:
        outcomes = [Skipped(claim, "link_only") for claim in claims]
        await self._database.write(partial(store.save_outcomes, outcomes=outcomes, now=self._clock.now()))
        self.hand = [claim for claim in self.hand if claim not in claims]

    async def die(self) -> None:
        """Its claims are free at once, as on a restart with SQLite."""
        self.hand = []
        self._clock.turn(0.001)
        await self._database.write(partial(store.release_abandoned, now=self._clock.now()))

    async def failed(self) -> set[str]:
        statement = select(Conversation.text).where(Conversation.status == "failed")
        return set(await self._database.read(lambda session: session.execute(statement).scalars().all()))


@pytest.fixture
def owner(database: Database, clock: HandClock) -> Owner:
    return Owner(database, clock)


async def test_after_one_death_all_are_taken_again_at_once(owner: Owner) -> None:
    await owner.accept("one", "two", "three")
    await owner.claim()
    await owner.die()

    assert await owner.claim() == ["one", "three", "two"]


async def test_after_two_deaths_one_is_taken_at_a_time_beside_others(owner: Owner) -> None:
    await owner.accept("one", "two", "three")
    for _ in range(2):
        await owner.claim()
        await owner.die()
    await owner.accept("innocent", "harmless")

    first, second = await owner.claim(), await owner.claim()

    assert (len(first), second) == (3, [])
    assert {"innocent", "harmless"} <= set(first)


async def test_the_last_chance_is_given_alone(owner: Owner) -> None:
    await owner.accept("one")
    for _ in range(store.MAX_RESCUES):
        await owner.claim()
        await owner.die()
    await owner.accept("innocent")

    assert await owner.claim() == ["one"]


async def test_the_last_chance_waits_for_an_empty_hand(owner: Owner) -> None:
    await owner.accept("one")
    for _ in range(2):
        await owner.claim()
        await owner.die()
    await owner.claim()
    await owner.accept("innocent")
    await owner.claim()
    [one, innocent] = owner.hand
    await owner.die()
    owner.hand = [innocent]  # as if it were still being read

    with_full_hands = await owner.claim()
    owner.hand = []

    assert (with_full_hands, await owner.claim(), one.rescues) == ([], ["one"], 2)


@pytest.mark.parametrize("rows", [2, 10])
async def test_four_deaths_in_one_slow_call_fail_nobody(owner: Owner, rows: int) -> None:
    await owner.accept(*(f"row {number}" for number in range(rows)))
    for _ in range(4):
        await owner.claim()
        await owner.die()

    while await owner.claim():
        await owner.finish(*owner.hand)

    assert await owner.failed() == set()


async def work_off(owner: Owner, fatal: Collection[str], *, chance: random.Random) -> int:
    """Until nothing is left; how often the owner died of a row. Calls end in any order, fatal ones never."""
    deaths = idle = 0
    while idle < 2:
        claimed = await owner.claim(limit=10)
        idle = idle + 1 if not (claimed or owner.hand) else 0
        done = [claim for claim in owner.hand if claim.text not in fatal and chance.random() < 0.7]
        if done:
            await owner.finish(*done)
        if any(claim.text in fatal for claim in owner.hand) and chance.random() < 0.5:
            deaths += 1
            await owner.die()
    return deaths


@pytest.mark.parametrize("fatal_count", [1, 5])
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_of_a_hundred_rows_only_those_that_kill_are_failed(owner: Owner, fatal_count: int, seed: int) -> None:
    chance = random.Random(seed)
    texts = [f"row {number}" for number in range(100)]
    fatal = set(chance.sample(texts, fatal_count))
    await owner.accept(*texts)

    deaths = await work_off(owner, fatal, chance=chance)

    assert await owner.failed() == fatal
    assert deaths <= fatal_count * (store.MAX_RESCUES + 1)


async def test_a_suspect_that_is_read_at_last_is_like_any_other(owner: Owner, database: Database) -> None:
    await owner.accept("one", "two")
    for _ in range(2):
        await owner.claim()
        await owner.die()

    await owner.claim()
    await owner.finish(*owner.hand)

    assert await owner.claim() != []
