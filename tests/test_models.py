import asyncio
import math
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError, StatementError

from database import Database, WriteSession
from models import Base, CachedAnalysis, Conversation, GrokCall, IdempotencyKey, InsightCount, InsightRow, InsightTopic

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

PENDING: dict[str, Any] = {
    "id": "conv_1",
    "text": "Still waiting",
    "timestamp": NOW,
    "status": "pending",
    "created_at": NOW,
    "due_at": NOW,
}
PROCESSING = PENDING | {"status": "processing", "lease_epoch": 1}
COMPLETED = PENDING | {"status": "completed", "due_at": None}
FAILED = PENDING | {"status": "failed", "due_at": None, "error": "Not JSON.", "error_code": "reply_invalid"}
SKIPPED = PENDING | {"status": "skipped", "due_at": None, "skip_reason": "link_only"}
INSIGHT: dict[str, Any] = {
    "conversation_id": "conv_1",
    "timestamp": NOW,
    "text": "Still waiting",
    "sentiment": "negative",
    "sentiment_score": -0.65,
    "clusters": ["delivery_problems"],
    "confidence": 0.9,
    "reasoning": "waits",
    "grok_analysis": {},
    "model": "grok-4.3",
    "created_at": NOW,
}


async def store_conversation(database: Database, row: dict[str, Any]) -> None:
    await database.write(lambda session: session.execute(insert(Conversation), [row]).close())


async def store_insight(database: Database, row: dict[str, Any]) -> None:
    await store_conversation(database, COMPLETED)
    await database.write(lambda session: session.execute(insert(InsightRow), [row]).close())


@pytest.mark.parametrize("row", [PENDING, PROCESSING, COMPLETED, FAILED, SKIPPED], ids=lambda row: row["status"])
async def test_every_good_state_of_a_conversation_is_stored(database: Database, row: dict[str, Any]) -> None:
    await store_conversation(database, row)

    assert await database.read(lambda session: session.scalar(select(Conversation.status))) == row["status"]


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        pytest.param(PENDING | {"status": "lost"}, "status_known", id="an unknown status"),
        pytest.param(PENDING | {"due_at": None}, "due_while_open", id="pending and never due"),
        pytest.param(PROCESSING | {"due_at": None}, "due_while_open", id="processing without a lease"),
        pytest.param(COMPLETED | {"due_at": NOW}, "due_while_open", id="completed and still due"),
        pytest.param(FAILED | {"due_at": NOW}, "due_while_open", id="failed and still due"),
        pytest.param(SKIPPED | {"due_at": NOW}, "due_while_open", id="skipped and still due"),
        pytest.param(FAILED | {"error": None}, "failed_says_why", id="failed without a reason"),
        pytest.param(FAILED | {"error_code": None}, "failed_says_why", id="failed without a code"),
        pytest.param(
            COMPLETED | {"error": "Not JSON.", "error_code": "reply_invalid"},
            "failed_says_why",
            id="completed with an error",
        ),
        pytest.param(SKIPPED | {"skip_reason": None}, "skipped_says_why", id="skipped without a reason"),
        pytest.param(PENDING | {"skip_reason": "link_only"}, "skipped_says_why", id="pending with a skip reason"),
        pytest.param(PROCESSING | {"lease_epoch": 0}, "processing_is_leased", id="processing and never claimed"),
        pytest.param(PENDING | {"external_id": "tweet-1"}, "external_id_with_hash", id="a key without its content"),
        pytest.param(PENDING | {"content_hash": "abc"}, "external_id_with_hash", id="a content without its key"),
        pytest.param(PENDING | {"text": ""}, "text_length", id="no text"),
        pytest.param(PENDING | {"text": "a" * 10_001}, "text_length", id="a text too long"),
        pytest.param(PENDING | {"attempts": -1}, "counts_not_negative", id="fewer attempts than none"),
        pytest.param(PENDING | {"rescues": -1}, "counts_not_negative", id="fewer rescues than none"),
    ],
)
async def test_a_bad_state_of_a_conversation_is_refused(database: Database, row: dict[str, Any], rule: str) -> None:
    with pytest.raises(IntegrityError, match=f"ck_conversations_{rule}"):
        await store_conversation(database, row)


@pytest.mark.parametrize("column", ["id", "text", "timestamp", "status", "created_at"])
async def test_a_conversation_without_one_of_its_parts_is_refused(database: Database, column: str) -> None:
    with pytest.raises(IntegrityError, match=r"(?i)not.null"):
        await store_conversation(database, PENDING | {column: None})


