"""Trends, against adding up insight by insight over made-up histories."""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from answers import Trends
from database import Database, WriteSession
from parameters import TrendsQuery
from queries.sums import Sums, sum_by_bucket, sum_by_topic
from queries.trends import read_trends
from schemas import Sentiment
from tests.histories import HISTORIES, NOW, TICK, TOPICS, Event, Place, draw_events, live

DAY = timedelta(days=1)
START = NOW.replace(hour=0)


def between(events: Sequence[Event], start: datetime, end: datetime, topic: str | None = None) -> list[Event]:
    return [event for event in events if start <= event.timestamp < end and (topic is None or topic in event.topics)]


def recount(events: Sequence[Event]) -> Sums:
    sides = [event.sentiment for event in events]
    return Sums(
        positive=sides.count(Sentiment.POSITIVE),
        neutral=sides.count(Sentiment.NEUTRAL),
        negative=sides.count(Sentiment.NEGATIVE),
        score=sum(round(event.score * 10_000) for event in events),
        confidence=sum(round(event.confidence * 100) for event in events),
    )


def share(events: Sequence[Event]) -> float | None:
    return round([event.sentiment for event in events].count(Sentiment.NEGATIVE) / len(events), 4) if events else None


def less(now: float | None, before: float | None) -> float | None:
    return None if now is None or before is None else round(now - before, 4)


def feelings(events: Sequence[Event]) -> dict[str, Any]:
    sums, count = recount(events), len(events)
    return {
        "count": count,
        "positive": sums.positive,
        "neutral": sums.neutral,
        "negative": sums.negative,
        "negative_share": share(events),
        "mean_sentiment": round(sums.score / 10_000 / count, 4) if count else None,
        "mean_confidence": round(sums.confidence / 100 / count, 4) if count else None,
    }


def totals(now: Sequence[Event], before: Sequence[Event]) -> dict[str, Any]:
    told, earlier = feelings(now), feelings(before)
    change = {name: less(told[name], earlier[name]) for name in ("negative_share", "mean_sentiment")}
    return {**told, "change": {"count": len(now) - len(before), **change}}


def topic_trends(now: Sequence[Event], before: Sequence[Event]) -> dict[str, dict[str, Any]]:
    trends: dict[str, dict[str, Any]] = {}
    for topic in {topic for event in [*now, *before] for topic in event.topics}:
        of_it, of_it_before = ([event for event in events if topic in event.topics] for events in (now, before))
        others, others_before = ([event for event in events if topic not in event.topics] for events in (now, before))
        contribution = less(less(share(now), share(before)), less(share(others), share(others_before)))
        trends[topic] = {
            "topic": topic,
            **totals(of_it, of_it_before),
            "negative_share_without": share(others),
            "contribution": contribution,
        }
    return trends


def draw_query(dice: random.Random, place: Place) -> tuple[TrendsQuery, datetime]:
    """A query, and the moment at which it is asked."""
    start, end = sorted([place.moment(dice), place.moment(dice)])
    wanted: dict[str, Any] = {
        "days": dice.randrange(1, 6),
        "bucket": dice.choice(["hour", "day"]),
        "tz": place.zone.key,
        "topic": dice.choice([None, None, *TOPICS, "nothing", "*", "other+refunds"]),
    }
    if dice.random() < 0.6:
        wanted["start_time"] = start
    if dice.random() < 0.6:
        wanted["end_time"] = end
    return TrendsQuery.model_validate(wanted), end


def check_trends(trends: Trends, query: TrendsQuery, left: Sequence[Event]) -> None:
    start, end = trends["period"]["start_time"], trends["period"]["end_time"]
    before = start - (end - start)
    now, earlier = between(left, start, end), between(left, before, start)
    asked = [event for event in now if query.topic in {None, *event.topics}]
    topics = topic_trends(now, earlier)
    assert trends["previous_period"] == {"start_time": before, "end_time": start}
    assert trends["totals"] == totals(asked, between(left, before, start, query.topic))
    assert {trend["topic"]: trend for trend in trends["topics"]} == topics
    assert trends["driver"] in drivers(topics, less(share(now), share(earlier)))
    for bucket in trends["buckets"]:
        first, after = bucket["start_time"], bucket["end_time"]
        assert bucket == {"start_time": first, "end_time": after, **feelings(between(asked, first, after))}
    assert sum(bucket["count"] for bucket in trends["buckets"]) == len(asked)


