"""The engine: one thread that writes with group commit, a small pool that reads, and the migrations.

A unit of work is a plain function of a session. `write(unit)` hands it to the writer's thread, which puts all that has
gathered into one transaction, each unit behind a savepoint of its own; the caller goes on after *its* commit.

    write(unit) --> queue --> BEGIN IMMEDIATE, [SAVEPOINT, unit, RELEASE]*, COMMIT --> every caller answered
    read(unit)  --> reader thread: BEGIN, unit, COMMIT on a connection that cannot write
"""

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NewType, TypeVar

import orjson
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError

from errors import DatabaseBusy, Draining, InsightsError, Overloaded, StorageFull, StorageUnusable
from survival import pass_by
from telemetry import get_logger

ReadSession = NewType("ReadSession", Connection)  # queries take this
WriteSession = NewType("WriteSession", ReadSession)  # store takes this: handing it a ReadSession does not type-check

OnCommit = Callable[[int, float], None]  # is told, on the writer's thread, how many units and how many seconds
T = TypeVar("T")
log = get_logger()

MIGRATIONS = Path(__file__).with_name("migrations")
BUSY_TIMEOUT_S = 5
_MOST_UNITS_A_COMMIT = 500
_MOST_RUNS_OF_A_UNIT = 3  # each further one for a key that another replica stored meanwhile
_CHECKPOINT_EVERY_S = 1.0
_WAL_LIMIT_BYTES = 4 * 1024 * 1024
_UNUSABLE_FILE = {
    *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CANTOPEN),
    sqlite3.SQLITE_NOTADB,
}
_LOCKED_ROW = {"40001", "40P01"}  # PostgreSQL's serialization_failure and deadlock_detected
_NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "fuse.sshfs", "afs"}


@dataclass(slots=True)
class _Job:
    """A unit of work, and what became of it."""

    unit: Callable[[WriteSession], Any]
    answered: asyncio.Future[Any]
    alone: bool = False
    value: Any = None
    error: BaseException | None = None


