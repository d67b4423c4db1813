"""Topics and how often they were found, against counting insight by insight over made-up histories."""

import random
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

import pytest

from answers import TopicCounts
from database import Database, WriteSession
from parameters import TopicsQuery
from queries import count_topics
from queries.counting import count_alone
from schemas import Tally
from store import add_tallies
from tests.histories import HISTORIES, NOW, TICK, Event, Place, draw_events, live
from tests.test_trends import feelings
from topics import Topic

LISTED = [
    Topic("praise", "Praise", "Thanks.", ()),
    Topic("refunds", "Refunds", "Money back.", ()),
    Topic("other", "Other", "None of the above.", ()),
]


def read(session: WriteSession, **wanted: Any) -> TopicCounts:
    return count_topics(session, TopicsQuery(**wanted), topics=LISTED)


def within(events: Sequence[Event], start: datetime | None, end: datetime | None) -> list[Event]:
    return [e for e in events if (start is None or e.timestamp >= start) and (end is None or e.timestamp < end)]


def expected(events: Sequence[Event]) -> dict[str, Any]:
    """Every topic that is listed or was found, by its id, with what its insights feel."""
    ids = {topic.id for topic in LISTED}.union(*(event.topics for event in events))
    return {topic: feelings([event for event in events if topic in event.topics]) for topic in ids}


def shown(told: TopicCounts) -> dict[str, Any]:
    named = {"id", "name", "description", "listed"}
    return {topic["id"]: {key: value for key, value in topic.items() if key not in named} for topic in told["topics"]}


def check_history(session: WriteSession, *, seed: int) -> None:
    dice = random.Random(seed)
    place = Place.draw(dice)
    left = live(session, draw_events(dice, place), dice=dice)
    for _ in range(6):
        start, end = sorted([place.moment(dice), place.moment(dice)])
        wanted = {name: at for name, at in (("start_time", start), ("end_time", end)) if dice.random() < 0.6}
        told = read(session, **wanted)
        asked = within(left, wanted.get("start_time"), wanted.get("end_time"))
        assert shown(told) == expected(asked), (seed, wanted, left)
        untagged = sum(event.topics == ("other",) for event in asked)
        share = round(untagged / len(asked), 4) if asked else None
        assert told["totals"]["insights"] == len(asked), (seed, wanted, left)
        assert told["totals"]["untagged"] == {"count": untagged, "share": share}, (seed, wanted, left)


@pytest.mark.slow
async def test_topics_are_counted_as_they_are_there(database: Database) -> None:
    for seed in range(-(-HISTORIES // 10)):
        await database.write(partial(check_history, seed=seed))


def event(*topics: str, at: datetime = NOW) -> Event:
    return Event(at, -0.5, 0.9, topics)


async def test_those_of_the_file_come_first_and_others_by_how_many_they_are(database: Database) -> None:
    found = [event("refunds"), event("b"), event("a"), event("c"), event("c", "a"), event("c", "other")]
    await database.write(lambda session: live(session, found))

    topics = (await database.write(read))["topics"]

    assert [(topic["id"], topic["listed"], topic["count"]) for topic in topics] == [
        *(("praise", True, 0), ("refunds", True, 1), ("other", True, 1)),
        *(("c", False, 3), ("a", False, 2), ("b", False, 1)),
    ]
    assert [topic["name"] for topic in topics] == ["Praise", "Refunds", "Other", None, None, None]


async def test_without_insights_every_topic_is_there_with_nothing(database: Database) -> None:
    told = await database.write(read)

    assert [topic["count"] for topic in told["topics"]] == [0, 0, 0]
    assert told["totals"] == {"insights": 0, "untagged": {"count": 0, "share": None}, "unlisted_labels": 0}
    assert told["period"] == {"start_time": None, "end_time": None}


async def test_labels_that_were_no_topic_are_told(database: Database) -> None:
    await database.write(partial(add_tallies, counts={Tally.UNLISTED: 3}))

    assert (await database.write(read))["totals"]["unlisted_labels"] == 3


@pytest.mark.parametrize(
    ("start", "end", "alone"),
    [
        pytest.param(None, None, 3, id="ever"),
        pytest.param(NOW, None, 2, id="from its moment on"),
        pytest.param(NOW + TICK, None, 1, id="after it"),
        pytest.param(None, NOW, 1, id="until it"),
        pytest.param(NOW, NOW + TICK, 1, id="that moment alone"),
        pytest.param(NOW, NOW, 0, id="no time at all"),
    ],
)
async def test_an_insight_with_two_topics_has_neither_alone(
    database: Database, start: datetime | None, end: datetime | None, alone: int
) -> None:
    moments = [NOW - TICK, NOW, NOW + TICK]
    events = [event(*topics, at=at) for at in moments for topics in (("other",), ("other", "praise"), ("praise",))]
    await database.write(lambda session: live(session, events))

    assert await database.read(partial(count_alone, topic="other", start=start, end=end)) == alone
