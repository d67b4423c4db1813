"""Every hot query walks the index that was made for it: the statements are taken from the code as it runs."""

import json
from collections.abc import Callable, Generator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal

import pytest
from sqlalchemy import Connection, create_engine, event

import queries
import store
from database import ReadSession, WriteSession, parse_database_url
from models import InsightRow
from parameters import ConversationQuery, EventQuery, InsightFilter, InsightQuery, Position
from queries.hot import fetch
from queries.paging import read_page
from schemas import ConversationIn, Sentiment, Status
from store import Claim, Idempotency, Reservation, Settlement, Submission
from store.counting import hour_of
from tests.test_migrations import migrate

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
MIDDLE = FIRST + timedelta(seconds=10_000)
ROWS = 20_000  # one a second
BIG_TABLES = (
    "conversations",
    "insights",
    "insight_topics",
    "insight_counts",
    "idempotency_keys",
    "analysis_cache",
    "grok_calls",
)
SQLITE_NAMES = {
    "sqlite_autoindex_conversations_1": "pk_conversations",
    "sqlite_autoindex_idempotency_keys_1": "pk_idempotency_keys",
    "sqlite_autoindex_insights_1": "uq_insights_conversation_id",
    "insight_topics USING PRIMARY KEY": "insight_topics USING pk_insight_topics",
    "insight_counts USING PRIMARY KEY": "insight_counts USING pk_insight_counts",
    "insights USING INTEGER PRIMARY KEY": "insights USING pk_insights",
    "analysis_cache USING PRIMARY KEY": "analysis_cache USING pk_analysis_cache",
    "grok_calls USING INTEGER PRIMARY KEY": "grok_calls USING pk_grok_calls",
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
    """INSERT INTO insight_topics (topic, timestamp, insight_id, sentiment, confidence)
    SELECT 'topic ' || (n % 500), {at}, n,
      CASE n % 30 WHEN 0 THEN 'negative' ELSE 'neutral' END, 0.9 FROM numbers""",
    # as if they went back for years, under four topics and as many sets of topics
    """INSERT INTO insight_counts
      (span, topic, confidence, period, positive, neutral, negative, score_sum, confidence_sum)
    SELECT CASE n % 2 WHEN 0 THEN 'hour' ELSE 'day' END,
      CASE n % 9 WHEN 0 THEN '*' WHEN 1 THEN 'topic 7' WHEN 2 THEN 'topic 8' WHEN 3 THEN 'topic 9' WHEN 4 THEN 'other'
        ELSE 'topic ' || (n % 9) || '+topic 9' END,
      CASE n % 7 WHEN 0 THEN 90 ELSE -1 END, {first_hour} / CASE n % 2 WHEN 0 THEN 1 ELSE 24 END - 10000 + n,
      n % 2, n % 3, 2, 100, 180
    FROM numbers""",
    """INSERT INTO idempotency_keys (key_hash, body_hash, outcomes, created_at)
    SELECT 'key ' || n, 'hash', '[]', {at} FROM numbers""",
    """INSERT INTO analysis_cache (key, conversation_id, analysis, model, created_at)
    SELECT {key}, {id},
      '{{"sentiment_score": 0, "clusters": ["other"], "confidence": 1, "reasoning": "r", "summary": "s"}}',
      'grok-4.3', {at}
    FROM numbers""",
    # far more than a minute of calls: as if none had been forgotten
    """INSERT INTO grok_calls (id, caller, day, model, conversations, reserved_ticks, called_at)
    SELECT n, 'caller', '2026-01-' || (10 + n % 20), 'grok-4.3', 10, CASE n % 100 WHEN 0 THEN 7 ELSE 0 END, {at}
    FROM numbers""",
)


def seed(connection: Connection) -> None:
    """By the migrations, as a user's is made: of two indexes that cost the same, SQLite takes the newer one."""
    migrate(connection, "head")
    shared = {"first_hour": f"{hour_of(FIRST)}"}
    if connection.dialect.name == "sqlite":
        numbers = f"WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {ROWS})"
        marks = {"id": "printf('conv_%032x', n)", "at": f"{int(FIRST.timestamp())}000000 + n * 1000000"}
        marks["key"] = "CAST(printf('%032d', n) AS BLOB)"
        connection.exec_driver_sql("BEGIN")
    else:
        numbers = f"WITH numbers AS (SELECT generate_series(1, {ROWS}) AS n)"
        marks = {"id": "'conv_' || lpad(to_hex(n), 32, '0')", "at": f"'{FIRST}'::timestamptz + n * interval '1 second'"}
        marks["key"] = "convert_to(lpad(n::text, 32, '0'), 'UTF8')"
    for statement in SEED:
        table, columns = statement.format(**shared, **marks).split("SELECT", 1)
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