async def test_a_text_of_the_longest_length_is_stored_whatever_its_characters(database: Database) -> None:
    await store_conversation(database, PENDING | {"text": "😡" * 10_000})

    assert await database.read(lambda session: session.scalar(select(Conversation.text))) == "😡" * 10_000


@pytest.mark.parametrize(
    ("second", "named"),
    [
        pytest.param({"id": "conv_1"}, "conversations", id="the same id"),
        pytest.param({"id": "conv_2", "external_id": "tweet-1", "content_hash": "b"}, "external_id", id="the same key"),
    ],
)
async def test_a_second_conversation_under_one_key_is_refused(
    database: Database, second: dict[str, Any], named: str
) -> None:
    await store_conversation(database, PENDING | {"external_id": "tweet-1", "content_hash": "a"})

    with pytest.raises(IntegrityError, match=named):
        await store_conversation(database, PENDING | second)


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        pytest.param({"sentiment_score": -1.01}, "score_in_range|sentiment_matches", id="a score too low"),
        pytest.param({"sentiment_score": 1.01}, "score_in_range|sentiment_matches", id="a score too high"),
        pytest.param({"sentiment_score": math.inf}, "score_in_range|sentiment_matches", id="an infinite score"),
        pytest.param({"sentiment_score": math.nan}, "(?i)score", id="a score that is no number"),
        pytest.param({"confidence": -0.01}, "confidence_in_range", id="a confidence too low"),
        pytest.param({"confidence": 1.01}, "confidence_in_range", id="a confidence too high"),
        pytest.param({"confidence": math.nan}, "(?i)confidence", id="a confidence that is no number"),
        pytest.param({"sentiment": "positive"}, "sentiment_matches_score", id="a side that is not the score's"),
        pytest.param({"sentiment": "angry"}, "sentiment_matches_score", id="a side there is not"),
        pytest.param(
            {"sentiment": "negative", "sentiment_score": -0.1}, "sentiment_matches_score", id="-0.1 is not negative"
        ),
        pytest.param(
            {"sentiment": "positive", "sentiment_score": 0.1}, "sentiment_matches_score", id="0.1 is not positive"
        ),
        pytest.param({"conversation_id": "conv_2"}, "(?i)foreign.key", id="an insight into nothing"),
    ],
)
async def test_a_bad_insight_is_refused(database: Database, changed: dict[str, Any], rule: str) -> None:
    with pytest.raises(IntegrityError, match=rule):
        await store_insight(database, INSIGHT | changed)


async def test_a_second_insight_of_one_conversation_is_refused(database: Database) -> None:
    await store_insight(database, INSIGHT)

    with pytest.raises(IntegrityError, match=r"conversation_id"):
        await database.write(lambda session: session.execute(insert(InsightRow), [INSIGHT]).close())


async def test_a_topic_of_no_insight_is_refused(database: Database) -> None:
    row = {"topic": "refunds", "timestamp": NOW, "insight_id": 7, "sentiment": "neutral", "confidence": 0.9}

    with pytest.raises(IntegrityError, match=r"(?i)foreign.key"):
        await database.write(lambda session: session.execute(insert(InsightTopic), [row]).close())


ANSWER: dict[str, Any] = {
    "key": b"k" * 32,
    "conversation_id": "conv_1",
    "analysis": {},
    "model": "grok-4.3",
    "created_at": NOW,
}
CALL: dict[str, Any] = {
    "caller": "this one",
    "day": "2026-03-01",
    "model": "grok-4.3",
    "conversations": 5,
    "reserved_ticks": 7,
    "called_at": NOW,
}


COUNTER: dict[str, Any] = {
    "span": "hour",
    "topic": "*",
    "confidence": -1,
    "period": 7,
    "positive": 0,
    "neutral": 1,
    "negative": 0,
    "score_sum": 0,
    "confidence_sum": 90,
}


async def store_row(database: Database, table: type[Base], row: dict[str, Any]) -> None:
    await database.write(lambda session: session.execute(insert(table), [row]).close())


async def test_an_answer_of_no_conversation_is_not_kept(database: Database) -> None:
    with pytest.raises(IntegrityError, match=r"(?i)foreign.key"):
        await store_row(database, CachedAnalysis, ANSWER)


async def test_a_text_has_one_answer(database: Database) -> None:
    await store_conversation(database, PENDING)
    await store_row(database, CachedAnalysis, ANSWER)

    with pytest.raises(IntegrityError, match="analysis_cache"):
        await store_row(database, CachedAnalysis, ANSWER)


async def test_a_key_comes_back_byte_by_byte(database: Database) -> None:
    key = bytes(range(256))[::8]
    await store_conversation(database, PENDING)

    await store_row(database, CachedAnalysis, ANSWER | {"key": key})

    found = await database.read(lambda session: session.scalar(select(CachedAnalysis.key)))
    assert bytes(found or b"") == key


