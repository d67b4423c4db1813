"""Counts from the counters, against counting one by one over made-up histories."""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import combinations
from typing import Any, Literal

import pytest

from database import Database, WriteSession
from parameters import InsightFilter, InsightQuery, Position
from queries.counting import SPANS, Edge, Periods, count_insights, cut, single_topics
from queries.insights import INSIGHT_COLUMNS
from queries.paging import read_page
from schemas import Sentiment
from store.counting import Countable, change_counts, count_in, day_of, hour_of
from tests.histories import (
    HISTORIES,
    NOW,
    SCORES,
    TICK,
    TOPICS,
    Counters,
    Event,
    Place,
    counters,
    draw_events,
    forget,
    live,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
LAST = datetime.max.replace(tzinfo=UTC)
Wanted = dict[str, Any]


def draw_wanted(dice: random.Random, place: Place) -> Wanted:
    """Any combination of what can be asked, none and all included."""
    start, end = sorted([place.moment(dice), place.moment(dice)])
    wanted: Wanted = {
        "start_time": start,
        "end_time": dice.choice([start, end, end]),
        "sentiment": dice.choice(list(Sentiment)),
        "min_confidence": dice.choice([0.0, 0.57, 0.58, 0.85, 0.8500001, 0.8499999, dice.random(), 1.0]),
        "topic": dice.sample([*TOPICS, "nothing", "*", "other+refunds"], dice.randrange(5)),
    }
    return {name: value for name, value in wanted.items() if dice.random() < dice.choice([0.3, 0.8])}


def count(session: WriteSession, **wanted: Any) -> int:
    return count_insights(session, InsightQuery(**wanted))


def matches(event: Event, wanted: Wanted) -> bool:
    topics = set(wanted.get("topic", ()))
    return (
        ("start_time" not in wanted or event.timestamp >= wanted["start_time"])
        and ("end_time" not in wanted or event.timestamp < wanted["end_time"])
        and ("sentiment" not in wanted or event.sentiment == wanted["sentiment"])
        and ("min_confidence" not in wanted or event.kept_confidence >= wanted["min_confidence"])
        and (not topics or bool(topics & set(event.topics)))
    )


def check_history(session: WriteSession, *, seed: int) -> None:
    dice = random.Random(seed)
    place = Place.draw(dice)
    left = live(session, draw_events(dice, place), dice=dice)
    for _ in range(12):
        wanted = draw_wanted(dice, place)
        expected = sum(matches(event, wanted) for event in left)
        assert count(session, **wanted) == expected, (seed, wanted, left)
        check_pages(session, wanted, left, way=dice.choice(["walk", "leap"]))
    assert counters(session) == recount(left), (seed, left)


def check_pages(session: WriteSession, wanted: Wanted, left: Sequence[Event], *, way: Literal["walk", "leap"]) -> None:
    """Page after page, whichever way they are found: everything that matches, newest first, nothing twice."""
    found: list[Event] = []
    after: Position | None = None
    ways = (way,) * max(1, len(set(wanted.get("topic", ()))))
    while rows := read_page(session, InsightFilter(**wanted), columns=INSIGHT_COLUMNS, limit=3, after=after, ways=ways):
        after = Position(rows[-1].timestamp, rows[-1].id)
        found += [Event(row.timestamp, row.sentiment_score, row.confidence, tuple(row.clusters)) for row in rows]
    kept = [replace(event, score=round(event.score, 4), confidence=event.kept_confidence) for event in left]
    expected = [event for event in kept if matches(event, wanted)]
    assert [event.timestamp for event in found] == sorted((e.timestamp for e in expected), reverse=True), wanted
    assert Counter(found) == Counter(expected), wanted


def recount(events: Sequence[Event]) -> Counters:
    """The counters as `models.InsightCount` describes them, made one insight and one key at a time."""
    sums: dict[tuple[str, str, int, int], list[tuple[int, ...]]] = defaultdict(list)
    for event in events:
        score, confidence = round(round(event.score, 4) * 10_000), round(event.kept_confidence * 100)
        seconds = (event.timestamp.replace(microsecond=0) - EPOCH).total_seconds()
        topics = ["*", *event.topics]
        together = [set_ for size in (2, 3) for set_ in combinations(sorted(event.topics), size)]
        sets = ["+".join(set_) for set_ in together]
        keys = [("hour", topic, -1, int(seconds // 3_600)) for topic in topics]
        for topic in topics + sets:
            day, each = int(seconds // 86_400), (-1, -2 - confidence // 10, confidence)
            keys += [("day", topic, one, day) for one in each]
        sides = [int(event.sentiment is side) for side in (Sentiment.POSITIVE, Sentiment.NEUTRAL, Sentiment.NEGATIVE)]
        for key in keys:
            sums[key].append((*sides, score, confidence))
    added = {key: [sum(column) for column in zip(*rows, strict=True)] for key, rows in sums.items()}
    return {key: (row[0], row[1], row[2], row[3], row[4]) for key, row in added.items()}


@pytest.mark.slow
async def test_what_is_counted_is_what_is_there(database: Database) -> None:
    for seed in range(-(-HISTORIES // 4)):
        await database.write(partial(check_history, seed=seed))


# What is counted of an insight


@pytest.mark.unit
@pytest.mark.parametrize(
    ("moment", "hour", "day"),
    [
        pytest.param(EPOCH, 0, 0, id="1970"),
        pytest.param(EPOCH - TICK, -1, -1, id="just before 1970"),
        pytest.param(EPOCH - HOUR, -1, -1, id="an hour before 1970"),
        pytest.param(EPOCH - DAY, -24, -1, id="a day before 1970"),
        pytest.param(EPOCH - DAY - TICK, -25, -2, id="a little more"),
        pytest.param(EPOCH + HOUR - TICK, 0, 0, id="the end of the first hour"),
        pytest.param(EPOCH + DAY, 24, 1, id="the second day"),
        pytest.param(LAST, 70_389_527, 2_932_896, id="the last moment"),
        pytest.param(datetime(1, 1, 1, tzinfo=UTC), -17_259_888, -719_162, id="the first moment"),
    ],
)
def test_hours_and_days_are_counted_from_1970_and_rounded_down(moment: datetime, hour: int, day: int) -> None:
    assert (hour_of(moment), day_of(moment)) == (hour, day)


@pytest.mark.unit
def test_an_insight_is_counted_in_whole_units_with_each_topic_once() -> None:
    counted = Countable.of(timestamp=NOW, score=-0.6501, confidence=0.29, topics=["refunds", "other", "refunds"])

    assert counted == Countable(NOW, Sentiment.NEGATIVE, -6501, 29, ("other", "refunds"))


@pytest.mark.unit
@pytest.mark.parametrize("score", SCORES)
def test_a_score_is_counted_on_the_side_of_what_is_kept_of_it(score: float) -> None:
    kept = round(score, 4)

    counted = Countable.of(timestamp=NOW, score=kept, confidence=1.0, topics=["other"])

    assert counted.sentiment == Event(NOW, score, 1.0, ("other",)).sentiment
    assert counted.score == round(kept * 10_000)


def some_of_one_hour(count: int) -> list[Countable]:
    return [
        Countable.of(timestamp=NOW + timedelta(seconds=n), score=-0.5, confidence=0.9, topics=["refunds", "other"])
        for n in range(count)
    ]


async def test_insights_of_one_hour_share_their_counters(database: Database) -> None:
    await database.write(lambda session: count_in(session, some_of_one_hour(50)))

    found = await database.write(counters)

    assert len(found) == 3 + 3 * 4  # by hour all and two topics; by day the set too, each with confidence and tenth
    assert set(found.values()) == {(0, 0, 50, -250_000, 4_500)}


async def test_counting_nothing_changes_nothing(database: Database) -> None:
    await database.write(lambda session: count_in(session, []))
    await database.write(change_counts)

    assert await database.write(counters) == {}


async def test_what_is_counted_out_again_leaves_only_zeros(database: Database) -> None:
    await database.write(lambda session: count_in(session, some_of_one_hour(7)))
    await database.write(lambda session: change_counts(session, out=some_of_one_hour(7)))

    assert await database.write(counters) == {}
    assert await database.write(count) == 0


async def test_a_unit_that_fails_counts_nothing(database: Database) -> None:
    def fail(session: WriteSession) -> None:
        count_in(session, some_of_one_hour(7))
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        await database.write(fail)

    assert await database.write(counters) == {}


async def test_the_topics_there_are_are_named_without_their_sets(database: Database) -> None:
    await database.write(forget)
    await database.write(lambda session: count_in(session, some_of_one_hour(1)))

    assert sorted(await database.read(single_topics)) == ["other", "refunds"]


@pytest.mark.parametrize("name", ["*", "other+refunds", "+", "other+", "**"])
async def test_what_only_the_counters_are_named_is_no_topic(database: Database, name: str) -> None:
    event = Event(NOW, 0.5, 0.9, ("refunds", "other"))
    await database.write(lambda session: check_alone(session, event, name))


def check_alone(session: WriteSession, event: Event, name: str) -> None:
    live(session, [event])

    assert count(session, topic=[name]) == 0
    assert count(session, topic=[name, "refunds"]) == 1


@pytest.mark.parametrize(
    ("start", "found"),
    [
        pytest.param(LAST - DAY, 3, id="a day before the end"),
        pytest.param(LAST - timedelta(hours=5), 2, id="on the last day"),
        pytest.param(LAST - timedelta(minutes=5), 1, id="in the last hour"),
        pytest.param(LAST, 1, id="the last moment"),
    ],
)
async def test_the_last_moments_there_are_are_counted(database: Database, start: datetime, found: int) -> None:
    moments = [LAST, LAST - timedelta(hours=1, minutes=5), LAST - timedelta(hours=20)]

    def check(session: WriteSession) -> None:
        live(session, [Event(moment, 0.5, 0.9, ("other",)) for moment in moments])
        assert count(session, start_time=start) == found
        assert count(session, start_time=start, topic=["other"]) == found
        assert count(session, start_time=start, min_confidence=0.9) == found

    await database.write(check)


# How a range of time is cut


@pytest.mark.unit
@pytest.mark.parametrize(
    ("start", "end", "periods", "edges"),
    [
        pytest.param(None, None, [Periods("day", None, None)], [], id="all time"),
        pytest.param(EPOCH, EPOCH + DAY, [Periods("day", 0, 1)], [], id="a day"),
        pytest.param(EPOCH, EPOCH, [], [], id="nothing"),
        pytest.param(EPOCH, EPOCH + HOUR, [Periods("hour", 0, 1)], [], id="an hour"),
        pytest.param(EPOCH + TICK, EPOCH + 2 * TICK, [], [Edge(EPOCH + TICK, EPOCH + 2 * TICK)], id="a microsecond"),
        pytest.param(
            EPOCH - HOUR - TICK,
            EPOCH + DAY + HOUR,
            [Periods("day", 0, 1), Periods("hour", -1, 0), Periods("hour", 24, 25)],
            [Edge(EPOCH - HOUR - TICK, EPOCH - HOUR)],
            id="more than a day at both ends",
        ),
        pytest.param(
            EPOCH + 5 * HOUR,
            EPOCH + 23 * HOUR + 50 * MINUTE,
            [Periods("day", 0, 1), Periods("hour", 0, 5, -1)],
            [Edge(EPOCH + 23 * HOUR + 50 * MINUTE, EPOCH + DAY, -1)],
            id="a day, less what it lacks at both ends",
        ),
        pytest.param(
            LAST,
            None,
            [Periods("day", 2_932_896, None), Periods("hour", 70_389_504, 70_389_527, -1)],
            [Edge(LAST - HOUR + TICK, LAST, -1)],
            id="in the last whole hour",
        ),
    ],
)
def test_a_range_is_cut_into_whole_periods_and_edges(
    start: datetime | None, end: datetime | None, periods: list[Periods], edges: list[Edge]
) -> None:
    assert cut(start, end, spans=("day", "hour")) == (periods, edges)


@pytest.mark.unit
@pytest.mark.parametrize("spans", [SPANS, ("day",), ("hour",), ()])
def test_the_parts_of_a_range_are_every_moment_of_it_once(spans: tuple[str, ...]) -> None:
    dice = random.Random(7)
    for _ in range(1_000):
        start, end = sorted(Place.draw(dice).moment(dice) for _ in range(2))
        periods, edges = cut(start, end, spans=spans)

        parts = [(edge.start, edge.end, edge.sign) for edge in edges]
        for period in periods:
            length = {"day": DAY, "hour": HOUR}[period.span]
            assert period.first is not None
            assert period.after is not None
            parts.append((EPOCH + period.first * length, EPOCH + period.after * length, period.sign))
        assert added_up(parts) == ([(start, 1), (end, -1)] if start < end else [])


@pytest.mark.unit
@pytest.mark.parametrize(("spans", "longest"), [(SPANS, HOUR), (("day",), DAY)])
def test_all_edges_are_as_long_as_the_shortest_span_at_most(spans: tuple[str, ...], longest: timedelta) -> None:
    dice = random.Random(8)
    for _ in range(1_000):
        start, end = sorted(Place.draw(dice).moment(dice) for _ in range(2))

        _, edges = cut(start, end, spans=spans)

        assert sum(((edge.end or LAST) - edge.start for edge in edges), timedelta()) <= longest, (start, end)


def added_up(parts: list[tuple[datetime, datetime | None, int]]) -> list[tuple[datetime, int]]:
    """How often a moment is counted, as the steps by which that changes."""
    steps = Counter[datetime]()
    for start, end, sign in parts:
        assert end is not None
        assert start < end
        steps[start] += sign
        steps[end] -= sign
    return sorted((moment, step) for moment, step in steps.items() if step)
