"""Every hot query walks the index that was made for it: the statements are taken from the code as it runs."""

import json
from collections.abc import Callable, Generator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, event

import queries
import store
from database import ReadSession, WriteSession, parse_database_url
from models import Base
from schemas import ConversationIn, ConversationQuery, InsightQuery, Position, Sentiment, Status
from store import Claim, Idempotency, Submission

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
MIDDLE = FIRST + timedelta(seconds=10_000)
ROWS = 20_000  # one a second
BIG_TABLES = ("conversations", "insights", "insight_topics", "idempotency_keys")
SQLITE_NAMES = {
    "sqlite_autoindex_conversations_1": "pk_conversations",
    "sqlite_autoindex_idempotency_keys_1": "pk_idempotency_keys",
    "sqlite_autoindex_insights_1": "uq_insights_conversation_id",
    "insight_topics USING PRIMARY KEY": "insight_topics USING pk_insight_topics",
}
CLAIM = Claim("conv_00000000000000000000000000000001", 1, "text", None, FIRST, FIRST, 0, 0)

# Nearly all are completed, a few wait, failed or are in work; one in 30 is negative. The number n makes all else.
SEED = (
    """INSERT INTO conversations
      (id, text, author, timestamp, external_id, content_hash, status, created_at, due_at, lease_epoch,
       error, error_code)
    SELECT {id}, 'Still waiting on my order, third week now', 'author ' || (n % 500), {at}, 'tweet-' || n, 'hash',
      CASE n % 400 WHEN 0 THEN 'pending' WHEN 1 THEN 'failed' WHEN 2 THEN 'processing' ELSE 'completed' END, {at},
      CASE WHEN n % 400 IN (0, 2) THEN {at} END, 1,
      CASE WHEN n % 400 = 1 THEN 'Not JSON.' END, CASE WHEN n % 400 = 1 THEN 'reply_invalid' END
    FROM numbers""",
    """INSERT INTO insights
      (id, conversation_id, timestamp, text, author, sentiment, sentiment_score, clusters, confidence, reasoning,
       grok_analysis, model, created_at)
    SELECT n, {id}, {at}, 'Still waiting on my order, third week now', 'author ' || (n % 500),
      CASE n % 30 WHEN 0 THEN 'negative' ELSE 'neutral' END, CASE n % 30 WHEN 0 THEN -0.5 ELSE 0 END,
      '["other"]', 0.9, 'reasons', '{{}}', 'grok-4.3', {at}
    FROM numbers""",
    "INSERT INTO insight_topics (topic, timestamp, insight_id) SELECT 'topic ' || (n % 500), {at}, n FROM numbers",
    """INSERT INTO idempotency_keys (key_hash, body_hash, outcomes, created_at)
    SELECT 'key ' || n, 'hash', '[]', {at} FROM numbers""",
)


