"""What the operator's summary counts, over a database made by hand."""

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

import queries
import store
from database import Database
from queries import OperatorCounts, ScrapeCounts
from schemas import Status, Tally
from store import Completed, Failed, Released, Reservation, Reserved, Settlement, Skipped
from tests.harness import HandClock
from tests.scripted_analyzer import analysis_of
from tests.test_store import accept, claim, said, save

TODAY = "2026-03-01"


async def count_for_operator(database: Database, *, day: str = TODAY) -> OperatorCounts:
    return await database.read(partial(queries.count_for_operator, day=day))


async def test_of_an_empty_database_everything_is_nothing(database: Database) -> None:
    counts = await count_for_operator(database)

    assert counts == OperatorCounts(
        by_status=dict.fromkeys(Status, 0),
        skip_reasons={},
        oldest_pending=None,
        tallies=dict.fromkeys(Tally, 0),
        usage=[],
        reserved_ticks=0,
    )


async def test_every_status_and_every_reason_is_counted(database: Database, clock: HandClock) -> None:
    await accept(database, clock, *(said(f"parcel {number}") for number in range(10)))
    a, b, c, d, e, f, g, *_ = await claim(database, clock, limit=8)
    await save(
        database,
        clock,
        Completed(a, analysis_of("a"), "grok-4.3"),
        Completed(b, analysis_of("b"), "grok-4.3"),
        Skipped(c, "link_only"),
        Skipped(d, "link_only"),
        Skipped(e, "digits_only"),
        Failed(f, "reply_invalid", "Not JSON."),
        Released(g, clock.now() + timedelta(seconds=9)),
    )

    counts = await count_for_operator(database)

    assert counts.by_status == {"completed": 2, "skipped": 3, "failed": 1, "processing": 1, "pending": 3}
    assert counts.skip_reasons == {"link_only": 2, "digits_only": 1}


async def test_the_oldest_pending_is_the_one_accepted_first_whenever_it_is_due(
    database: Database, clock: HandClock
) -> None:
    accepted_at = clock.now()
    await accept(database, clock, said("in work"))
    [in_work] = await claim(database, clock)
    clock.turn(10)
    await accept(database, clock, said("new"))
    only_new = (await count_for_operator(database)).oldest_pending

    await save(database, clock, Released(in_work, clock.now() + timedelta(hours=1)))
    oldest = (await count_for_operator(database)).oldest_pending

    assert (only_new, oldest) == (clock.now(), accepted_at)


async def test_a_row_that_was_sent_back_is_pending_and_no_longer_failed(database: Database, clock: HandClock) -> None:
    await accept(database, clock, said("late"))
    [taken] = await claim(database, clock)
    await save(database, clock, Failed(taken, "reply_invalid", "Not JSON."))

    await database.write(partial(store.retry_failed, now=clock.now()))

    counts = (await count_for_operator(database)).by_status
    assert (counts["pending"], counts["failed"]) == (1, 0)


@pytest.mark.unit
async def test_usage_comes_newest_day_first_and_only_todays_reservations_count(
    sqlite_url: str, clock: HandClock
) -> None:
    database = Database.connect(sqlite_url)
    await database.open()
    for model in ("grok-4.5", "grok-4.3"):
        for passed_s in (0, 86_400):
            clock.turn(passed_s)
            wanted = Reservation("caller", 1, model, 5, 100, None, 10, timedelta(seconds=1))
            settled = await database.write(partial(store.reserve_call, wanted=wanted, now=clock.now()))
            assert isinstance(settled, Reserved)
            settle = partial(store.settle_call, number=settled.number, settlement=Settlement(ticks=7), now=clock.now())
            await database.write(settle)
            await database.write(partial(store.reserve_call, wanted=wanted, now=clock.now()))

    counts = await count_for_operator(database, day="2026-03-02")
    scraped = await database.read(partial(queries.count_for_scrape, now=datetime(2026, 3, 2, 23, tzinfo=UTC)))
    await database.close()

    assert [(row.day, row.model) for row in counts.usage] == [
        ("2026-03-03", "grok-4.3"),
        ("2026-03-02", "grok-4.3"),
        ("2026-03-02", "grok-4.5"),
        ("2026-03-01", "grok-4.5"),
    ]
    assert counts.reserved_ticks == scraped.reserved_ticks == 200
    assert scraped.spent_ticks == 7 + 7