@pytest.fixture
def sqlite(connection: Connection) -> Connection:
    """PostgreSQL has statistics and plans for itself."""
    if connection.dialect.name != "sqlite":
        pytest.skip("only SQLite is told its plan")
    return connection


def plans_of(connection: Connection, unit: Callable[[WriteSession], Any]) -> dict[str, str]:
    """The plan of each statement that the unit runs, but for inserts; what it changes is undone."""
    ran: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: Any) -> None:
        ran.append((statement, parameters))

    def note_hot(session: ReadSession, text: str, parameters: Any) -> Sequence[tuple[Any, ...]]:
        ran.append((text, parameters))
        return fetch(session, text, parameters)

    connection.exec_driver_sql("BEGIN")
    event.listen(connection, "before_cursor_execute", note)
    try:
        with pytest.MonkeyPatch.context() as seam:
            seam.setattr("queries.hot.fetch", note_hot)
            unit(WriteSession(ReadSession(connection)))
    finally:
        event.remove(connection, "before_cursor_execute", note)
        connection.exec_driver_sql("ROLLBACK")
    return {
        statement: _explain(connection, statement, parameters[0] if isinstance(parameters, list) else parameters)
        for statement, parameters in ran
        if not statement.startswith("INSERT")
    }


def _explain(connection: Connection, statement: str, parameters: Any) -> str:
    explain = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
    rows = connection.exec_driver_sql(f"{explain} {statement}", parameters)
    plan = "\n".join(str(row[-1]) for row in rows)
    for as_sqlite_says, name in SQLITE_NAMES.items():
        plan = plan.replace(as_sqlite_says, name)
    return plan


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


def follow(**wanted: Any) -> Callable[[WriteSession], Any]:
    return partial(queries.follow_insights, query=EventQuery(**wanted), after=ROWS - 500, now=FIRST)


LATER = FIRST + timedelta(days=2)
DAY = {"start_time": MIDDLE, "end_time": MIDDLE + timedelta(minutes=5)}
IN_THE_MIDDLE = Position(MIDDLE, 10_000).encode()