def seed(connection: Connection) -> None:
    Base.metadata.create_all(connection)
    if connection.dialect.name == "sqlite":
        numbers = f"WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {ROWS})"
        marks = {"id": "printf('conv_%032x', n)", "at": f"{int(FIRST.timestamp())}000000 + n * 1000000"}
        connection.exec_driver_sql("BEGIN")
    else:
        numbers = f"WITH numbers AS (SELECT generate_series(1, {ROWS}) AS n)"
        marks = {"id": "'conv_' || lpad(to_hex(n), 32, '0')", "at": f"'{FIRST}'::timestamptz + n * interval '1 second'"}
    for statement in SEED:
        table, columns = statement.format(**marks).split("SELECT", 1)
        insert = f"{table} {numbers} SELECT {columns}"
        connection.exec_driver_sql(insert if connection.dialect.name == "sqlite" else insert.replace("%", "%%"))
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("COMMIT")  # and no ANALYZE: the service never runs one there
    else:
        connection.exec_driver_sql("VACUUM ANALYZE")  # as autovacuum does


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("sqlite", marks=pytest.mark.unit),
        pytest.param("postgresql", marks=pytest.mark.integration),
    ],
)
def connection(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[Connection]:
    """A database with 20,000 conversations, shared by all the plans of this module."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('plans') / 'insights.db'}"
    else:
        url = request.getfixturevalue("new_postgresql_url")()
    engine = create_engine(
        parse_database_url(url), isolation_level="AUTOCOMMIT", json_serializer=json.dumps, json_deserializer=json.loads
    )
    with engine.connect() as opened:
        seed(opened)
        yield opened
    engine.dispose()


def plans_of(connection: Connection, unit: Callable[[WriteSession], Any]) -> dict[str, str]:
    """The plan of each statement that the unit runs, but for inserts; what it changes is undone."""
    ran: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: Any) -> None:
        ran.append((statement, parameters))

    connection.exec_driver_sql("BEGIN")
    event.listen(connection, "before_cursor_execute", note)
    try:
        unit(WriteSession(ReadSession(connection)))
    finally:
        event.remove(connection, "before_cursor_execute", note)
        connection.exec_driver_sql("ROLLBACK")
    return {each[0]: _explain(connection, *each) for each in ran if not each[0].startswith("INSERT")}


def _explain(connection: Connection, statement: str, parameters: Any) -> str:
    explain = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
    rows = connection.exec_driver_sql(f"{explain} {statement}", parameters)
    plan = "\n".join(str(row[-1]) for row in rows)
    for as_sqlite_says, name in SQLITE_NAMES.items():
        plan = plan.replace(as_sqlite_says, name)
    return plan


def is_count_of_insights(statement: str) -> bool:
    return statement.startswith("SELECT count(*)") and "FROM insights" in statement


def scanned(plan: str) -> list[str]:
    """The steps that walk a big table from end to end; a walk along an index ends with the page."""
    marks = tuple(f"{scan} {table}" for table in BIG_TABLES for scan in ("SCAN", "Seq Scan on"))
    steps = [step.strip().removeprefix("->").strip() for step in plan.splitlines()]
    return [step for step in steps if step.startswith(marks) and " USING INDEX " not in step]


def accept(external_id: str) -> Callable[[WriteSession], Any]:
    submission = Submission(
        [ConversationIn(text="text", external_id=external_id)],
        Idempotency("key 77", "hash"),
    )
    return partial(store.accept, submissions=[submission], now=FIRST)


def insights(**wanted: Any) -> Callable[[WriteSession], Any]:
    return partial(queries.find_insights, query=InsightQuery(**wanted))


def conversations(**wanted: Any) -> Callable[[WriteSession], Any]:
    return partial(queries.list_conversations, query=ConversationQuery(**wanted))


LATER = FIRST + timedelta(days=2)
DAY = {"start_time": MIDDLE, "end_time": MIDDLE + timedelta(minutes=5)}
IN_THE_MIDDLE = Position(MIDDLE, 10_000).encode()


@pytest.mark.parametrize(
    ("unit", "indexes"),
    [
        pytest.param(
            partial(store.claim_batch, limit=10, now=LATER, lease=timedelta(minutes=1)),
            ["ix_conversations_due_at"],
            id="claim",
        ),
        pytest.param(
            partial(store.save_outcomes, outcomes=[store.Skipped(CLAIM, "link_only")], now=LATER),
            ["pk_conversations"],
            id="the fence",
        ),
        pytest.param(
            partial(store.renew_leases, claims=[CLAIM], until=LATER), ["pk_conversations"], id="renew a lease"
        ),
        pytest.param(partial(store.release_abandoned, now=LATER), ["ix_conversations_due_at"], id="take over"),
        pytest.param(partial(store.retry_failed, now=LATER), ["ix_conversations_set_aside"], id="retry all"),
        pytest.param(
            partial(store.purge_idempotency_keys, now=FIRST + timedelta(days=1, seconds=9)),
            ["ix_idempotency_keys_created_at"],
            id="purge",
        ),
        pytest.param(accept("tweet-7"), ["uq_conversations_external_id", "pk_idempotency_keys"], id="known before?"),
        pytest.param(insights(limit=10), ["ix_insights_timestamp"], id="newest insights"),
        pytest.param(insights(cursor=IN_THE_MIDDLE), ["ix_insights_timestamp"], id="a page in the middle"),
        pytest.param(insights(**DAY), ["ix_insights_timestamp"], id="insights of a time"),
        pytest.param(
            insights(sentiment=Sentiment.NEGATIVE, limit=10), ["ix_insights_sentiment"], id="insights of a side"
        ),
        pytest.param(
            insights(sentiment=Sentiment.NEGATIVE, cursor=IN_THE_MIDDLE),
            ["ix_insights_sentiment"],
            id="insights of a side, in the middle",
        ),
        pytest.param(
            insights(sentiment=Sentiment.NEGATIVE, min_confidence=0.8, **DAY),
            ["ix_insights_sentiment"],
            id="insights of a side and time",
        ),
        pytest.param(insights(author="author 7"), ["ix_insights_author"], id="insights of an author"),
        pytest.param(insights(topic=["topic 7"]), ["pk_insight_topics"], id="insights of a topic"),
        pytest.param(insights(topic=["topic 7"], **DAY), ["pk_insight_topics"], id="insights of a topic and time"),
        pytest.param(
            partial(queries.get_conversation, conversation_id=CLAIM.conversation_id),
            ["pk_conversations", "uq_insights_conversation_id"],
            id="one conversation",
        ),
        pytest.param(conversations(limit=10), ["pk_conversations"], id="newest conversations"),
        pytest.param(
            conversations(limit=10, cursor="conv_" + "0" * 28 + "2710"), ["pk_conversations"], id="older conversations"
        ),
        pytest.param(conversations(status=Status.FAILED), ["ix_conversations_set_aside"], id="failed conversations"),
        pytest.param(queries.queue_depth, ["ix_conversations_due_at"], id="queue depth"),
        pytest.param(partial(queries.oldest_due, now=LATER), ["ix_conversations_due_at"], id="the longest due"),
    ],
)
def test_a_hot_query_walks_the_index_made_for_it(
    connection: Connection, unit: Callable[[WriteSession], Any], indexes: list[str]
) -> None:
    plans = [plan for statement, plan in plans_of(connection, unit).items() if not is_count_of_insights(statement)]

    told = "\n\n".join(plans)
    assert [index for index in indexes if index not in told] == [], told
    assert scanned(told) == [], told


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        pytest.param(DAY, "ix_insights_timestamp", id="a time"),
        pytest.param({"sentiment": Sentiment.NEGATIVE}, "ix_insights_sentiment", id="a side"),
        pytest.param(
            {"sentiment": Sentiment.NEGATIVE, "min_confidence": 0.8},
            "ix_insights_sentiment",
            id="a side and confidence",
        ),
        pytest.param({"author": "author 7"}, "ix_insights_author", id="an author"),
        pytest.param({"topic": ["topic 7"]}, "pk_insight_topics", id="a topic"),
    ],
)
def test_a_count_reads_no_more_than_it_counts(connection: Connection, wanted: dict[str, Any], index: str) -> None:
    """Without a filter a count still walks a whole index: counters are not there yet."""
    plans = plans_of(connection, insights(**wanted))

    [plan] = [plan for statement, plan in plans.items() if is_count_of_insights(statement)]
    assert index in plan
    assert scanned(plan) == [], plan
