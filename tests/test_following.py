"""What a stream follows: every insight once and in order, on both dialects, whatever is seen late, missed or erased."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any

import psycopg
import pytest

import queries
from database import Database, ReadSession, WriteSession
from parameters import EventQuery
from queries import Followed
from queries.following import GAP_FILLS_WITHIN, MOST_A_TURN, MOST_MISSED
from tests.harness import HandClock
from tests.test_queries import draw, fill, is_wanted, numbers

FILTERS: list[dict[str, Any]] = [
    {"sentiment": "negative"},
    {"min_confidence": 0.85},
    {"topic": ["refunds"]},
    {"topic": ["refunds", "praise"], "sentiment": "positive", "min_confidence": 0.5},
]


async def follow(database: Database, clock: HandClock, after: int, **wanted: Any) -> Followed:
    query = EventQuery.model_validate(wanted)
    return await database.read(partial(queries.follow_insights, query=query, after=after, now=clock.now()))


async def begin(database: Database, clock: HandClock) -> int:
    return await database.read(partial(queries.newest_position, now=clock.now()))


async def listen(database: Database, clock: HandClock, after: int, *, turns: int, **wanted: Any) -> list[int]:
    """The numbers of what is told in so many turns."""
    heard: list[int] = []
    for _ in range(turns):
        followed = await follow(database, clock, after, **wanted)
        heard += numbers([insight for _, insight in followed.insights])
        after = followed.position
    return heard


async def write(database: Database, clock: HandClock, count: int, *, first: int = 0) -> None:
    """So many insights, numbered from `first`; a claim takes at most 1,000."""
    known = draw(random.Random(first), first + count)[first:]
    for start in range(0, count, 1_000):
        await fill(database, clock, known[start : start + 1_000])


async def written(database: Database) -> list[int]:
    """The numbers of all there are, in the order of their ids."""

    def unit(session: ReadSession) -> list[int]:
        rows = session.exec_driver_sql("SELECT text FROM insights ORDER BY id")
        return [int(text.removeprefix("number ")) for (text,) in rows]

    return await database.read(unit)


async def erase(database: Database, *ids: int) -> None:
    def unit(session: WriteSession) -> None:
        for row_id in ids:
            session.exec_driver_sql(f"DELETE FROM insights WHERE id = {row_id}")

    await database.write(unit)


async def test_every_insight_is_told_once_in_the_order_written(database: Database, clock: HandClock) -> None:
    await write(database, clock, 250)

    assert await listen(database, clock, 0, turns=3) == await written(database)
    assert (await follow(database, clock, 0)).insights[0][0] == 1


async def test_a_turn_tells_no_more_than_its_share(database: Database, clock: HandClock) -> None:
    await write(database, clock, MOST_A_TURN + 1)

    first = await follow(database, clock, 0)

    assert (len(first.insights), first.position, first.skipped) == (MOST_A_TURN, MOST_A_TURN, 0)


@pytest.mark.parametrize("wanted", FILTERS, ids=", ".join)
async def test_the_filters_mean_what_they_mean_elsewhere(
    database: Database, clock: HandClock, wanted: dict[str, Any]
) -> None:
    known = draw(random.Random(7), 300)
    await fill(database, clock, known)
    matching = {one.number for one in known if is_wanted(one, wanted)}

    heard = await listen(database, clock, 0, turns=3, **wanted)

    assert heard == [number for number in await written(database) if number in matching] != []


async def test_what_does_not_match_moves_the_position_on(database: Database, clock: HandClock) -> None:
    await write(database, clock, 50)

    followed = await follow(database, clock, 0, topic=["nobody speaks of it"])

    assert (followed.insights, followed.position) == ([], 50)


async def test_who_missed_too_many_gets_the_newest_and_their_number(database: Database, clock: HandClock) -> None:
    await write(database, clock, MOST_MISSED + 1)

    followed = await follow(database, clock, 0)

    assert (followed.skipped, followed.start) == (MOST_MISSED + 1 - MOST_A_TURN, MOST_MISSED + 1 - MOST_A_TURN)
    assert numbers([insight for _, insight in followed.insights]) == (await written(database))[-MOST_A_TURN:]


async def test_a_stream_begins_with_what_comes_after_it(database: Database, clock: HandClock) -> None:
    await write(database, clock, 150)
    position = await begin(database, clock)
    await write(database, clock, 2, first=150)

    assert await listen(database, clock, position, turns=2) == (await written(database))[-2:]


async def test_a_gap_is_waited_for_until_it_can_fill_no_more(database: Database, clock: HandClock) -> None:
    await write(database, clock, 3)
    await erase(database, 2)
    before_it, behind_it = await written(database)

    assert await listen(database, clock, 0, turns=2) == [before_it]
    clock.turn(GAP_FILLS_WITHIN.total_seconds())
    assert await listen(database, clock, 0, turns=2) == [before_it, behind_it]


async def test_when_the_newest_are_erased_the_next_are_told_all_the_same(database: Database, clock: HandClock) -> None:
    await write(database, clock, 5)
    await erase(database, 3, 4, 5)
    position = (await follow(database, clock, 5)).position
    await write(database, clock, 2, first=5)
    clock.turn(GAP_FILLS_WITHIN.total_seconds())

    assert await listen(database, clock, position, turns=1) == (await written(database))[-2:]


async def test_the_counts_are_those_of_the_moment(database: Database, clock: HandClock) -> None:
    await write(database, clock, 3)

    counts = await database.read(partial(queries.count_live, now=clock.now()))

    assert (counts.queue_size, counts.oldest_due_at, counts.insights_total) == (0, None, 3)


@pytest.fixture
async def replicas(postgresql_url: str) -> AsyncGenerator[tuple[Database, psycopg.AsyncConnection]]:
    """The service's database, and a connection of another process, whose transaction lasts as long as it likes."""
    database = Database.connect(postgresql_url)
    await database.open()
    async with await psycopg.AsyncConnection.connect(postgresql_url) as other:
        yield database, other
    await database.close()


COPY_OF_THE_FIRST = """
    WITH source AS (INSERT INTO conversations (id, text, timestamp, status, created_at)
      SELECT 'conv_late', 'number 99', timestamp, 'completed', created_at FROM conversations LIMIT 1 RETURNING id)
    INSERT INTO insights (conversation_id, timestamp, text, sentiment, sentiment_score, clusters, confidence, reasoning,
      grok_analysis, model, created_at)
    SELECT source.id, timestamp, 'number 99', sentiment, sentiment_score, clusters, confidence, reasoning,
      grok_analysis, model, created_at FROM source, insights LIMIT 1
"""


@pytest.mark.integration
@pytest.mark.parametrize(
    ("ending", "told"),
    [pytest.param("commit", [99, 1], id="committed late"), pytest.param("rollback", [1], id="rolled back")],
)
async def test_a_replica_that_commits_later_than_its_id_is_not_missed(
    replicas: tuple[Database, psycopg.AsyncConnection], clock: HandClock, ending: str, told: list[int]
) -> None:
    database, other = replicas
    await write(database, clock, 1)
    await other.execute(COPY_OF_THE_FIRST)  # it has the id 2, which nobody else sees yet
    await write(database, clock, 1, first=1)

    position = (await follow(database, clock, 1)).position
    began = await begin(database, clock)
    end: Callable[[], Any] = getattr(other, ending)
    await asyncio.wait_for(end(), 5)
    clock.turn(0 if ending == "commit" else GAP_FILLS_WITHIN.total_seconds())

    assert (position, began) == (1, 1)
    assert await listen(database, clock, position, turns=2) == told
