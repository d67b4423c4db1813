"""Topics that are renamed or merged: the past is told under the new ids, as if it had always been so."""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial

import pytest
from sqlalchemy import select

import store
from database import Database, WriteSession
from models import InsightRow, InsightTopic
from parameters import InsightQuery
from queries.counting import count_insights
from store.renaming import renamed_topics
from tests.histories import HISTORIES, NOW, TOPICS, Event, Place, counters, draw_events, grow, live
from tests.test_counting import matches, recount
from tests.test_upkeep import make_upkeep

NAMES = {"refunds": "money", "app_crashes": "delivery_problems", "gone": "money"}


def event(*topics: str) -> Event:
    return Event(NOW, -0.5, 0.9, topics)


def rename_all(session: WriteSession, names: Mapping[str, str], *, limit: int = 3) -> int:
    renamed = 0
    while changed := store.rename_topics(session, names=names, limit=limit):
        assert changed <= limit
        renamed += changed
    return renamed


def told(session: WriteSession) -> list[tuple[datetime, list[str]]]:
    """Time and topics of every insight, the oldest first."""
    rows = session.execute(select(InsightRow.timestamp, InsightRow.clusters)).all()
    return sorted((row.timestamp, row.clusters) for row in rows)


def walked(session: WriteSession) -> Counter[tuple[datetime, str]]:
    """By which time and topic insights are found."""
    return Counter((row.timestamp, row.topic) for row in session.execute(select(InsightTopic.__table__)))


def rename_event(event: Event, names: Mapping[str, str]) -> Event:
    """What the history tells afterwards, worked out step by step; only who had an old name is touched."""
    topics: list[str] = []
    for topic in event.topics:
        new = names.get(topic, topic)
        if new not in topics:
            topics.append(new)
    if set(event.topics) & set(names) and len(topics) > 1 and "other" in topics:
        topics.remove("other")
    return replace(event, topics=tuple(topics))


def draw_names(dice: random.Random) -> dict[str, str]:
    """Some topics get a new name, some go into one that is there; `other` can only take in."""
    old = dice.sample([topic for topic in TOPICS if topic != "other"], dice.randrange(1, 4))
    targets = ["new", "newer", *(topic for topic in TOPICS if topic not in old)]
    return {topic: dice.choice(targets) for topic in old}


def check_history(session: WriteSession, *, seed: int) -> None:
    dice = random.Random(seed)
    place = Place.draw(dice)
    left = live(session, draw_events(dice, place), dice=dice)
    for _ in range(3):
        names = draw_names(dice)
        rename_all(session, names, limit=dice.randrange(1, 8))
        left = [rename_event(one, names) for one in left]
        left += grow(session, draw_events(dice, place), dice=dice)
    assert counters(session) == recount(left), (seed, left)
    assert told(session) == sorted((one.timestamp, list(one.topics)) for one in left), (seed, left)
    assert walked(session) == Counter((one.timestamp, topic) for one in left for topic in one.topics), (seed, left)
    wanted = {"topic": dice.sample([*TOPICS, "new"], 2), "end_time": place.moment(dice)}
    found = count_insights(session, InsightQuery.model_validate(wanted))
    assert found == sum(matches(one, wanted) for one in left), (seed, left)


@pytest.mark.slow
async def test_what_is_told_after_renames_and_merges_is_what_was_there(database: Database) -> None:
    for seed in range(-(-HISTORIES // 10)):  # each is three histories
        await database.write(partial(check_history, seed=seed))


@pytest.mark.unit
@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(["praise"], ["praise"], id="nothing to rename"),
        pytest.param(["refunds"], ["money"], id="renamed"),
        pytest.param(["praise", "refunds", "other_things"], ["praise", "money", "other_things"], id="in its place"),
        pytest.param(["refunds", "praise", "gone"], ["money", "praise"], id="merged, in the place of the first"),
        pytest.param(["money", "refunds"], ["money"], id="merged into one that is there"),
        pytest.param(["retired"], ["other"], id="retired"),
        pytest.param(["retired", "praise"], ["praise"], id="retired beside another"),
    ],
)
def test_topics_keep_their_order_and_none_is_there_twice(before: list[str], after: list[str]) -> None:
    assert renamed_topics(before, {**NAMES, "retired": "other"}) == after


async def test_so_many_at_a_time_are_renamed_and_then_none(database: Database) -> None:
    unit = partial(store.rename_topics, names=NAMES, limit=4)
    await database.write(lambda session: live(session, [*[event("refunds", "gone")] * 5, event("praise")]))

    changed = [await database.write(unit) for _ in range(5)]

    assert sum(changed) == 5
    assert max(changed) <= 4
    assert changed[-1] == 0


async def test_two_replicas_that_rename_at_once_count_nothing_twice(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upkeep._MOST_RENAMED", 2)
    events = [event("refunds", "praise"), event("app_crashes", "delivery_problems")] * 20
    await database.write(lambda session: live(session, events))
    replica = Database.connect(database_url)
    await replica.open()

    await asyncio.gather(
        make_upkeep(database, renamed=NAMES).rename_topics(), make_upkeep(replica, renamed=NAMES).rename_topics()
    )
    await replica.close()
    await make_upkeep(database, renamed=NAMES).rename_topics()  # what one of them left to the other

    assert await database.write(counters) == recount([rename_event(one, NAMES) for one in events])


async def test_all_are_renamed_however_many_there_are(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upkeep._MOST_RENAMED", 2)
    await database.write(lambda session: live(session, [event("refunds", "praise")] * 7))

    await make_upkeep(database, renamed=NAMES).rename_topics()

    assert await database.write(told) == [(NOW, ["money", "praise"])] * 7


async def test_without_former_ids_nothing_is_written(database: Database) -> None:
    await database.close()

    await make_upkeep(database, renamed={}).rename_topics()  # a write would be refused now