async def test_a_call_cannot_reserve_less_than_nothing(database: Database) -> None:
    with pytest.raises(IntegrityError, match="ck_grok_calls_reserved_not_negative"):
        await store_row(database, GrokCall, CALL | {"reserved_ticks": -1})


@pytest.mark.parametrize(
    ("wrong", "check"),
    [
        pytest.param({"neutral": -1}, "ck_insight_counts_counts_not_negative", id="fewer than none"),
        pytest.param({"span": "week"}, "ck_insight_counts_span_known", id="by week"),
    ],
)
async def test_insights_are_not_counted_like_this(database: Database, wrong: dict[str, Any], check: str) -> None:
    with pytest.raises(IntegrityError, match=check):
        await store_row(database, InsightCount, COUNTER | wrong)


async def test_a_sum_in_ticks_may_be_larger_than_32_bits(database: Database) -> None:
    much = 50_000 * 10**10

    await store_row(database, GrokCall, CALL | {"reserved_ticks": much})

    assert await database.read(lambda session: session.scalar(select(GrokCall.reserved_ticks))) == much


def _is_a_year_in_utc(moment: datetime) -> bool:
    try:
        moment.astimezone(UTC)
    except OverflowError:
        return False
    return True


MOMENTS = st.datetimes(
    timezones=st.integers(-24 * 60 + 1, 24 * 60 - 1).map(lambda minutes: timezone(timedelta(minutes=minutes)))
).filter(_is_a_year_in_utc)


def store_moments(session: WriteSession, moments: list[datetime]) -> list[datetime]:
    """The moments as the database gives them back; nothing stays stored."""
    rows = [
        {"key_hash": f"{number:06}", "body_hash": "", "outcomes": ["kept"], "created_at": moment}
        for number, moment in enumerate(moments)
    ]
    session.execute(insert(IdempotencyKey), rows)
    stored = session.scalars(select(IdempotencyKey.created_at).order_by(IdempotencyKey.key_hash)).all()
    session.exec_driver_sql("DELETE FROM idempotency_keys").close()
    return list(stored)


def test_the_same_instant_comes_out_that_went_in(database_url: str) -> None:
    edges = [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)]
    with asyncio.Runner() as runner:
        database = Database.connect(database_url)
        runner.run(database.open())

        @settings(
            max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
        )
        @given(st.lists(MOMENTS, min_size=1, max_size=60))
        def round_trip(moments: list[datetime]) -> None:
            sent = edges + moments
            stored = runner.run(database.write(partial(store_moments, moments=sent)))
            assert stored == sent
            assert {moment.tzinfo for moment in stored} == {UTC}

        round_trip()
        runner.run(database.close())


async def test_moments_are_ordered_as_in_time(database: Database) -> None:
    east, west = (timezone(timedelta(hours=hours)) for hours in (14, -12))
    moments = [datetime(2026, 3, 1, 12, tzinfo=zone) for zone in (west, UTC, east)]
    await database.write(partial(_keep_moments, moments=moments))

    statement = select(IdempotencyKey.created_at).order_by(IdempotencyKey.created_at)
    ordered = await database.read(lambda session: session.scalars(statement).all())

    assert ordered == moments[::-1]


def _keep_moments(session: WriteSession, moments: list[datetime]) -> None:
    for moment in moments:
        row = {"key_hash": str(moment), "body_hash": "", "outcomes": ["kept"], "created_at": moment}
        session.execute(insert(IdempotencyKey), [row])


async def test_a_time_without_a_zone_never_reaches_the_database(database: Database) -> None:
    naive = PENDING | {"timestamp": NOW.replace(tzinfo=None)}

    with pytest.raises(StatementError, match="without a zone"):
        await store_conversation(database, naive)
    with pytest.raises(StatementError, match="without a zone"):
        await database.read(
            lambda session: session.execute(select(Conversation.id).where(Conversation.due_at <= naive["timestamp"]))
        )


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"nested": [1, 2.5, None, True, {"deep": "ü😡"}]}, id="nested"),
        pytest.param({"big": 2**63 - 1, "small": -(2**63)}, id="integers of 64 bits"),
        pytest.param({}, id="empty"),
        pytest.param(None, id="nothing"),
    ],
)
async def test_raw_data_comes_back_as_it_was(database: Database, value: dict[str, Any] | None) -> None:
    await store_conversation(database, PENDING | {"raw_data": value})

    assert await database.read(lambda session: session.scalar(select(Conversation.raw_data))) == value
