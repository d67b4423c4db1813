"""A database that was filled before there were counters has them afterwards, as if they had always been kept."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection

from database import ReadSession, WriteSession
from parameters import InsightQuery
from queries.counting import count_insights
from store.counting import count_in
from tests.histories import Event, countables, counters
from tests.test_migrations import connection, go_back, migrate

__all__ = ["connection"]  # the fixture: an empty database

BEFORE = "20261120_cache_and_costs"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)
# As they were kept until then: scores with all their decimals, confidences with two.
FOUND = [
    Event(datetime(2026, 3, 8, 6, 59, 59, 999_999, tzinfo=UTC), -0.65, 0.9, ("refunds", "delivery_problems")),
    Event(datetime(2026, 3, 8, 7, tzinfo=UTC), -0.1000004, 0.29, ("refunds",)),
    Event(datetime(2026, 3, 8, 7, 30, tzinfo=UTC), -0.10004, 0.57, ("refunds", "delivery_problems", "app_crashes")),
    Event(datetime(2026, 3, 8, 7, 45, tzinfo=UTC), 0.100004, 0.58, ("praise", "other")),
    Event(datetime(2026, 3, 8, 7, 45, tzinfo=UTC), 0.10006, 0.58, ("other", "praise")),
    Event(datetime(2026, 3, 9, tzinfo=UTC), -0.33333333333, 1.0, ("other",)),
    Event(EPOCH, 1 / 3, 0.0, ("praise",)),
    Event(EPOCH - TICK, -1.0, 0.5, ("praise",)),
    Event(EPOCH - timedelta(hours=1), 1.0, 0.5, ("praise",)),
    Event(EPOCH - timedelta(hours=1) - TICK, 0.2, 0.5, ("praise", "refunds")),
    Event(EPOCH - timedelta(days=1), 0.2, 0.5, ("praise",)),
    Event(EPOCH - timedelta(days=1) - TICK, 0.2, 0.5, ("praise",)),
    Event(datetime(1, 1, 1, tzinfo=UTC), 0.0, 0.5, ("other",)),
    Event(datetime.max.replace(tzinfo=UTC), 0.0, 0.5, ("other", "app_crashes")),
]


def fill(connection: Connection) -> None:
    """By SQL alone: the tables of that time are not those of the models."""
    for number, event in enumerate(FOUND, start=1):
        moment: Any = event.timestamp
        if connection.dialect.name == "sqlite":
            moment = (event.timestamp - EPOCH) // TICK
        side = "positive" if event.score > 0.1 else "negative" if event.score < -0.1 else "neutral"
        columns = "id, text, timestamp, status, created_at"
        insert(connection, "conversations", columns, f"conv_{number}", "late", moment, "completed", moment)
        columns = (
            "id, conversation_id, timestamp, text, sentiment, sentiment_score, clusters, confidence, reasoning,"
            " grok_analysis, model, created_at"
        )
        clusters = json.dumps(event.topics)
        kept = ("late", side, event.score, clusters, event.confidence, "reasons", "{}", "grok-4.3", moment)
        insert(connection, "insights", columns, number, f"conv_{number}", moment, *kept)
        for topic in event.topics:
            insert(connection, "insight_topics", "topic, timestamp, insight_id", topic, moment, number)


def insert(connection: Connection, table: str, columns: str, *values: Any) -> None:
    mark = "%s" if connection.dialect.name == "postgresql" else "?"
    marks = ", ".join([mark] * len(values))
    connection.exec_driver_sql(f"INSERT INTO {table} ({columns}) VALUES ({marks})", values)


@pytest.fixture
def session(connection: Connection) -> WriteSession:
    """A database with insights from before, brought to the newest schema."""
    migrate(connection, BEFORE)
    fill(connection)
    migrate(connection, "head")
    return WriteSession(ReadSession(connection))


def rows(session: Connection, statement: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in session.exec_driver_sql(statement)]


def test_the_counters_are_those_that_would_have_been_kept(session: WriteSession) -> None:
    filled = counters(session)
    session.exec_driver_sql("DELETE FROM insight_counts")

    count_in(session, countables(session))

    assert filled == counters(session)
    assert count_insights(session, InsightQuery.model_validate({})) == len(FOUND)


def test_scores_are_rounded_and_sentiments_with_them(session: WriteSession) -> None:
    kept = rows(session, "SELECT sentiment_score, sentiment FROM insights ORDER BY id")

    assert kept == [(round(event.score, 4), event.sentiment) for event in FOUND]
    assert [sentiment for _, sentiment in kept[1:5]] == ["neutral", "neutral", "neutral", "positive"]


def test_every_topic_is_still_there_with_what_it_is_filtered_by(session: WriteSession) -> None:
    kept = rows(session, "SELECT insight_id, topic, sentiment, confidence FROM insight_topics")
    times = rows(
        session,
        "SELECT count(*) FROM insight_topics t JOIN insights i ON i.id = t.insight_id AND i.timestamp = t.timestamp",
    )

    expected = [
        (number, topic, event.sentiment.value, event.confidence)
        for number, event in enumerate(FOUND, start=1)
        for topic in event.topics
    ]
    assert sorted(kept) == sorted(expected)
    assert times == [(len(expected),)]


def test_topics_still_go_with_their_insight(session: WriteSession) -> None:
    if session.dialect.name == "sqlite":
        session.exec_driver_sql("PRAGMA foreign_keys=ON")

    session.exec_driver_sql("DELETE FROM insights WHERE id = 1")

    assert rows(session, "SELECT count(*) FROM insight_topics WHERE insight_id = 1") == [(0,)]


KEPT = "conversation_id, timestamp, text, sentiment, sentiment_score, clusters, confidence, reasoning, model"


def test_a_step_back_keeps_insights_and_topics(session: WriteSession) -> None:
    insights = rows(session, f"SELECT {KEPT} FROM insights ORDER BY id")
    topics = sorted(rows(session, "SELECT topic, timestamp, insight_id FROM insight_topics"))
    before = counters(session)

    go_back(session, BEFORE)
    left = (
        rows(session, f"SELECT {KEPT} FROM insights ORDER BY id"),
        sorted(rows(session, "SELECT * FROM insight_topics")),
    )
    migrate(session, "head")

    assert left == (insights, topics)
    assert counters(session) == before


def test_counters_of_each_sentiment_apart_come_back_as_they_were(session: WriteSession) -> None:
    before = counters(session)

    go_back(session, "20261127_rescued")
    apart = rows(
        session, "SELECT sum(count) FROM insight_counts WHERE confidence = -1 AND topic = '*' AND span = 'day'"
    )
    migrate(session, "head")

    assert apart == [(len(FOUND),)]
    assert counters(session) == before


def test_without_insights_there_is_nothing_to_count(connection: Connection) -> None:
    migrate(connection, BEFORE)

    migrate(connection, "head")

    assert counters(WriteSession(ReadSession(connection))) == {}
