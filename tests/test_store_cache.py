"""What is saved with an outcome besides its row: the answer for equal texts, and the tallies, behind the same fence."""

from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest

import queries
import store
from database import Database
from models import CachedAnalysis
from schemas import Analysis, Tally
from store import Claim, Completed, Released, Skipped
from tests.harness import HandClock
from tests.scripted_analyzer import analysis_of
from tests.test_store import accept, claim, count, said, save

KEY, OTHER_KEY = b"\x00" * 32, b"\xff" * 32
FIRST, SECOND = analysis_of("first"), analysis_of("second")


async def claim_two(database: Database, clock: HandClock) -> list[Claim]:
    await accept(database, clock, said("one"), said("two"))
    return await claim(database, clock)


async def known(
    database: Database, clock: HandClock, *keys: bytes, for_s: float = 60
) -> dict[bytes, tuple[Analysis, str]]:
    since = clock.now() - timedelta(seconds=for_s)
    found = await database.read(partial(queries.known_analyses, keys=keys, since=since))
    return {key: (known.analysis, known.model) for key, known in found.items()}


async def tallies(database: Database) -> dict[Tally, int]:
    counts = await database.read(partial(queries.count_for_operator, day="2026-03-01"))
    return {tally: counted for tally, counted in counts.tallies.items() if counted}


async def test_an_answer_is_known_with_the_model_that_gave_it(database: Database, clock: HandClock) -> None:
    [one, _] = await claim_two(database, clock)
    rich = Analysis(
        sentiment_score=-0.65,
        clusters=("delivery_problems", "refunds"),
        confidence=0.5,
        reasoning="waits ü😡",
        summary="late",
        language="de",
        injection_suspected=True,
        unlisted_topics=("lost luggage",),
    )

    await save(database, clock, Completed(one, rich, "grok-4.3", cache_key=KEY))

    assert await known(database, clock, KEY, OTHER_KEY) == {KEY: (rich, "grok-4.3")}
    assert await known(database, clock) == {}


async def test_a_later_answer_to_a_text_takes_the_place_of_one_that_was_not_used(
    database: Database, clock: HandClock
) -> None:
    [one, two] = await claim_two(database, clock)

    await save(database, clock, Completed(one, FIRST, "grok-4.3", cache_key=KEY))
    await save(database, clock, Completed(two, SECOND, "grok-4.5", cache_key=KEY))

    assert await known(database, clock, KEY) == {KEY: (SECOND, "grok-4.5")}


async def test_one_save_may_hold_a_text_twice(database: Database, clock: HandClock) -> None:
    [one, two] = await claim_two(database, clock)

    outcomes = [Completed(each, FIRST, "grok-4.3", cache_key=KEY) for each in (one, two)]
    fenced = await save(database, clock, *outcomes)

    assert (fenced, await count(database, CachedAnalysis)) == ([], 1)


async def test_an_answer_without_a_key_is_not_kept(database: Database, clock: HandClock) -> None:
    [one, _] = await claim_two(database, clock)

    await save(database, clock, Completed(one, FIRST, "local-linear-1"))

    assert await count(database, CachedAnalysis) == 0


@pytest.mark.parametrize(("passed_s", "found"), [(60, True), (61, False)])
async def test_an_answer_is_known_for_so_long(
    database: Database, clock: HandClock, passed_s: float, *, found: bool
) -> None:
    [one, _] = await claim_two(database, clock)
    await save(database, clock, Completed(one, FIRST, "grok-4.3", cache_key=KEY))

    clock.turn(passed_s)

    assert bool(await known(database, clock, KEY)) == found


async def test_old_answers_are_purged_and_others_kept(database: Database, clock: HandClock) -> None:
    [one, two] = await claim_two(database, clock)
    await save(database, clock, Completed(one, FIRST, "grok-4.3", cache_key=KEY))
    clock.turn(30)
    await save(database, clock, Completed(two, SECOND, "grok-4.3", cache_key=OTHER_KEY))

    purged = await database.write(partial(store.purge_cache, created_before=clock.now()))

    assert purged == 1
    assert set(await known(database, clock, KEY, OTHER_KEY)) == {OTHER_KEY}


async def test_an_answer_goes_with_the_conversation_that_left_it(database: Database, clock: HandClock) -> None:
    [one, two] = await claim_two(database, clock)
    await save(database, clock, Completed(one, FIRST, "grok-4.3", cache_key=KEY))
    await save(database, clock, Completed(two, SECOND, "grok-4.3", cache_key=OTHER_KEY))

    delete = f"DELETE FROM conversations WHERE id = '{one.conversation_id}'"
    await database.write(lambda session: session.exec_driver_sql(delete).close())

    assert set(await known(database, clock, KEY, OTHER_KEY)) == {OTHER_KEY}


async def test_outcomes_are_counted_in_the_transaction_that_saves_them(database: Database, clock: HandClock) -> None:
    [one, two] = await claim_two(database, clock)
    broken = FIRST.model_copy(update={"sentiment_score": 7.0})

    with pytest.raises(Exception, match="score_in_range"):
        await save(database, clock, Completed(one, broken, "grok-4.3", cache_key=KEY, tallies=(Tally.ASKED,)))
    assert (await tallies(database), await count(database, CachedAnalysis)) == ({}, 0)

    await save(database, clock, Completed(one, FIRST, "grok-4.3", tallies=(Tally.ASKED, Tally.SUSPECTED)))
    await save(database, clock, Skipped(two, "link_only"))
    assert await tallies(database) == {Tally.ASKED: 1, Tally.SUSPECTED: 1, Tally.SKIPPED: 1}


async def test_of_one_who_lost_its_claim_nothing_is_counted_nor_kept(database: Database, clock: HandClock) -> None:
    [one, two] = await claim_two(database, clock)
    lost = replace(one, lease_epoch=one.lease_epoch + 1)

    fenced = await save(
        database,
        clock,
        Completed(lost, FIRST, "grok-4.3", cache_key=KEY, tallies=(Tally.ASKED,)),
        Completed(two, SECOND, "grok-4.3", cache_key=OTHER_KEY, tallies=(Tally.CACHED,)),
    )

    assert fenced == [lost]
    assert await tallies(database) == {Tally.CACHED: 1}
    assert set(await known(database, clock, KEY, OTHER_KEY)) == {OTHER_KEY}


async def test_a_release_counts_nothing(database: Database, clock: HandClock) -> None:
    [one, two] = await claim_two(database, clock)

    await save(database, clock, Released(one, clock.now(), spent_attempt=True), Released(two, clock.now()))

    assert await tallies(database) == {}