class Database:
    """The one way to the tables. Build it with `connect`, end it with `close`."""

    def __init__(self, url: URL, *, readers: int = 4, on_commit: OnCommit = lambda _units, _seconds: None) -> None:
        self.dialect = url.get_backend_name()
        self.file = Path(url.database) if self.dialect == "sqlite" and url.database else None
        self._write_engine = _create_engine(url, pool_size=1, may_write=True)
        self._read_engine = _create_engine(url, pool_size=readers, may_write=False)
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="reader")
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._on_commit = on_commit
        # a daemon: an exit without close() is a crash, and nothing hangs
        self._writer = threading.Thread(target=self._run_writer, name="writer", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @classmethod
    def connect(cls, url: str, *, readers: int = 4, on_commit: OnCommit = lambda _units, _seconds: None) -> "Database":
        """Raises ValueError, with a sentence for the user, when `url` names no database that the service can use."""
        try:
            return cls(parse_database_url(url), readers=readers, on_commit=on_commit)
        except ModuleNotFoundError as error:
            raise ValueError("PostgreSQL needs its driver: .venv/bin/pip install 'psycopg[binary]'") from error

    async def open(self) -> None:
        """Bring the schema up to date and start the writer."""
        self._loop = asyncio.get_running_loop()
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            _warn_of_network_file_system(self.file)
        await asyncio.to_thread(self._migrate)
        self._writer.start()

    async def close(self) -> None:
        """Commit what has been handed over, fold the WAL into the file, and let every connection go."""
        if self._closed:
            return
        self._closed = True
        self._jobs.put(None)
        if self._writer.ident is not None:
            await asyncio.to_thread(self._writer.join)
        self._readers.shutdown(wait=True)
        self._read_engine.dispose()
        self._write_engine.dispose()

    async def write(self, unit: Callable[[WriteSession], T], *, alone: bool = False) -> T:
        """The value of `unit`, after the commit that holds it; if `unit` raises, it alone is rolled back.

        It may be run again, when another replica stored the same key first or locked crosswise. `alone`: it locks what
        replicas share, so on PostgreSQL it gets a transaction of its own.

        Raises what `unit` raises, DatabaseBusy, StorageFull or Overloaded. A caller that is cancelled has handed its
        unit over: it commits all the same.
        """
        if self._closed or self._loop is None:
            raise Draining
        job = _Job(unit, self._loop.create_future(), alone)
        self._jobs.put(job)
        value: T = await job.answered
        return value

    async def read(self, unit: Callable[[ReadSession], T]) -> T:
        """The value of `unit`, all of whose statements see one snapshot."""
        if self._closed or self._loop is None:
            raise Draining
        return await self._loop.run_in_executor(self._readers, self._read, unit)

    async def schema_is_current(self) -> bool:
        return await self.read(lambda s: MigrationContext.configure(s).get_current_revision() == _newest_version())

    def _read(self, unit: Callable[[ReadSession], T]) -> T:
        begin = "BEGIN" if self.dialect == "sqlite" else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        with _translated(), self._read_engine.connect() as connection:
            connection.exec_driver_sql(begin)
            try:
                return unit(ReadSession(connection))
            finally:
                with suppress(SQLAlchemyError):  # a connection that was lost has nothing to end
                    connection.exec_driver_sql("ROLLBACK")

    def _migrate(self) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        with _translated(), self._write_engine.connect() as connection:
            config.attributes["connection"] = connection
            if self.dialect == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.exec_driver_sql("BEGIN")
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7431)")  # replicas that start together
            command.upgrade(config, "head")
            connection.exec_driver_sql("COMMIT")

    def _run_writer(self) -> None:
        checkpointed_at, dirty = time.monotonic(), False
        while (group := self._gather(_CHECKPOINT_EVERY_S if dirty else None)) is not None:
            if group:
                _answer_all(self._loop, self._commit(group))
                dirty = self.dialect == "sqlite"
            if dirty and time.monotonic() - checkpointed_at >= _CHECKPOINT_EVERY_S:
                self._checkpoint()
                checkpointed_at, dirty = time.monotonic(), False
        if self.dialect == "sqlite":
            self._checkpoint()

    def _gather(self, timeout_s: float | None) -> list[_Job] | None:
        """What has been handed over since; empty after `timeout_s` without work, None when the writer is to end."""
        try:
            job = self._jobs.get(timeout=timeout_s)
        except queue.Empty:
            return []
        group: list[_Job] = []
        while job is not None:
            group.append(job)
            if len(group) == _MOST_UNITS_A_COMMIT:
                return group
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return group
        if not group:
            return None
        self._jobs.put(None)  # the end is due after this group
        return group

    def _commit(self, group: Sequence[_Job]) -> Sequence[_Job]:
        apart = self.dialect == "postgresql"
        for jobs in ([job for job in group if not (apart and job.alone)], *([j] for j in group if apart and j.alone)):
            if jobs:
                self._commit_together(jobs)
        return group

    def _commit_together(self, jobs: Sequence[_Job]) -> None:
        started = time.monotonic()
        try:
            with _translated(), self._write_engine.connect() as connection:
                self._run_group(connection, jobs)
            self._on_commit(len(jobs), time.monotonic() - started)
        except Exception as error:  # noqa: BLE001 - whatever it is, each caller must hear it, and the writer go on
            crosswise = len(jobs) > 1 and isinstance(error, DatabaseBusy) and self.dialect == "postgresql"
            for job in jobs:
                job.error = None if crosswise else job.error or error
                if crosswise:  # with a replica
                    self._commit_together([job])

    def _run_group(self, connection: Connection, group: Sequence[_Job]) -> None:
        session = WriteSession(ReadSession(connection))
        connection.exec_driver_sql("BEGIN IMMEDIATE" if self.dialect == "sqlite" else "BEGIN")
        try:
            for job in group:
                _run_unit(session, job)
            pass_by("before_commit")
            connection.exec_driver_sql("COMMIT")
            pass_by("after_commit")
        except BaseException:
            with suppress(SQLAlchemyError):  # SQLite has already rolled back when the disk is full
                connection.exec_driver_sql("ROLLBACK")
            raise

    def _checkpoint(self) -> None:
        try:
            with self._write_engine.connect() as connection:
                pass_by("before_checkpoint")
                connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")
        except Exception as error:  # noqa: BLE001 - whatever it is, the writer goes on
            log.warning("checkpoint_failed", error=type(error).__name__)


def parse_database_url(url: str) -> URL:
    """The URL with the driver that the service speaks; a driver named in it (`+aiosqlite`, `+asyncpg`) is replaced."""
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (SQLAlchemyError, ValueError):
        raise ValueError("DATABASE_URL must look like sqlite:///./insights.db or postgresql://user@host/name") from None
    if backend == "postgres":
        backend = "postgresql"
    if backend not in {"sqlite", "postgresql"}:
        raise ValueError("DATABASE_URL must name a SQLite file or a PostgreSQL database")
    if backend == "sqlite" and (not parsed.database or ":memory:" in parsed.database or "uri" in parsed.query):
        raise ValueError("DATABASE_URL must name a file: a database in memory would lose what was accepted")
    return parsed.set(drivername="sqlite" if backend == "sqlite" else "postgresql+psycopg")


def _create_engine(url: URL, *, pool_size: int, may_write: bool) -> Engine:
    sqlite = url.get_backend_name() == "sqlite"
    arguments: dict[str, Any] = {"check_same_thread": False, "timeout": BUSY_TIMEOUT_S} if sqlite else {}
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=not sqlite,
        isolation_level="AUTOCOMMIT",  # every BEGIN and COMMIT is written out, above
        connect_args=arguments,
        hide_parameters=True,  # an error that is logged must not hold what a customer wrote
        json_serializer=_to_json,
        json_deserializer=orjson.loads,
    )
    if sqlite:
        event.listen(engine, "connect", _pragmas_for(may_write=may_write))
    else:
        event.listen(engine, "connect", _speak_utc)
    return engine


