"""The log of SQLite's file: what a commit on a large one waits for, and what it does not wait for."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from sqlalchemy import text

from database import Database, ReadSession, WriteSession, log_of
from errors import DatabaseBusy, Overloaded
from tests.harness import wait_until

pytestmark = pytest.mark.unit

PATIENCE_S = 20
A_MOMENT_S = 0.3  # for what must not happen
LARGE_BYTES = 32 * 1024 * 1024


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "insights.db"


@asynccontextmanager
async def opened(file: Path, *, patience_s: float = PATIENCE_S) -> AsyncGenerator[Database]:
    database = Database.connect(f"sqlite:///{file}", patience_s=patience_s)
    await database.open()
    await database.write(lambda session: session.execute(text("CREATE TABLE scratch (content BLOB)")).close())
    try:
        yield database
    finally:
        await database.close()


def fill(session: WriteSession) -> None:
    """So much that the log is large after it."""
    session.execute(text(f"INSERT INTO scratch VALUES (zeroblob({LARGE_BYTES + 1_000_000}))")).close()


def add_row(session: WriteSession) -> str:
    session.execute(text("INSERT INTO scratch VALUES ('row')")).close()
    return "added"


def count_rows(session: ReadSession) -> int:
    count: int = session.execute(text("SELECT count(*) FROM scratch")).scalar_one()
    return count


class LongRead:
    """A read that holds its snapshot until it is told to end."""

    def __init__(self, database: Database) -> None:
        self._began, self._end = threading.Event(), threading.Event()
        self._task = asyncio.create_task(database.read(self._read))

    def _read(self, session: ReadSession) -> int:
        count_rows(session)
        self._began.set()
        assert self._end.wait(PATIENCE_S)
        return count_rows(session)

    async def begun(self) -> "LongRead":
        assert await asyncio.to_thread(self._began.wait, PATIENCE_S)
        return self

    async def end(self) -> int:
        self._end.set()
        return await self._task


async def filled_under_a_read(database: Database) -> LongRead:
    """The log is large, and a read of the service's own keeps it from being emptied."""
    read = await LongRead(database).begun()
    await database.write(fill)
    return read


async def a_read_that_waits(database: Database) -> asyncio.Task[int]:
    """Those that come before the writer has shut the gate are answered at once."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            late = asyncio.create_task(database.read(count_rows))
            answered, _ = await asyncio.wait({late}, timeout=A_MOMENT_S)
            if not answered:
                return late


def wal_bytes(file: Path) -> int:
    return log_of(file).stat().st_size


async def test_a_commit_on_a_large_log_waits_for_our_own_reads_and_begins_a_small_one(file: Path) -> None:
    async with opened(file) as database:
        read = await filled_under_a_read(database)
        large = wal_bytes(file)

        write = asyncio.create_task(database.write(add_row))
        await asyncio.wait({write}, timeout=A_MOMENT_S)
        waited = not write.done()
        seen = await read.end()

        assert (waited, seen, await write) == (True, 0, "added")
        assert wal_bytes(file) < LARGE_BYTES < large


async def test_a_read_that_comes_meanwhile_waits_for_those_under_way_and_is_answered(file: Path) -> None:
    async with opened(file) as database:
        read = await filled_under_a_read(database)
        write = asyncio.create_task(database.write(add_row))

        late = await a_read_that_waits(database)
        await read.end()

        assert await asyncio.wait_for(late, PATIENCE_S) in {1, 2}  # before the row that waits too, or after it
        assert await write == "added"


async def test_who_waits_for_reads_is_let_go_in_time_and_the_log_stays_as_it_is(file: Path) -> None:
    async with opened(file, patience_s=0.5) as database:
        read = await filled_under_a_read(database)
        large = wal_bytes(file)

        for _ in range(2):
            with pytest.raises(Overloaded, match="long reads") as refusal:
                await asyncio.wait_for(database.write(add_row), PATIENCE_S)
            assert not isinstance(refusal.value, DatabaseBusy)  # which blames another process
        assert wal_bytes(file) == large
        await read.end()

        assert await database.write(add_row) == "added"
        assert await database.read(count_rows) == 2  # who was let go was not stored


async def test_a_reader_in_another_process_holds_up_nobody_for_long(file: Path) -> None:
    async with opened(file) as database:
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM scratch").fetchone()
            await database.write(fill)

            assert await asyncio.wait_for(database.write(add_row), PATIENCE_S) == "added"
            assert await asyncio.wait_for(database.read(count_rows), PATIENCE_S) == 2
            assert wal_bytes(file) > LARGE_BYTES
            other.execute("ROLLBACK")

        await asyncio.to_thread(wait_until, lambda: wal_bytes(file) == 0)


async def test_our_own_reads_beside_a_foreign_one_hold_up_nobody_for_ever(file: Path) -> None:
    async with opened(file) as database:
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM scratch").fetchone()
            read = await filled_under_a_read(database)
            write = asyncio.create_task(database.write(add_row))
            await asyncio.wait({write}, timeout=A_MOMENT_S)
            await read.end()

            assert await asyncio.wait_for(write, PATIENCE_S) == "added"
            assert await asyncio.wait_for(database.read(count_rows), PATIENCE_S) == 2


async def test_the_end_waits_for_no_read(file: Path) -> None:
    async with opened(file) as database:
        read = await filled_under_a_read(database)
        write = asyncio.create_task(database.write(add_row))
        await asyncio.wait({write}, timeout=A_MOMENT_S)

        await database.close()
        stored = await asyncio.wait_for(write, PATIENCE_S)
        await read.end()

        assert stored == "added"


async def test_vacuuming_waits_for_our_own_reads_as_commits_do(file: Path) -> None:
    async with opened(file) as database:
        read = await filled_under_a_read(database)
        vacuuming = asyncio.create_task(database.vacuum())
        await asyncio.wait({vacuuming}, timeout=A_MOMENT_S)
        waited = not vacuuming.done()
        await read.end()

        await asyncio.wait_for(vacuuming, PATIENCE_S)
        assert waited