def drivers(topics: dict[str, dict[str, Any]], change: float | None) -> set[str | None]:
    """Those that moved the share most of all, in the direction in which it moved; one of them, or else none."""
    if not change:
        return {None}
    moved = {
        name: trend["contribution"] * change for name, trend in topics.items() if trend["contribution"] is not None
    }
    most = max(moved.values(), default=0)
    return {name for name, part in moved.items() if part == most} if most > 0 else {None}


def check_history(session: WriteSession, *, seed: int) -> None:
    dice = random.Random(seed)
    place = Place.draw(dice)
    left = live(session, draw_events(dice, place), dice=dice)
    bounds = sorted({place.moment(dice) for _ in range(dice.randrange(2, 9))})
    topic = dice.choice(TOPICS)

    sums = sum_by_bucket(session, bounds)
    assert sums == [recount(between(left, *pair)) for pair in pairwise(bounds)], (seed, bounds)
    sums = sum_by_bucket(session, bounds, topic=topic)
    assert sums == [recount(between(left, *pair, topic)) for pair in pairwise(bounds)], (seed, bounds, topic)
    every = {name: recount(between(left, bounds[0], bounds[-1], name)) for name in TOPICS}
    every["*"] = recount(between(left, bounds[0], bounds[-1]))
    found = sum_by_topic(session, start=bounds[0], end=bounds[-1])
    assert found == {name: part for name, part in every.items() if part.count}, (seed, bounds)
    for _ in range(3):
        query, now = draw_query(dice, place)
        check_trends(read_trends(session, query, now=now), query, left)


