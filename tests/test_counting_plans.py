"""Counts and trends read the counters of their key and time alone, and of the insights only what no hour fills."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection

import queries
import store
from database import WriteSession
from parameters import InsightQuery, TopicsQuery, TrendsQuery
from queries.counting import count_insights
from schemas import Sentiment
from store.counting import Countable, change_counts, count_in
from tests.test_query_plans import FIRST, ROWS, connection, plans_of, scanned
from topics import Topic

__all__ = ["connection"]  # the fixture: 20,000 insights, and as many counters

RAGGED = {"start_time": FIRST - timedelta(days=90, minutes=5), "end_time": FIRST + timedelta(minutes=3)}
WHOLE_DAYS = {"start_time": FIRST - timedelta(days=30), "end_time": FIRST}


def count(**wanted: Any) -> Callable[[WriteSession], Any]:
    return partial(count_insights, wanted=InsightQuery(**wanted))


def trends(**wanted: Any) -> Callable[[WriteSession], Any]:
    return partial(queries.read_trends, query=TrendsQuery.model_validate({"days": 30, **wanted}), now=FIRST)


def topics(**wanted: Any) -> Callable[[WriteSession], Any]:
    listed = [Topic("topic 7", "Seven", "The seventh.", ()), Topic("other", "Other", "None.", ())]
    return partial(queries.count_topics, query=TopicsQuery(**wanted), topics=listed)


def plans_by_table(connection: Connection, unit: Callable[[WriteSession], Any]) -> dict[str, list[str]]:
    """The plans of the statements that read counters, and of those that read insights; tallies are a dozen rows."""
    found: dict[str, list[str]] = {"counters": [], "insights": []}
    plans = plans_of(connection, unit).items()
    for statement, plan in [(statement, plan) for statement, plan in plans if "FROM tallies" not in statement]:
        found["counters" if "insight_counts" in statement else "insights"].append(plan)
    return found


@pytest.mark.parametrize(
    ("unit", "indexes"),
    [
        pytest.param(count(), [], id="all"),
        pytest.param(count(sentiment=Sentiment.NEGATIVE), [], id="a side"),
        pytest.param(count(min_confidence=0.8), [], id="a confidence"),
        pytest.param(count(topic=["topic 7"]), [], id="a topic"),
        pytest.param(count(topic=["topic 7", "topic 9"]), [], id="two topics"),
        pytest.param(count(**WHOLE_DAYS), [], id="whole days"),
        pytest.param(count(**RAGGED), ["ix_insights_timestamp"], id="a time"),
        pytest.param(count(sentiment=Sentiment.NEGATIVE, **RAGGED), ["ix_insights_"], id="a side and time"),
        pytest.param(count(topic=["topic 7"], **RAGGED), ["pk_insight_topics"], id="a topic and time"),
        pytest.param(
            count(topic=["topic 7", "topic 9"], min_confidence=0.8, **RAGGED),
            ["pk_insight_topics"],
            id="two topics, confidence and time",
        ),
        pytest.param(trends(), [], id="trends"),
        pytest.param(trends(bucket="hour", tz="America/New_York"), [], id="trends by hour"),
        pytest.param(trends(topic="topic 7", tz="Asia/Tokyo"), [], id="trends of a topic"),
        pytest.param(trends(**RAGGED), ["ix_insights_timestamp"], id="trends of a time"),
        pytest.param(
            trends(days=2, tz="Asia/Kolkata", topic="topic 7"),
            ["ix_insights_timestamp", "pk_insight_topics"],
            id="trends where hours are cut in halves",
        ),
        pytest.param(topics(), [], id="topics"),
        pytest.param(topics(**WHOLE_DAYS), [], id="topics of whole days"),
        pytest.param(topics(start_time=FIRST), [], id="topics since a day began"),
        pytest.param(
            topics(**RAGGED),
            ["ix_insights_timestamp", "pk_insight_topics", "ix_insight_topics_insight_id"],
            id="topics of a time",
        ),
    ],
)
def test_insights_are_added_up_from_their_counters(
    connection: Connection, unit: Callable[[WriteSession], Any], indexes: list[str]
) -> None:
    plans = plans_by_table(connection, unit)

    told = "\n\n".join(plans["counters"] + plans["insights"])
    assert all("pk_insight_counts" in plan for plan in plans["counters"]), told
    assert [index for index in indexes if index not in "\n".join(plans["insights"])] == [], told
    assert bool(plans["insights"]) == bool(indexes), told
    assert scanned(told) == [], told


@pytest.mark.parametrize(
    "unit",
    [
        pytest.param(count(**WHOLE_DAYS), id="a count"),
        pytest.param(count(topic=["topic 7"], min_confidence=0.8, **WHOLE_DAYS), id="of a topic and confidence"),
        pytest.param(trends(topic="topic 7"), id="trends of a topic"),
    ],
)
def test_the_counters_read_are_those_of_key_and_time(
    connection: Connection, unit: Callable[[WriteSession], Any]
) -> None:
    found = plans_of(connection, unit)

    timed = [plan for statement, plan in found.items() if "period BETWEEN" in statement or "period >=" in statement]
    for plan in timed:
        [condition, *_] = [
            line for line in plan.splitlines() if "period" in line and ("Cond" in line or "SEARCH" in line)
        ]
        assert [name for name in ("span", "topic", "period") if name not in condition] == [], plan
    assert timed


def test_what_changes_is_found_in_its_own_counters(connection: Connection) -> None:
    changed = [Countable.of(timestamp=FIRST, score=0.5, confidence=0.9, topics=["topic 7", "other"])]

    plans = plans_of(connection, lambda session: change_counts(session, into=changed))
    [plan] = [plan for statement, plan in plans.items() if statement.startswith("UPDATE")]

    assert "pk_insight_counts" in plan
    assert scanned(plan) == [], plan


def test_insights_with_an_old_topic_are_found_by_it_and_changed_one_by_one(connection: Connection) -> None:
    names = {"topic 7": "other", "other": "topic 9"}  # what is stored of this topic says `other` in the insight itself

    stored = [
        Countable.of(
            timestamp=FIRST + timedelta(seconds=n), score=0.0 if n % 30 else -0.5, confidence=0.9, topics=["other"]
        )
        for n in range(7, ROWS, 500)
    ]

    def rename(session: WriteSession) -> None:
        count_in(session, stored)
        store.rename_topics(session, names=names, limit=100)

    plans = plans_of(connection, rename)

    told = "\n\n".join(plans.values())
    assert len(plans) == 5  # corrections, which, their topics, themselves, their counters
    assert [name for name in ("insight_topics_", "pk_insight_counts", "topics_insight_id") if name not in told] == []
    assert scanned(told) == [], told
