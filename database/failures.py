"""What drivers raise, turned into the errors that callers know."""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, OperationalError

from errors import DatabaseBusy, InsightsError, Overloaded, StorageFull, StorageUnusable

_UNUSABLE_FILE = {
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOTADB,
}
_NO_ROOM_FOR_THE_INDEX = {sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMMAP}  # of the log: its `-shm` file
_UNREACHABLE = ("08", "53", "57", "25P03")  # connection lost, no room, going down, paused for too long in a transaction
_LOCKED_ROW = {"40001", "40P01"}  # PostgreSQL's serialization_failure and deadlock_detected


@contextmanager
def translated() -> Generator[None, None, None]:
    """Turn what a driver raises into the errors that callers know."""
    try:
        yield
    except StopIteration as error:  # no future carries one: its caller would wait for ever
        raise LookupError("a unit of work let StopIteration out") from error
    except DBAPIError as error:
        known = translate(error)
        if known is None:
            raise
        raise known from error


def translate(error: DBAPIError) -> InsightsError | None:
    code = getattr(error.orig, "sqlite_errorcode", None)
    state = getattr(error.orig, "sqlstate", None)
    if is_locked(error) or state in _LOCKED_ROW:
        return DatabaseBusy("The database is locked by another process; send the request again.", retry_after_s=1)
    if is_full(error) or state == "53100":
        return StorageFull("The disk is full; free space, the service resumes by itself.", retry_after_s=30)
    if code is not None and code & 0xFF in _UNUSABLE_FILE:
        return StorageUnusable(
            "The database file cannot be used (it is read-only, damaged, or no database); see the log.",
            retry_after_s=30,
        )
    unreachable = isinstance(error, OperationalError) and code is None and state is None
    if unreachable or error.connection_invalidated or (state or "").startswith(_UNREACHABLE):
        return Overloaded("The database does not answer; send the request again.", retry_after_s=2)
    return None


def is_locked(error: DBAPIError) -> bool:
    """Whether another process has SQLite's lock."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def is_full(error: DBAPIError) -> bool:
    """Whether SQLite's disk is."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF == sqlite3.SQLITE_FULL or code in _NO_ROOM_FOR_THE_INDEX)
