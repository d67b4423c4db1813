"""The account of calls on both databases: nothing is sent without a reservation, and no budget is ever passed."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import func, select

import queries
import store
from database import Database
from models import GrokCall
from queries import OperatorCounts
from schemas import Tally
from store import BudgetReached, Reservation, Reserved, Settlement, WindowFull
from tests.harness import HandClock

WANTED = Reservation(
    caller="this one",
    own_calls=1,
    model="grok-4.3",
    conversations=5,
    most_ticks=100,
    budget_ticks=1_000,
    calls_per_window=10,
    window=timedelta(hours=1),
)
DAY_S = 86_400


async def reserve(database: Database, clock: HandClock, wanted: Reservation = WANTED) -> Any:
    return await database.write(partial(store.reserve_call, wanted=wanted, now=clock.now()))


async def reserve_number(database: Database, clock: HandClock, wanted: Reservation = WANTED) -> int:
    answer = await reserve(database, clock, wanted)
    assert isinstance(answer, Reserved)
    return answer.number


async def settle(database: Database, clock: HandClock, number: int, settlement: Settlement) -> int:
    return await database.write(partial(store.settle_call, number=number, settlement=settlement, now=clock.now()))


async def cancel(database: Database, clock: HandClock, number: int) -> None:
    await database.write(partial(store.cancel_call, number=number, now=clock.now()))


async def day_of_calls(database: Database, clock: HandClock) -> str:
    """PostgreSQL enters calls by its own clock: replicas may have different ones."""
    day = await database.read(lambda session: session.scalar(select(func.max(GrokCall.day))))
    return day or clock.now().date().isoformat()


async def account(database: Database, clock: HandClock) -> OperatorCounts:
    day = await day_of_calls(database, clock)
    return await database.read(partial(queries.count_for_operator, day=day))


async def turn_calls(database: Database, clock: HandClock, seconds: float) -> None:
    """Let time pass, for calls that PostgreSQL has entered by its own clock too."""
    clock.turn(seconds)
    if database.dialect == "postgresql":
        earlier = f"UPDATE grok_calls SET called_at = called_at - interval '{seconds} seconds'"
        await database.write(lambda session: session.exec_driver_sql(earlier).close())


async def now_of(database: Database, clock: HandClock) -> datetime:
    if database.dialect == "sqlite":
        return clock.now()
    return await database.read(lambda session: session.execute(select(func.clock_timestamp())).scalar_one())


# Reservations


async def test_a_reservation_is_entered_before_the_call_is_sent(database: Database, clock: HandClock) -> None:
    await reserve_number(database, clock)

    counts = await account(database, clock)
    assert (counts.reserved_ticks, counts.usage) == (100, [])


async def test_reservations_are_numbered_apart(database: Database, clock: HandClock) -> None:
    numbers = {await reserve_number(database, clock) for _ in range(5)}

    assert len(numbers) == 5


async def test_what_is_reserved_and_what_is_spent_stay_within_the_budget_together(
    database: Database, clock: HandClock
) -> None:
    spent = await reserve_number(database, clock)
    await settle(database, clock, spent, Settlement(ticks=350))
    for _ in range(6):
        await reserve_number(database, clock)

    assert await reserve(database, clock) == BudgetReached(for_today=False)
    assert isinstance(await reserve(database, clock, replace(WANTED, most_ticks=50)), Reserved)
    assert isinstance(await reserve(database, clock, replace(WANTED, most_ticks=1)), BudgetReached)


async def test_a_call_that_would_not_fit_into_an_idle_day_must_wait_for_the_next(
    database: Database, clock: HandClock
) -> None:
    assert await reserve(database, clock, replace(WANTED, most_ticks=1_001)) == BudgetReached(for_today=True)

    number = await reserve_number(database, clock, replace(WANTED, most_ticks=1_000))
    await settle(database, clock, number, Settlement(ticks=950))
    assert await reserve(database, clock) == BudgetReached(for_today=True)


async def test_without_a_budget_nothing_is_too_dear(database: Database, clock: HandClock) -> None:
    assert isinstance(await reserve(database, clock, replace(WANTED, budget_ticks=None, most_ticks=10**15)), Reserved)


async def test_a_budget_of_nothing_lets_nothing_pass(database: Database, clock: HandClock) -> None:
    assert await reserve(database, clock, replace(WANTED, budget_ticks=0)) == BudgetReached(for_today=True)


async def test_no_more_calls_are_entered_than_the_window_takes(database: Database, clock: HandClock) -> None:
    wanted = replace(WANTED, calls_per_window=3)

    answers = [await reserve(database, clock, replace(wanted, caller=f"caller {number}")) for number in range(5)]

    assert [type(answer) for answer in answers] == [Reserved, Reserved, Reserved, WindowFull, WindowFull]


async def test_a_callers_own_calls_count_as_it_says_for_it_knows_when_they_were_sent(
    database: Database, clock: HandClock
) -> None:
    wanted = replace(WANTED, calls_per_window=3)
    for _ in range(3):
        await reserve_number(database, clock, wanted)

    assert isinstance(await reserve(database, clock, replace(wanted, own_calls=3)), Reserved)
    assert isinstance(await reserve(database, clock, replace(wanted, own_calls=4)), WindowFull)
    assert isinstance(await reserve(database, clock, replace(wanted, caller="another")), WindowFull)


async def test_calls_of_before_the_window_leave_room_settled_or_not(database: Database, clock: HandClock) -> None:
    wanted = replace(WANTED, calls_per_window=2, window=timedelta(seconds=30))
    first = await reserve_number(database, clock, replace(wanted, caller="another"))
    await reserve_number(database, clock, replace(wanted, caller="a third"))
    await settle(database, clock, first, Settlement(ticks=1))
    assert isinstance(await reserve(database, clock, wanted), WindowFull)

    await turn_calls(database, clock, 31)

    assert isinstance(await reserve(database, clock, wanted), Reserved)


async def test_many_who_reserve_at_once_never_pass_the_budget(database_url: str, clock: HandClock) -> None:
    databases = [Database.connect(database_url) for _ in range(3)]
    for each in databases:
        await each.open()

    wanted = replace(WANTED, calls_per_window=1_000)
    answers = await asyncio.gather(*(reserve(databases[number % 3], clock, wanted) for number in range(60)))
    counts = await account(databases[0], clock)
    for each in databases:
        await each.close()

    assert sum(isinstance(answer, Reserved) for answer in answers) == 10
    assert counts.reserved_ticks == 1_000


@pytest.mark.unit
async def test_yesterdays_spending_leaves_today_alone(sqlite_url: str, clock: HandClock) -> None:
    database = Database.connect(sqlite_url)
    await database.open()
    await settle(database, clock, await reserve_number(database, clock), Settlement(ticks=1_000))
    assert isinstance(await reserve(database, clock), BudgetReached)

    clock.turn(DAY_S)
    today = await reserve(database, clock)
    await database.close()

    assert isinstance(today, Reserved)


# Settlements


async def test_a_settled_call_is_charged_at_what_it_cost(database: Database, clock: HandClock) -> None:
    number = await reserve_number(database, clock)
    used = Settlement(uncached_tokens=10, cached_tokens=20, output_tokens=30, reasoning_tokens=40, ticks=77)

    charged = await settle(database, clock, number, used)

    counts = await account(database, clock)
    [row] = counts.usage
    assert (charged, counts.reserved_ticks) == (77, 0)
    assert (row.calls, row.unreported_calls, row.conversations, row.cost_ticks) == (1, 0, 5, 77)
    assert (row.uncached_tokens, row.cached_tokens, row.output_tokens, row.reasoning_tokens) == (10, 20, 30, 40)


async def test_a_call_of_which_nobody_says_what_it_cost_is_charged_in_full(
    database: Database, clock: HandClock
) -> None:
    charged = await settle(database, clock, await reserve_number(database, clock), Settlement())

    [row] = (await account(database, clock)).usage
    assert (charged, row.cost_ticks, row.unreported_calls) == (100, 100, 1)


async def test_a_call_is_settled_once(database: Database, clock: HandClock) -> None:
    number = await reserve_number(database, clock)

    charged = [await settle(database, clock, number, Settlement(ticks=7)) for _ in range(3)]

    [row] = (await account(database, clock)).usage
    assert (charged, row.calls, row.cost_ticks) == ([7, 0, 0], 1, 7)


async def test_a_call_that_was_cancelled_costs_nothing_and_is_not_settled_later(
    database: Database, clock: HandClock
) -> None:
    number = await reserve_number(database, clock)

    await cancel(database, clock, number)
    charged = await settle(database, clock, number, Settlement(ticks=7))

    counts = await account(database, clock)
    assert (charged, counts.reserved_ticks, counts.usage) == (0, 0, [])


async def test_calls_add_up_by_day_and_model(database: Database, clock: HandClock) -> None:
    for model, ticks in (("grok-4.3", 5), ("grok-4.5", 7), ("grok-4.3", 11)):
        number = await reserve_number(database, clock, replace(WANTED, model=model))
        await settle(database, clock, number, Settlement(output_tokens=1, ticks=ticks))

    rows = (await account(database, clock)).usage
    assert [(row.model, row.calls, row.output_tokens, row.cost_ticks) for row in rows] == [
        ("grok-4.3", 2, 2, 16),
        ("grok-4.5", 1, 1, 7),
    ]


async def test_settled_calls_are_forgotten_after_a_minute_and_open_ones_are_not(
    database: Database, clock: HandClock
) -> None:
    settled, _still_open = await reserve_number(database, clock), await reserve_number(database, clock)
    await settle(database, clock, settled, Settlement(ticks=1))
    await turn_calls(database, clock, 61)

    await database.write(partial(store.cancel_call, number=0, now=await now_of(database, clock)))

    kept = await database.read(lambda session: session.scalars(select(GrokCall.id)).all())
    assert kept == [_still_open]


# What a dead owner left


async def test_what_a_dead_owner_reserved_is_charged_in_full_and_once(database: Database, clock: HandClock) -> None:
    for _ in range(3):
        await reserve_number(database, clock)
    await turn_calls(database, clock, 120)
    alive = await reserve_number(database, clock)
    dead = await now_of(database, clock) - timedelta(seconds=60)

    charged = [await database.write(partial(store.charge_abandoned, called_before=dead)) for _ in range(2)]

    counts = await account(database, clock)
    [row] = counts.usage
    assert charged == [3, 0]
    assert (row.calls, row.unreported_calls, row.conversations, row.cost_ticks) == (3, 3, 15, 300)
    assert counts.reserved_ticks == 100
    assert await settle(database, clock, alive, Settlement(ticks=1)) == 1


# Tallies


async def add(database: Database, counts: dict[str, int]) -> None:
    await database.write(partial(store.add_tallies, counts=counts))


async def test_tallies_add_up(database: Database, clock: HandClock) -> None:
    await add(database, {Tally.ASKED: 3})
    await add(database, {Tally.ASKED: 4, Tally.CACHED: 1})
    await add(database, {})

    tallies = (await account(database, clock)).tallies
    assert {name: count for name, count in tallies.items() if count} == {Tally.ASKED: 7, Tally.CACHED: 1}
    assert set(tallies) == set(Tally)


async def test_tallies_of_several_at_once_are_all_counted(database_url: str, clock: HandClock) -> None:
    databases = [Database.connect(database_url) for _ in range(3)]
    for each in databases:
        await each.open()

    every: Sequence[dict[str, int]] = [{Tally.ASKED: 1, Tally.CACHED: 2}, {Tally.CACHED: 2, Tally.ASKED: 1}]
    await asyncio.gather(*(add(databases[number % 3], every[number % 2]) for number in range(60)))
    tallies = (await account(databases[0], clock)).tallies
    for each in databases:
        await each.close()

    assert (tallies[Tally.ASKED], tallies[Tally.CACHED]) == (60, 120)
