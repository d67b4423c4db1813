import asyncio
import sqlite3
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import event, func, insert, select
from sqlalchemy.exc import DBAPIError, IntegrityError

from database import Database, ReadSession, WriteSession, parse_database_url
from errors import DatabaseBusy, Overloaded, StorageFull, StorageUnusable
from models import Conversation, IdempotencyKey

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PATIENCE_S = 20


def keep(key: str) -> Callable[[WriteSession], str]:
    """A unit that stores one small row and answers with its key."""

    def unit(session: WriteSession) -> str:
        row = {"key_hash": key, "body_hash": "body", "outcomes": [["id", "accepted"]], "created_at": NOW}
        session.execute(insert(IdempotencyKey), [row])
        return key

    return unit


def keep_then_raise(key: str, error: BaseException) -> Callable[[WriteSession], None]:
    def unit(session: WriteSession) -> None:
        keep(key)(session)
        raise error

    return unit


def keys(session: ReadSession) -> set[str]:
    return set(session.scalars(select(IdempotencyKey.key_hash)))


def keys_seen_from_outside(url: str) -> set[str]:
    """What another process would read: committed rows only."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            return {row[0] for row in connection.execute("SELECT key_hash FROM idempotency_keys")}
    with psycopg.connect(url) as session:
        return {row[0] for row in session.execute("SELECT key_hash FROM idempotency_keys")}


@asynccontextmanager
async def one_group(database: Database) -> AsyncGenerator[None]:
    """What is handed over inside is committed as one group: the writer is held up until the end."""
    started, gate = threading.Event(), threading.Event()

    def hold_up(_session: WriteSession) -> bool:
        started.set()
        return gate.wait(PATIENCE_S)

    held_up = asyncio.create_task(database.write(hold_up))
    assert await asyncio.to_thread(started.wait, PATIENCE_S)
    try:
        yield
        await asyncio.sleep(0)  # tasks made inside hand their units over
    finally:
        gate.set()
        await held_up


async def write_together(database: Database, *units: Callable[[WriteSession], Any]) -> list[Any]:
    """The value or the error of each unit, all of them committed as one group."""
    async with one_group(database):
        tasks = [asyncio.create_task(database.write(unit)) for unit in units]
    return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE_S)


async def test_concurrent_writes_share_one_commit(database: Database) -> None:
    statements: list[str] = []

    def watch(session: WriteSession) -> None:
        def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
            statements.append(statement)

        event.listen(session, "before_cursor_execute", note)

    await write_together(database, watch, *(keep(f"key {number}") for number in range(20)))

    assert statements.count("COMMIT") == 1
    assert len(await database.read(keys)) == 20


async def test_each_commit_is_told_with_the_units_it_holds(database_url: str) -> None:
    commits: list[int] = []
    database = Database.connect(database_url, on_commit=lambda units, _seconds: commits.append(units))
    await database.open()

    await write_together(database, *map(keep, "abc"))  # after the unit that held the writer up
    await database.write(keep("alone"), alone=True)
    await database.close()

    assert commits == [1, 3, 1]


async def test_more_units_than_one_commit_takes_are_all_stored(database: Database) -> None:
    wanted = [f"key {number}" for number in range(1_100)]

    values = await write_together(database, *map(keep, wanted))

    assert values == wanted
    assert await database.read(keys) == set(wanted)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ValueError("no"), id="an error of the unit's own"),
        pytest.param(StopIteration(), id="StopIteration, which a future refuses to carry"),
        pytest.param(Overloaded("The backlog is full."), id="an error that also stands for a database in trouble"),
    ],
)
async def test_a_unit_that_fails_is_undone_alone(database: Database, error: Exception) -> None:
    answers = await write_together(database, keep("first"), keep_then_raise("undone", error), keep("last"))

    assert [answers[0], answers[2]] == ["first", "last"]
    assert await database.read(keys) == {"first", "last"}


async def test_a_unit_that_breaks_a_constraint_is_undone_alone(database: Database) -> None:
    answers = await write_together(database, keep("same"), keep("same"), keep("last"))

    assert isinstance(answers[1], IntegrityError)
    assert await database.read(keys) == {"same", "last"}


async def test_an_error_does_not_repeat_what_a_customer_wrote(database: Database) -> None:
    await database.write(keep("same"))
    private = insert(IdempotencyKey).values(key_hash="same", body_hash="my card is 4111", outcomes=[], created_at=NOW)

    with pytest.raises(IntegrityError) as refusal:
        await database.write(lambda session: session.execute(private).close())

    assert "4111" not in str(refusal.value)


async def test_a_unit_that_raises_is_heard_by_its_caller(database: Database) -> None:
    with pytest.raises(ValueError, match="not today"):
        await database.write(keep_then_raise("undone", ValueError("not today")))


async def test_a_read_that_runs_out_of_rows_is_heard_by_its_caller(database: Database) -> None:
    with pytest.raises(LookupError):
        await asyncio.wait_for(database.read(lambda _session: next(iter(()))), PATIENCE_S)


async def test_an_answer_comes_after_its_commit(database: Database, database_url: str) -> None:
    for number in range(20):
        key = await database.write(keep(f"key {number}"))

        assert key in keys_seen_from_outside(database_url)


async def test_a_cancelled_caller_has_handed_its_unit_over(database: Database) -> None:
    async with one_group(database):
        caller = asyncio.create_task(database.write(keep("kept")))
        await asyncio.sleep(0)
        caller.cancel()
    await database.write(keep("later"))

    assert caller.cancelled()
    assert await database.read(keys) == {"kept", "later"}


async def test_closing_commits_what_was_handed_over(database: Database, database_url: str) -> None:
    async with one_group(database):
        writes = [asyncio.create_task(database.write(keep(f"key {number}"))) for number in range(20)]
        await asyncio.sleep(0)
        closing_down = asyncio.create_task(database.close())
    await asyncio.wait_for(closing_down, PATIENCE_S)

    assert {await write for write in writes} == keys_seen_from_outside(database_url)
    assert len(writes) == 20


@pytest.mark.parametrize("unit", [pytest.param(keep("late"), id="a write"), pytest.param(keys, id="a read")])
async def test_a_closed_database_says_that_the_service_is_shutting_down(
    database: Database, unit: Callable[[ReadSession], Any]
) -> None:
    await database.close()

    with pytest.raises(Overloaded, match="shutting down"):
        await (database.read(unit) if unit is keys else database.write(unit))


async def test_closing_twice_is_closing_once(database: Database) -> None:
    await database.close()
    await database.close()


async def test_no_thread_outlives_the_database(database_url: str) -> None:
    before = set(threading.enumerate())
    database = Database.connect(database_url)
    await database.open()
    await asyncio.gather(database.write(keep("one")), database.read(keys), database.read(keys))

    await database.close()

    ours = [thread.name for thread in set(threading.enumerate()) - before]
    assert [name for name in ours if name.startswith(("writer", "reader"))] == []


@pytest.mark.unit
def test_closing_folds_the_log_into_the_file(sqlite_url: str, tmp_path: Path) -> None:
    async def write_and_close() -> None:
        database = Database.connect(sqlite_url)
        await database.open()
        await database.write(keep("kept"))
        await database.close()

    asyncio.run(write_and_close())

    assert {path.name for path in tmp_path.iterdir()} == {"insights.db", "insights.db.open"}  # no log beside it


async def test_a_read_cannot_write(database: Database) -> None:
    with pytest.raises((DBAPIError, StorageUnusable)):
        await database.read(lambda session: keep("smuggled")(WriteSession(session)))

    assert await database.read(keys) == set()


async def test_a_read_sees_one_snapshot(database: Database) -> None:
    looked, written = threading.Event(), threading.Event()

    def look_twice(session: ReadSession) -> tuple[set[str], set[str]]:
        first = keys(session)
        looked.set()
        assert written.wait(PATIENCE_S)
        return first, keys(session)

    reading = asyncio.create_task(database.read(look_twice))
    assert await asyncio.to_thread(looked.wait, PATIENCE_S)
    await database.write(keep("in between"))
    written.set()

    assert await reading == (set(), set())


@pytest.mark.unit
async def test_a_locked_file_is_busy_and_free_again(sqlite_url: str, tmp_path: Path) -> None:
    database = Database.connect(sqlite_url, patience_s=0.2)
    await database.open()
    with closing(sqlite3.connect(tmp_path / "insights.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        answers = await write_together_unheld(database, keep("one"), keep("two"))
        assert await database.read(keys) == set()
        other.execute("ROLLBACK")

    assert [type(answer) for answer in answers] == [DatabaseBusy, DatabaseBusy]
    assert await database.write(keep("three")) == "three"
    await database.close()


@pytest.mark.unit
async def test_who_comes_while_the_file_is_locked_waits_for_a_time_of_their_own(
    sqlite_url: str, tmp_path: Path
) -> None:
    database = Database.connect(sqlite_url, patience_s=1.0)
    await database.open()
    with closing(sqlite3.connect(tmp_path / "insights.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        first = asyncio.create_task(database.write(keep("first")))
        await asyncio.sleep(0.7)
        second = asyncio.create_task(database.write(keep("second")))
        await asyncio.wait({first})
        second_still_waits = not second.done()
        other.execute("ROLLBACK")

    assert isinstance(first.exception(), DatabaseBusy)
    assert second_still_waits
    assert await second == "second"
    assert await database.read(keys) == {"second"}
    await database.close()


async def write_together_unheld(database: Database, *units: Callable[[WriteSession], Any]) -> list[Any]:
    return await asyncio.wait_for(asyncio.gather(*map(database.write, units), return_exceptions=True), PATIENCE_S)


@pytest.mark.unit
async def test_a_full_disk_refuses_writes_and_answers_reads_until_there_is_room(sqlite_url: str) -> None:
    database = Database.connect(sqlite_url)
    await database.open()
    await database.write(keep("before"))
    await database.write(limit_pages("(SELECT page_count FROM pragma_page_count())"))

    answers = await write_together(database, keep("a" * 50_000), keep("b" * 50_000))
    seen_when_full = await database.read(keys)
    await database.write(limit_pages("1000000"))

    assert [type(answer) for answer in answers] == [StorageFull, StorageFull]
    assert seen_when_full == {"before"}
    assert await database.write(keep("c" * 50_000))
    await database.close()


def limit_pages(pages: str) -> Callable[[WriteSession], None]:
    def unit(session: WriteSession) -> None:
        count = session.exec_driver_sql(f"SELECT {pages}").scalar_one()
        session.exec_driver_sql(f"PRAGMA max_page_count={count}").close()

    return unit


@pytest.mark.unit
async def test_the_writer_syncs_every_commit_and_knows_foreign_keys(sqlite_url: str) -> None:
    database = Database.connect(sqlite_url)
    await database.open()

    def pragma(session: WriteSession) -> list[Any]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [session.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    assert await database.write(pragma) == ["wal", 2, 1]  # 2 is FULL
    await database.close()


async def test_several_processes_may_open_an_empty_database_at_once(database_url: str) -> None:
    databases = [Database.connect(database_url) for _ in range(8)]

    await asyncio.gather(*(database.open() for database in databases))

    assert await asyncio.gather(*(database.schema_is_current() for database in databases)) == [True] * 8
    for database in databases:
        await database.close()


async def test_an_older_schema_is_told_from_the_current_one(database: Database) -> None:
    assert await database.schema_is_current()

    await database.write(
        lambda session: session.exec_driver_sql("UPDATE alembic_version SET version_num = 'old'").close()
    )

    assert not await database.schema_is_current()


async def test_opening_again_keeps_what_is_stored(database: Database, database_url: str) -> None:
    await database.write(keep("kept"))
    await database.close()

    again = Database.connect(database_url)
    await again.open()

    assert await again.read(keys) == {"kept"}
    await again.close()


@pytest.mark.integration
async def test_a_server_that_restarts_costs_the_work_in_flight_and_no_more(postgresql_url: str) -> None:
    database = Database.connect(postgresql_url)
    await database.open()

    def cut(session: ReadSession) -> None:
        session.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())").close()

    with pytest.raises(Overloaded):
        await database.write(cut)
    with pytest.raises(Overloaded):
        await database.read(cut)

    assert await database.write(keep("after")) == "after"
    assert await database.read(keys) == {"after"}
    await database.close()


@pytest.mark.integration
async def test_what_was_read_before_the_connection_was_lost_is_answered(
    postgresql_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database.connect(postgresql_url, readers=1)
    await database.open()
    await database.write(keep("there"))

    def read_and_lose(session: ReadSession) -> set[str]:
        found = keys(session)
        pid = session.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        with closing(psycopg.connect(postgresql_url, autocommit=True)) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        return found

    assert await database.read(read_and_lose) == {"there"}
    assert await database.read(keys) == {"there"}  # on another connection
    assert caplog.records == []
    await database.close()


@pytest.mark.integration
async def test_a_server_that_cannot_be_reached_is_overloaded_not_broken(tmp_path: Path) -> None:
    database = Database.connect(f"postgresql://postgres@/insights?host={tmp_path}")

    with pytest.raises(Overloaded, match="does not answer"):
        await database.open()
    await database.close()


@pytest.mark.integration
async def test_moments_at_the_edge_are_read_whatever_the_servers_time_zone(postgresql_url: str) -> None:
    database = Database.connect(f"{postgresql_url}%20-cTimeZone%3DAsia/Tokyo")
    await database.open()
    last = datetime.max.replace(tzinfo=UTC)
    row = {"key_hash": "key", "body_hash": "body", "outcomes": [["id", "accepted"]], "created_at": last}

    await database.write(lambda session: session.execute(insert(IdempotencyKey), [row]).close())

    assert await database.read(lambda session: session.scalar(select(IdempotencyKey.created_at))) == last
    await database.close()


async def test_an_empty_database_counts_nothing(database: Database) -> None:
    count = select(func.count()).select_from(Conversation)

    assert await database.read(lambda session: session.scalar(count)) == 0


@pytest.mark.unit
@pytest.mark.parametrize(
    ("url", "driver"),
    [
        pytest.param("sqlite:///./insights.db", "sqlite", id="SQLite"),
        pytest.param("sqlite+aiosqlite:///./insights.db", "sqlite", id="SQLite with another driver named"),
        pytest.param("postgresql://user:secret@host/insights", "postgresql+psycopg", id="PostgreSQL"),
        pytest.param("postgresql+asyncpg://host/insights", "postgresql+psycopg", id="PostgreSQL, another driver named"),
        pytest.param("postgres://host/insights", "postgresql+psycopg", id="the short name that hosts hand out"),
    ],
)
def test_a_url_gets_the_driver_that_the_service_speaks(url: str, driver: str) -> None:
    parsed = parse_database_url(url)

    assert parsed.drivername == driver
    assert parsed.database in {"./insights.db", "insights"}


@pytest.mark.unit
@pytest.mark.parametrize(
    "url",
    [
        pytest.param("", id="nothing"),
        pytest.param("insights.db", id="a path alone"),
        pytest.param("mysql://user:secret@host/insights", id="another kind of database"),
        pytest.param("nosuch+thing://user:secret@host", id="no database at all"),
        pytest.param("sqlite://", id="a database in memory"),
        pytest.param("sqlite:///:memory:", id="a database in memory by name"),
        pytest.param("sqlite:///file::memory:?uri=true", id="a database in memory as a URI"),
        pytest.param("postgresql://user:secret@host:port/insights", id="a port that is no number"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="DATABASE_URL") as refusal:
        parse_database_url(url)

    assert "secret" not in str(refusal.value)


async def test_a_read_that_hangs_does_not_hold_up_the_end(tmp_path: Path) -> None:
    database = Database.connect(f"sqlite:///{tmp_path / 'insights.db'}")
    await database.open()
    begun, gate = threading.Event(), threading.Event()

    def hang(_session: ReadSession) -> bool:
        begun.set()
        return gate.wait(30)

    hanging = asyncio.create_task(database.read(hang))
    await asyncio.to_thread(begun.wait)

    await database.close()

    assert not hanging.done()
    gate.set()
    assert await hanging