def _to_json(value: object) -> str:
    return orjson.dumps(value).decode()


def _pragmas_for(*, may_write: bool) -> Callable[[sqlite3.Connection, object], None]:
    pragmas = [f"busy_timeout={BUSY_TIMEOUT_S * 1000}", "foreign_keys=ON", "temp_store=MEMORY", "cache_size=-16000"]
    if may_write:
        pragmas += [
            "journal_mode=WAL",
            "synchronous=FULL",  # a 202 is on disk
            "secure_delete=ON",  # what is erased is overwritten
            "wal_autocheckpoint=0",  # by the writer's timer, never inside a commit
            f"journal_size_limit={_WAL_LIMIT_BYTES}",
        ]
    else:
        pragmas += ["query_only=ON"]

    def apply(connection: sqlite3.Connection, _record: object) -> None:
        for pragma in pragmas:
            _set_pragma(connection, pragma)

    return apply


def _set_pragma(connection: sqlite3.Connection, pragma: str) -> None:
    """Turning a new file to WAL does not wait for its lock as statements do, and processes may start together."""
    patience_ends_at = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute(f"PRAGMA {pragma}").close()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > patience_ends_at:
                raise
            time.sleep(0.02)
        else:
            return


def _speak_utc(connection: Any, _record: object) -> None:
    """The last hours of the year 9999 are in the year 10000 further east, which Python cannot read."""
    connection.execute("SET TIME ZONE 'UTC'")


def _run_unit(session: WriteSession, job: _Job) -> None:
    """Run one unit behind its savepoint; an error that ends the whole transaction is raised, any other is the job's."""
    session.exec_driver_sql("SAVEPOINT unit")
    for _ in range(_MOST_RUNS_OF_A_UNIT):
        try:
            with _translated():
                job.value, job.error = job.unit(session), None
            break
        except Exception as error:
            if isinstance(error, (Overloaded, StorageFull)) and isinstance(error.__cause__, DBAPIError):
                raise  # the database is in trouble, not the unit
            session.exec_driver_sql("ROLLBACK TO SAVEPOINT unit")
            job.error = error
            if not _lost_race(error):
                break
    session.exec_driver_sql("RELEASE SAVEPOINT unit")


def _lost_race(error: Exception) -> bool:
    """Another replica stored the same key first (PostgreSQL's unique_violation): run again, the unit sees its row."""
    return isinstance(error, IntegrityError) and getattr(error.orig, "sqlstate", None) == "23505"


def _answer_all(loop: asyncio.AbstractEventLoop | None, group: Sequence[_Job]) -> None:
    def answer() -> None:
        for job in group:
            if job.answered.done():
                continue
            if job.error is not None:
                job.answered.set_exception(job.error)
            else:
                job.answered.set_result(job.value)

    with suppress(RuntimeError):  # the loop has ended: nobody waits any more
        if loop is not None:
            loop.call_soon_threadsafe(answer)


@contextmanager
def _translated() -> Generator[None, None, None]:
    """Turn what a driver raises into the errors that callers know."""
    try:
        yield
    except StopIteration as error:  # no future carries one: its caller would wait for ever
        raise LookupError("a unit of work let StopIteration out") from error
    except DBAPIError as error:
        translated = _translate(error)
        if translated is None:
            raise
        raise translated from error


def _translate(error: DBAPIError) -> InsightsError | None:
    code = getattr(error.orig, "sqlite_errorcode", None)
    state = getattr(error.orig, "sqlstate", None)
    if (code is not None and code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}) or state in _LOCKED_ROW:
        return DatabaseBusy("The database is locked by another process; send the request again.", retry_after_s=1)
    if (code is not None and code & 0xFF == sqlite3.SQLITE_FULL) or state == "53100":
        return StorageFull("The disk is full; free space, the service resumes by itself.", retry_after_s=30)
    if code is not None and code & 0xFF in _UNUSABLE_FILE:
        return StorageUnusable(
            "The database file cannot be used (it is read-only, damaged, or no database); see the log.",
            retry_after_s=30,
        )
    unreachable = isinstance(error, OperationalError) and code is None and state is None
    if unreachable or error.connection_invalidated or (state or "").startswith(("08", "53", "57")):
        return Overloaded("The database does not answer; send the request again.", retry_after_s=2)
    return None


@cache
def _newest_version() -> str | None:
    return ScriptDirectory(str(MIGRATIONS)).get_current_head()


def _warn_of_network_file_system(file: Path) -> None:
    """WAL needs shared memory and real locks, which network file systems lack (sqlite.org/wal.html)."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return
    folder = file.resolve().parent
    rows = [line.split() for line in mounts.read_text(errors="replace").splitlines()]
    under = [(len(row[1]), row[2]) for row in rows if len(row) > 2 and folder.is_relative_to(row[1])]
    kind = max(under, default=(0, ""))[1]
    if kind in _NETWORK_FILE_SYSTEMS:
        log.warning("database_on_network_file_system", kind=kind, remedy="put the database on a local disk or volume")