@pytest.mark.parametrize(
    ("unit", "indexes"),
    [
        pytest.param(
            partial(store.claim_batch, limit=10, now=LATER, lease=timedelta(minutes=1)),
            ["ix_conversations_rescued", "ix_conversations_due_at"],
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
        pytest.param(insights(sentiment=Sentiment.NEGATIVE, limit=10), ["ix_insights_"], id="insights of a side"),
        pytest.param(
            insights(sentiment=Sentiment.NEGATIVE, cursor=IN_THE_MIDDLE),
            ["ix_insights_"],
            id="insights of a side, in the middle",
        ),
        pytest.param(
            insights(sentiment=Sentiment.NEGATIVE, min_confidence=0.8, **DAY),
            ["ix_insights_"],
            id="insights of a side and time",
        ),
        pytest.param(insights(author="author 7"), ["ix_insights_author"], id="insights of an author"),
        pytest.param(insights(topic=["topic 7"]), ["insight_topics"], id="insights of a topic"),
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
        pytest.param(conversations(status=Status.PENDING), ["ix_conversations_due_at"], id="pending conversations"),
        pytest.param(queries.queue_depth, ["ix_conversations_due_at"], id="queue depth"),
        pytest.param(partial(queries.oldest_due, now=LATER), ["ix_conversations_due_at"], id="the longest due"),
        pytest.param(
            partial(queries.is_deeper_than, conversations=50), ["ix_conversations_due_at"], id="is the queue deep?"
        ),
        pytest.param(
            partial(queries.known_analyses, keys=[f"{number:032}".encode() for number in range(50)], since=FIRST),
            ["pk_analysis_cache"],
            id="known answers",
        ),
        pytest.param(
            partial(store.purge_cache, created_before=FIRST + timedelta(seconds=9)),
            ["ix_analysis_cache_created_at"],
            id="purge of answers",
        ),
        pytest.param(
            partial(queries.count_for_operator, day="2026-01-17"),
            ["ix_conversations_due_at", "ix_conversations_set_aside", "ix_grok_calls_day"],
            id="the operator's counts",
        ),
        pytest.param(
            partial(queries.count_for_scrape, now=datetime(2026, 1, 17, tzinfo=UTC)),
            ["ix_conversations_due_at", "ix_conversations_set_aside", "ix_grok_calls_day"],
            id="what Prometheus asks",
        ),
        pytest.param(
            partial(store.cancel_call, number=7, now=FIRST + timedelta(seconds=70)),
            ["pk_grok_calls", "ix_grok_calls_called_at"],
            id="cancel a call",
        ),
        pytest.param(
            partial(store.settle_call, number=100, settlement=Settlement(), now=FIRST + timedelta(seconds=70)),
            ["pk_grok_calls", "ix_grok_calls_called_at"],
            id="settle a call",
        ),
        pytest.param(follow(), ["pk_insights"], id="what is new"),
        pytest.param(
            follow(topic=["topic 7"], sentiment=Sentiment.NEGATIVE),
            ["pk_insights", "pk_insight_topics"],
            id="what is new of a topic",
        ),
    ],
)
def test_a_hot_query_walks_the_index_made_for_it(
    connection: Connection, unit: Callable[[WriteSession], Any], indexes: list[str]
) -> None:
    told = "\n\n".join(plans_of(connection, unit).values())

    assert [index for index in indexes if index not in told] == [], told
    assert scanned(told) == [], told


@pytest.mark.parametrize(
    ("wanted", "way", "index"),
    [
        pytest.param({"sentiment": "negative"}, "walk", "ix_insights_timestamp", id="walk"),
        pytest.param({"sentiment": "negative"}, "leap", "ix_insights_judged", id="leap"),
        pytest.param({"min_confidence": 0.8, **DAY}, "walk", "ix_insights_timestamp", id="walk a time"),
        pytest.param({"min_confidence": 0.95, **DAY}, "leap", "ix_insights_judged", id="leap within a time"),
        pytest.param({"sentiment": "negative", "topic": ["topic 7"]}, "walk", "pk_insight_topics", id="walk a topic"),
        pytest.param(
            {"sentiment": "negative", "topic": ["topic 7"]}, "leap", "ix_insight_topics_judged", id="leap within one"
        ),
    ],
)
def test_both_ways_to_a_page_read_nothing_but_their_index(
    sqlite: Connection, wanted: dict[str, Any], way: Literal["walk", "leap"], index: str
) -> None:
    page = partial(
        read_page,
        wanted=InsightFilter(**wanted),
        columns=(InsightRow.conversation_id,),
        limit=10,
        after=Position(MIDDLE, 10_000),
        ways=(way,),
    )

    [plan] = plans_of(sqlite, page).values()

    assert f"COVERING INDEX {index}" in plan or f"USING {index}" in plan, plan
    assert ("TEMP B-TREE FOR ORDER BY" in plan.split("SCAN anon_1")[0]) == (way == "leap"), plan


def test_the_insights_of_an_author_are_counted_one_by_one(connection: Connection) -> None:
    plans = plans_of(connection, insights(author="author 7"))

    [plan] = [plan for statement, plan in plans.items() if statement.startswith("SELECT count(*)")]
    assert "ix_insights_author" in plan
    assert scanned(plan) == [], plan


def test_what_is_reserved_before_a_call_reads_only_the_last_second_and_the_day(connection: Connection) -> None:
    """On PostgreSQL the window is that of its own clock, in which the calls made up here are long past."""
    now = FIRST + timedelta(seconds=ROWS)
    wanted = Reservation("caller", 1, "grok-4.3", 10, 7, 0, 10, timedelta(seconds=1))

    plans = plans_of(connection, partial(store.reserve_call, wanted=wanted, now=now))

    told = "\n\n".join(plans.values())
    assert "ix_grok_calls_called_at" in told
    assert "ix_grok_calls_day" in told
    assert scanned(told) == [], told


@pytest.mark.parametrize("table", ["insights", "analysis_cache"])
def test_what_a_conversation_left_behind_is_found_by_an_index_when_it_is_erased(
    connection: Connection, table: str
) -> None:
    statement = f"DELETE FROM {table} WHERE conversation_id = '{CLAIM.conversation_id}'"  # as the cascade does

    plan = _explain(connection, statement, ())

    assert "conversation_id" in plan
    assert scanned(plan) == [], plan