# What Prometheus asks


async def count_for_scrape(database: Database, clock: HandClock) -> ScrapeCounts:
    return await database.read(partial(queries.count_for_scrape, now=clock.now()))


async def test_of_an_empty_database_prometheus_reads_noughts(database: Database, clock: HandClock) -> None:
    counts = await count_for_scrape(database, clock)

    assert counts == ScrapeCounts(
        by_status=dict.fromkeys(Status, 0),
        oldest_due=None,
        tallies=dict.fromkeys(Tally, 0),
        spent_ticks=0,
        reserved_ticks=0,
        database_bytes=counts.database_bytes,
    )
    assert counts.database_bytes > 10_000


async def test_prometheus_reads_every_status_and_since_when_one_is_due(database: Database, clock: HandClock) -> None:
    accepted_at = clock.now()
    await accept(database, clock, *(said(f"parcel {number}") for number in range(9)))
    clock.turn(20)
    done, skipped, failed, backing_off, *_ = await claim(database, clock, limit=6)
    outcomes = (
        Completed(done, analysis_of("done"), "grok-4.3", tallies=(Tally.ASKED,)),
        Skipped(skipped, "link_only"),
        Failed(failed, "reply_invalid", "Not JSON."),
        Released(backing_off, clock.now() + timedelta(hours=1)),
    )
    await save(database, clock, *outcomes)

    counts = await count_for_scrape(database, clock)

    assert counts.by_status == {"pending": 4, "processing": 2, "completed": 1, "failed": 1, "skipped": 1}
    assert (counts.queue_depth, counts.oldest_due) == (6, accepted_at)
    assert (counts.tallies[Tally.ASKED], counts.tallies[Tally.SKIPPED]) == (1, 1)


async def test_for_prometheus_a_row_whose_lease_is_over_waits_like_any_other(
    database: Database, clock: HandClock
) -> None:
    await accept(database, clock, said("late"))
    await claim(database, clock)
    leased = (await count_for_scrape(database, clock)).by_status
    clock.turn(61)

    abandoned = (await count_for_scrape(database, clock)).by_status

    assert (leased["pending"], leased["processing"]) == (0, 1)
    assert (abandoned["pending"], abandoned["processing"]) == (1, 0)


async def test_a_poisoned_row_is_tallied_when_it_is_given_up(database: Database, clock: HandClock) -> None:
    await accept(database, clock, said("late"), said("fine"))
    [_, fine] = await claim(database, clock)
    await save(database, clock, Skipped(fine, "link_only"))
    before = (await count_for_scrape(database, clock)).tallies[Tally.POISON]
    for _ in range(store.MAX_RESCUES + 1):
        clock.turn(61)
        await claim(database, clock)

    counts = await count_for_scrape(database, clock)

    assert (before, counts.tallies[Tally.POISON], counts.by_status["failed"]) == (0, 1, 1)


@pytest.mark.parametrize(("asked", "deeper"), [(0, True), (4, True), (5, False), (6, False)])
async def test_a_queue_is_deeper_than_fewer_conversations_wait_or_are_in_work(
    database: Database, clock: HandClock, asked: int, *, deeper: bool
) -> None:
    await accept(database, clock, *(said(f"parcel {number}") for number in range(7)))
    done, skipped, *_ = await claim(database, clock, limit=4)
    await save(database, clock, Completed(done, analysis_of("done"), "grok-4.3"), Skipped(skipped, "link_only"))

    assert await database.read(partial(queries.is_deeper_than, conversations=asked)) == deeper
