"""Addresses and connections: which databases the service speaks, and how each connection is set."""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from database.failures import is_locked
from errors import StorageUnusable

PATIENCE_S = 5  # with another process that has the lock
_WAL_KEPT_BYTES = 4 * 1024 * 1024
LOCK_POLL_MS = 100  # so that who has waited long enough is answered in time
_LONGEST_PAUSE_S = 10  # between two statements of a transaction, which are milliseconds apart


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


def file_of(url: URL) -> Path | None:
    """None when it is a server's."""
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def make_engine(url: URL, *, pool_size: int, may_write: bool) -> Engine:
    sqlite = url.get_backend_name() == "sqlite"
    arguments: dict[str, Any] = {"check_same_thread": False, "timeout": PATIENCE_S} if sqlite else {}
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_use_lifo=True,  # whose pages are still in its cache
        pool_pre_ping=not sqlite,
        isolation_level="AUTOCOMMIT",  # every BEGIN and COMMIT is written out
        connect_args=arguments,
        hide_parameters=True,  # an error that is logged must not hold what a customer wrote
        json_serializer=_to_json,
        json_deserializer=_from_json,
    )
    if sqlite:
        event.listen(engine, "connect", _pragmas_for(may_write=may_write))
    else:
        event.listen(engine, "connect", _set_up_session)
    return engine


def begin_immediate(connection: Connection, goes_on_waiting: Callable[[DBAPIError], bool]) -> bool:
    """Take SQLite's lock; asked every 100 ms while another process has it, whether to go on waiting."""
    while True:
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        except DBAPIError as error:
            if not is_locked(error):
                raise
            if not goes_on_waiting(error):
                return False
        else:
            return True


def _to_json(value: object) -> str:
    return orjson.dumps(value).decode()


def _from_json(value: str | bytes) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:  # it was written by `_to_json`
        raise StorageUnusable("The database file is damaged; see the log.", retry_after_s=30) from None


def _pragmas_for(*, may_write: bool) -> Callable[[sqlite3.Connection, object], None]:
    pragmas = ["foreign_keys=ON", "temp_store=MEMORY", "cache_size=-16000"]
    if may_write:
        pragmas += [
            "journal_mode=WAL",
            "synchronous=FULL",  # a 202 is on disk
            "secure_delete=ON",  # what is erased is overwritten
            "wal_autocheckpoint=0",  # by the writer's timer, never inside a commit
            f"journal_size_limit={_WAL_KEPT_BYTES}",
            f"busy_timeout={LOCK_POLL_MS}",
        ]
    else:
        pragmas += ["query_only=ON"]

    def apply(connection: sqlite3.Connection, _record: object) -> None:
        for pragma in pragmas:
            _set_pragma(connection, pragma)

    return apply


def _set_pragma(connection: sqlite3.Connection, pragma: str) -> None:
    """Turning a new file to WAL does not wait for its lock as statements do, and processes may start together."""
    patience_ends_at = time.monotonic() + PATIENCE_S
    while True:
        try:
            connection.execute(f"PRAGMA {pragma}").close()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > patience_ends_at:
                raise
            time.sleep(0.02)
        else:
            return


def _set_up_session(connection: Any, _record: object) -> None:
    """On PostgreSQL. A process that is stopped within a transaction must not keep its rows from everybody else.

    UTC, because the last hours of the year 9999 are in the year 10000 further east, which Python cannot read.
    """
    connection.execute("SET TIME ZONE 'UTC'")
    connection.execute(f"SET idle_in_transaction_session_timeout = '{_LONGEST_PAUSE_S}s'")