@pytest.mark.slow
async def test_what_is_added_up_is_what_is_there(database: Database) -> None:
    for seed in range(-(-HISTORIES // 4)):
        await database.write(partial(check_history, seed=seed))


async def test_buckets_may_be_cut_at_any_half_hour(database: Database) -> None:
    """With as many whole hours in them as the one before, or not, and as far from it, or not."""
    events = [Event(START + number * timedelta(minutes=10), number / 100, 0.9, ("other",)) for number in range(72)]

    def check(session: WriteSession) -> None:
        live(session, events)
        for seed in range(50):
            halves = sorted(random.Random(seed).sample(range(25), 7))
            bounds = [START + half * timedelta(minutes=30) for half in halves]
            expected = [recount(between(events, *pair)) for pair in pairwise(bounds)]
            assert sum_by_bucket(session, bounds) == expected, bounds

    await database.write(check)


# Shares and contributions, by hand


async def trends_of(database: Database, *events: Event, **wanted: Any) -> Trends:
    query = TrendsQuery.model_validate({"start_time": START - DAY, "end_time": START, **wanted})

    def unit(session: WriteSession) -> Trends:
        live(session, events)
        return read_trends(session, query, now=NOW)

    return await database.write(unit)


def some(count: int, score: float, *topics: str, days_ago: int = 1) -> list[Event]:
    """Of one day; `days_ago` 1 is the period asked for, 2 the one before it."""
    return [Event(START - days_ago * DAY + timedelta(minutes=n), score, 0.9, topics) for n in range(count)]


async def test_a_topic_contributes_what_would_not_have_changed_without_it(database: Database) -> None:
    trends = await trends_of(
        database,
        *some(2, -0.8, "refunds", days_ago=2),
        *some(8, 0.5, "praise", days_ago=2),
        *some(6, -0.8, "refunds"),
        *some(4, 0.5, "praise"),
    )

    refunds, praise = trends["topics"]
    assert trends["totals"]["change"]["negative_share"] == 0.4  # from 2 to 6 of 10
    assert (refunds["negative_share_without"], refunds["contribution"]) == (0.0, 0.4)  # without it none, then as now
    assert (praise["negative_share_without"], praise["contribution"]) == (1.0, 0.4)  # without it all, then as now
    assert trends["driver"] in {"refunds", "praise"}


async def test_a_topic_that_held_the_share_down_contributes_below_zero(database: Database) -> None:
    trends = await trends_of(
        database,
        *some(5, -0.8, "refunds", days_ago=2),
        *some(5, 0.5, "refunds", days_ago=2),
        *some(9, -0.8, "refunds"),
        *some(1, 0.5, "refunds"),
        *some(10, 0.5, "praise"),
    )

    by_name = {trend["topic"]: trend for trend in trends["topics"]}
    assert trends["totals"]["change"]["negative_share"] == -0.05  # from 5 of 10 to 9 of 20
    assert by_name["praise"]["contribution"] == -0.45  # without it the share would have risen by 0.4
    assert by_name["refunds"]["contribution"] is None  # without it there was nothing before
    assert trends["driver"] == "praise"


async def test_a_topic_of_the_period_before_alone_is_named_with_what_it_lost(database: Database) -> None:
    trends = await trends_of(
        database, *some(3, -0.8, "refunds", days_ago=2), *some(1, 0.5, "praise", days_ago=2), *some(1, 0.5, "praise")
    )

    praise, refunds = trends["topics"]
    assert (praise["topic"], refunds["topic"]) == ("praise", "refunds")
    assert refunds["change"] == {"count": -3, "negative_share": None, "mean_sentiment": None}
    assert (refunds["count"], refunds["contribution"], trends["driver"]) == (0, -0.75, "refunds")


async def test_without_a_change_nothing_drove_it(database: Database) -> None:
    trends = await trends_of(database, *some(2, -0.8, "refunds", days_ago=2), *some(4, -0.8, "refunds"))

    assert trends["totals"]["change"] == {"count": 2, "negative_share": 0.0, "mean_sentiment": 0.0}
    assert trends["driver"] is None


async def test_an_insight_of_several_topics_counts_under_each_and_once_in_all(database: Database) -> None:
    trends = await trends_of(database, *some(2, -0.8, "refunds", "other", "praise"))

    assert trends["totals"]["count"] == 2
    assert [(trend["topic"], trend["count"]) for trend in trends["topics"]] == [
        ("other", 2),
        ("praise", 2),
        ("refunds", 2),
    ]
    assert {trend["negative_share_without"] for trend in trends["topics"]} == {None}


async def test_topics_are_ordered_by_complaints_then_by_number_then_by_name(database: Database) -> None:
    trends = await trends_of(
        database,
        *some(1, -0.8, "refunds"),
        *some(2, -0.8, "app_crashes"),
        *some(3, 0.5, "praise"),
        *some(1, 0.5, "other"),
        *some(1, 0.5, "delivery_problems"),
    )

    names = [trend["topic"] for trend in trends["topics"]]
    assert names == ["app_crashes", "refunds", "praise", "delivery_problems", "other"]


@pytest.mark.parametrize("topic", ["nothing", "*", "other+refunds", "+"])
async def test_a_topic_that_is_none_has_only_zeros(database: Database, topic: str) -> None:
    trends = await trends_of(database, *some(2, -0.8, "refunds", "other"), topic=topic)

    assert trends["totals"] == totals([], [])
    assert [bucket["count"] for bucket in trends["buckets"]] == [0]
    assert len(trends["topics"]) == 2  # topics are those of all insights, whatever was asked


async def test_what_was_erased_leaves_no_topic_behind(database: Database) -> None:
    class Always(random.Random):
        def random(self) -> float:
            return 0.0

    def unit(session: WriteSession) -> Trends:
        assert live(session, some(3, -0.8, "refunds"), dice=Always()) == []
        return read_trends(session, TrendsQuery(start_time=START - DAY, end_time=START), now=NOW)

    trends = await database.write(unit)

    assert trends["topics"] == []
    assert trends["totals"] == totals([], [])


async def test_a_bucket_without_insights_is_there_with_zeros(database: Database) -> None:
    events = [Event(START - TICK, 0.5, 0.9, ("other",)), Event(START - DAY, 0.5, 0.9, ("other",))]

    trends = await trends_of(database, *events, bucket="hour")

    counts = [bucket["count"] for bucket in trends["buckets"]]
    assert counts == [1] + [0] * 22 + [1]
    assert trends["buckets"][1] == {
        "start_time": START - timedelta(hours=23),
        "end_time": START - timedelta(hours=22),
        **feelings([]),
    }
