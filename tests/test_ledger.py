"""The account of the calls to Grok: never past a day's budget, whatever calls end in and whoever is killed."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from account import FreeCalls, next_midnight
from database import Database, WriteSession
from errors import DatabaseBusy, GrokBudgetReached, GrokLaneShut, GrokTooDear, StorageFull
from grok_client import Cost, PlannedCall
from models import GrokCall, GrokUsage
from tests.books import CALL, MOST_TICKS, Books, usage_of
from tests.harness import HandClock
from xai import TICKS_PER_USD

ONE = replace(CALL, conversations=1)


async def _rest_not(_seconds: float) -> None:
    pass


@pytest.fixture
def books(database: Database, clock: HandClock) -> Books:
    return Books(database, clock)


# One call


async def test_a_call_is_reserved_at_the_most_that_it_may_cost(books: Books) -> None:
    await books.ledger().reserve(CALL)

    assert (await books.reserved_ticks(), await books.spent()) == (MOST_TICKS, {})


async def test_a_call_is_charged_with_what_it_used(books: Books) -> None:
    ledger = books.ledger()
    await ledger.settle(await ledger.reserve(CALL), CALL, usage_of(800, 100, cached=600))

    assert await books.reserved_ticks() == 0
    assert await books.spent() == {
        "calls": 1,
        "unreported_calls": 0,
        "conversations": 3,
        "cost_ticks": 200 * 12_500 + 600 * 2_000 + 100 * 25_000,
    }


async def test_xais_own_bill_is_what_is_charged(books: Books) -> None:
    ledger = books.ledger()
    await ledger.settle(await ledger.reserve(CALL), CALL, usage_of(800, 100, ticks=37_756))

    assert await books.cost_ticks() == 37_756


async def test_a_call_that_was_answered_with_an_error_costs_nothing(books: Books) -> None:
    ledger = books.ledger()
    await ledger.settle(await ledger.reserve(CALL), CALL, "free")

    assert (await books.reserved_ticks(), await books.spent()) == (0, {})


async def test_a_call_that_nobody_tells_of_costs_all_that_was_reserved(books: Books) -> None:
    ledger = books.ledger()
    await ledger.settle(await ledger.reserve(CALL), CALL, "unknown")

    assert await books.spent() == {
        "calls": 1,
        "unreported_calls": 1,
        "conversations": 3,
        "cost_ticks": MOST_TICKS,
    }


@pytest.mark.parametrize("twice", ["free", "unknown"])
async def test_a_call_is_charged_once(books: Books, twice: Cost) -> None:
    ledger = books.ledger()
    number = await ledger.reserve(CALL)
    for cost in (usage_of(800, 100, ticks=5), twice, usage_of(800, 100, ticks=7)):
        await ledger.settle(number, CALL, cost)

    assert (await books.spent())["calls"] == 1
    assert await books.cost_ticks() == 5


async def test_a_day_is_summed_up_by_model(books: Books) -> None:
    ledger = books.ledger()
    for model in ("grok-4.3", "grok-4.7", "grok-4.3"):
        call = PlannedCall(model, 1000, 320, 1)
        await ledger.settle(await ledger.reserve(call), call, usage_of(10, 1))

    rows = await books.database.read(lambda session: session.execute(select(GrokUsage)).all())
    assert {row.model: row.calls for row in rows} == {"grok-4.3": 2, "grok-4.7": 1}


async def test_a_call_that_costs_nothing_by_the_list_is_still_an_open_account(books: Books) -> None:
    await books.ledger().reserve(PlannedCall("grok-4.3", 0, 0, 1))

    assert await books.reserved_ticks() == 1
    assert await books.take_over() == 1


async def test_what_a_call_used_is_counted_for_operators(books: Books) -> None:
    ledger = books.ledger()
    await ledger.settle(await ledger.reserve(CALL), CALL, usage_of(800, 100, cached=600, ticks=TICKS_PER_USD // 8))

    lines = books.metrics.render().decode().splitlines()
    assert "insights_estimated_cost_usd_total 0.125" in lines
    assert 'insights_estimated_tokens_total{kind="cached"} 600.0' in lines
    assert 'insights_estimated_tokens_total{kind="uncached"} 200.0' in lines


class Locked(Database):
    """Takes reservations and then nothing more."""

    error: Exception | None = None

    async def write(self, unit: Callable[[WriteSession], Any], *, alone: bool = False) -> Any:
        if self.error is not None:
            raise self.error
        return await super().write(unit, alone=alone)


@pytest.mark.unit
@pytest.mark.parametrize("error", [DatabaseBusy("locked"), StorageFull("full")], ids=["locked", "full"])
@pytest.mark.parametrize("cost", ["free", "unknown", usage_of(1, 1)], ids=["free", "unknown", "used"])
async def test_a_database_that_takes_nothing_leaves_the_account_open_and_is_no_error(
    sqlite_url: str, clock: HandClock, error: Exception, cost: Cost
) -> None:
    database = Locked.connect(sqlite_url)
    assert isinstance(database, Locked)
    await database.open()
    books = Books(database, clock)
    ledger = books.ledger()
    number = await ledger.reserve(CALL)

    database.error = error
    await ledger.settle(number, CALL, cost)

    assert await books.reserved_ticks() == MOST_TICKS
    await database.close()


@pytest.mark.unit
async def test_the_offline_analyzers_calls_are_free() -> None:
    free = FreeCalls()
    number = await free.reserve(replace(CALL, prompt_bytes=10**12))

    await free.settle(number, CALL, "unknown")

    assert number == 0


# The budget of a day


async def test_a_call_that_may_pass_the_budget_is_not_made(books: Books) -> None:
    ledger = books.ledger(budget_ticks=2 * MOST_TICKS)
    for _ in range(2):
        await ledger.settle(await ledger.reserve(CALL), CALL, "unknown")

    with pytest.raises(GrokBudgetReached) as caught:
        await ledger.reserve(ONE)

    assert caught.value.retry_after_s == 12 * 3600 + 1  # the clock's day is at noon
    assert await books.reserved_ticks() == 0


async def test_the_last_tick_of_a_budget_may_be_spent(books: Books) -> None:
    ledger = books.ledger(budget_ticks=MOST_TICKS)

    await ledger.settle(await ledger.reserve(CALL), CALL, "unknown")

    assert await books.cost_ticks() == MOST_TICKS


async def test_one_tick_less_is_too_little(books: Books) -> None:
    with pytest.raises(GrokBudgetReached, match="One call may cost"):
        await books.ledger(budget_ticks=MOST_TICKS - 1).reserve(ONE)


async def test_a_pack_that_does_not_fit_is_to_be_split(books: Books) -> None:
    with pytest.raises(GrokTooDear):
        await books.ledger(budget_ticks=MOST_TICKS - 1).reserve(CALL)


async def test_a_rate_that_others_use_up_is_not_waited_for_for_ever(books: Books) -> None:
    await books.ledger(calls=1).reserve(CALL)

    with pytest.raises(GrokLaneShut):
        await books.ledger(calls=1, sleep=_rest_not).reserve(CALL)


async def test_a_budget_of_nothing_makes_no_calls(books: Books) -> None:
    with pytest.raises(GrokBudgetReached):
        await books.ledger(budget_ticks=0).reserve(ONE)


async def test_what_calls_in_flight_hold_may_come_back_soon(books: Books) -> None:
    ledger = books.ledger(budget_ticks=2 * MOST_TICKS - 1)
    number = await ledger.reserve(CALL)

    with pytest.raises(GrokBudgetReached) as caught:
        await ledger.reserve(CALL)
    await ledger.settle(number, CALL, usage_of(10, 1))

    assert caught.value.retry_after_s == 2
    assert await ledger.reserve(CALL) > number


async def test_a_new_day_has_a_budget_of_its_own(books: Books) -> None:
    ledger = books.ledger(budget_ticks=MOST_TICKS)
    await ledger.settle(await ledger.reserve(CALL), CALL, "unknown")

    await books.let_pass(timedelta(days=1))

    assert await ledger.reserve(CALL) > 0


async def test_a_call_over_midnight_is_charged_to_the_day_it_was_made_on(books: Books) -> None:
    ledger = books.ledger(budget_ticks=MOST_TICKS)
    number = await ledger.reserve(CALL)
    await books.let_pass(timedelta(days=1))
    await ledger.settle(number, CALL, "unknown")

    await ledger.reserve(CALL)

    assert (await books.cost_ticks(), await books.reserved_ticks()) == (MOST_TICKS, MOST_TICKS)


async def test_asking_about_the_key_is_free_even_when_all_is_spent(books: Books) -> None:
    ledger = books.ledger(budget_ticks=0)

    number = await ledger.reserve(PlannedCall("grok-4.3", 0, 0, conversations=0))
    await ledger.settle(number, CALL, "free")

    assert await books.spent() == {}


async def test_without_a_budget_there_is_no_end(books: Books) -> None:
    ledger = books.ledger()
    for _ in range(20):
        await ledger.settle(await ledger.reserve(CALL), CALL, usage_of(1, 1, ticks=10**12))

    assert await books.cost_ticks() == 20 * 10**12


async def test_what_was_reserved_by_one_that_died_is_charged_in_full(books: Books) -> None:
    await books.ledger().reserve(CALL)
    await books.ledger().reserve(CALL)

    abandoned = await books.take_over()

    assert abandoned == 2
    assert await books.spent() == {
        "calls": 2,
        "unreported_calls": 2,
        "conversations": 6,
        "cost_ticks": 2 * MOST_TICKS,
    }
    assert await books.take_over() == 0


async def test_late_news_of_a_call_that_was_charged_changes_nothing(books: Books) -> None:
    ledger = books.ledger()
    number = await ledger.reserve(CALL)
    await books.take_over()

    await ledger.settle(number, CALL, usage_of(1, 1))
    await ledger.settle(number, CALL, "free")

    assert await books.cost_ticks() == MOST_TICKS


@pytest.mark.unit
@pytest.mark.parametrize(
    ("now", "midnight"),
    [
        (datetime(2026, 3, 1, 12, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC)),
        (datetime(2026, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
        (datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC)),
    ],
)
def test_a_day_ends_at_midnight_utc(now: datetime, midnight: datetime) -> None:
    assert next_midnight(now) == midnight


# The window that processes share


async def test_a_call_waits_while_others_on_the_same_database_fill_the_window(books: Books) -> None:
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)
        await books.let_pass(timedelta(seconds=0.34))

    before_restart = books.ledger(calls=2)
    await before_restart.reserve(CALL)
    await before_restart.reserve(CALL)
    await books.ledger(calls=2, sleep=wait).reserve(CALL)

    assert len(waits) == 4  # the window, and 0.2 s for calls that are on their way
    assert max(waits) < 0.1


@pytest.mark.parametrize("cost", ["free", "unknown", usage_of(1, 1)], ids=["free", "unknown", "used"])
async def test_a_call_that_has_ended_still_counts_in_its_window(books: Books, cost: Cost) -> None:
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)
        await books.let_pass(timedelta(seconds=1.23))

    ledger = books.ledger(calls=1)
    await ledger.settle(await ledger.reserve(CALL), CALL, cost)
    await books.ledger(calls=1, sleep=wait).reserve(CALL)

    assert len(waits) == 1


async def test_calls_of_long_ago_are_forgotten(books: Books) -> None:
    ledger = books.ledger()
    books.clock.turn((datetime.now(UTC) - books.clock.now()).total_seconds())
    for _ in range(3):
        await ledger.settle(await ledger.reserve(CALL), CALL, "free")
    open_number = await ledger.reserve(CALL)
    await books.let_pass(timedelta(minutes=2))
    await ledger.settle(await ledger.reserve(CALL), CALL, "free")

    rows = await books.database.read(lambda session: session.execute(select(GrokCall.id)).all())
    assert len(rows) == 2
    assert open_number in {row.id for row in rows}


# Bills that do not fit the reservation


async def test_after_a_bill_above_its_reservation_so_much_more_is_reserved(books: Books) -> None:
    ledger = books.ledger()
    await ledger.settle(await ledger.reserve(CALL), CALL, usage_of(10, 1, ticks=3 * MOST_TICKS))

    await ledger.reserve(CALL)

    assert await books.reserved_ticks() == 3 * MOST_TICKS


async def test_more_tokens_than_bytes_were_sent_are_not_believed(books: Books) -> None:
    ledger = books.ledger()

    await ledger.settle(await ledger.reserve(CALL), CALL, usage_of(CALL.prompt_bytes + 1, 1))

    spent = await books.spent()
    assert (spent["unreported_calls"], spent["cost_ticks"]) == (1, MOST_TICKS)


async def test_a_dear_text_leaves_the_day_to_those_that_still_fit(books: Books) -> None:
    dear = replace(ONE, prompt_bytes=1_000_000)

    with pytest.raises(GrokTooDear):
        await books.ledger(budget_ticks=20 * MOST_TICKS).reserve(dear)

    assert await books.ledger(budget_ticks=20 * MOST_TICKS).reserve(ONE)


# A disk that is slow


class SlowDatabase(Database):
    """Its first writes take a second each, on the clock that the test turns."""

    clock: HandClock
    slow: int

    async def write(self, unit: Callable[[WriteSession], Any], *, alone: bool = False) -> Any:
        value = await super().write(unit, alone=alone)
        if self.slow:
            self.slow -= 1
            self.clock.turn(1)
        return value


@pytest.mark.parametrize(
    ("slow", "reservations"),
    [
        pytest.param(1, 2, id="once slow, it is made anew, so that replicas count the call from when it is sent"),
        pytest.param(1_000, 4, id="always slow, calls go all the same"),
    ],
)
async def test_a_reservation_that_took_long_is_made_anew(
    sqlite_url: str, clock: HandClock, slow: int, reservations: int
) -> None:
    database = SlowDatabase.connect(sqlite_url)
    assert isinstance(database, SlowDatabase)
    database.clock, database.slow = clock, slow
    await database.open()
    books = Books(database, clock)

    await books.ledger().reserve(CALL)

    made = await database.read(lambda session: len(session.execute(select(GrokCall)).all()))
    assert (made, await books.reserved_ticks()) == (reservations, MOST_TICKS)
    await database.close()
