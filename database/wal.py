"""SQLite's write-ahead log, folded into the file between commits and emptied as often as its readers let it.

A checkpoint copies what every reader has gone past; only when nobody reads from the log can it begin anew. Under load
that moment may never come by itself, so now and then the writer holds the lock and waits for it: those who begin to
read meanwhile read the file alone. What was erased is in the log until then, too.
Source: https://www.sqlite.org/wal.html (Avoiding Excessively Large WAL Files)
"""

import shutil
import time
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from database.engine import LOCK_POLL_MS
from errors import StorageFull
from survival import pass_by
from telemetry import get_logger

log = get_logger()

CHECK_EVERY_S = 1.0
_EMPTY_EVERY_S = 5.0
_LONGEST_WAIT_S = 60.0  # between attempts while somebody reads on and on
_LARGE_BYTES = 32 * 1024 * 1024  # from here on commits are held up for it
_TOO_LARGE_BYTES = 64 * 1024 * 1024
_PATIENCE_MS = LOCK_POLL_MS  # with those who are reading
_PATIENCE_WHEN_LARGE_MS = 2_000
_WARN_EVERY_S = 60.0


class WriteAheadLog:
    """Used on the writer's thread only: `tend` to it after each commit, and once a second while it is `in_use`."""

    def __init__(self, engine: Engine, file: Path) -> None:
        self._engine = engine
        self._path = log_of(file)
        self._fold_at = self._empty_at = time.monotonic()
        self._wait_s = _EMPTY_EVERY_S
        self._warn_at = self._fold_at
        self.in_use = True  # by who was here before, perhaps

    def tend(self, *, idle: bool) -> None:
        now = time.monotonic()
        large = self._size() > _LARGE_BYTES
        if idle:
            self.in_use = not self._empty(_PATIENCE_MS)
            return
        self.in_use = True
        if now >= self._empty_at or (large and self._wait_s == _EMPTY_EVERY_S):
            emptied = self._empty(_PATIENCE_WHEN_LARGE_MS if large else _PATIENCE_MS)
            self._wait_s = min(2 * self._wait_s, _LONGEST_WAIT_S) if large and not emptied else _EMPTY_EVERY_S
            self._empty_at = time.monotonic() + self._wait_s
        elif now >= self._fold_at:
            self._checkpoint("PASSIVE")

    def _empty(self, patience_ms: int) -> bool:
        emptied = self._checkpoint("TRUNCATE", patience_ms)
        if not emptied and (size := self._size()) > _TOO_LARGE_BYTES:
            self._warn("wal_grows", bytes=size, remedy="a program reads the database in one long transaction: end it")
        return emptied

    def _checkpoint(self, mode: str, patience_ms: int = _PATIENCE_MS) -> bool:
        """Whether it went all the way."""
        self._fold_at = time.monotonic() + CHECK_EVERY_S
        try:
            with self._engine.connect() as connection:
                pass_by("before_checkpoint")
                connection.exec_driver_sql(f"PRAGMA busy_timeout={patience_ms}").close()
                try:
                    busy = connection.exec_driver_sql(f"PRAGMA wal_checkpoint({mode})").one()[0]
                finally:
                    connection.exec_driver_sql(f"PRAGMA busy_timeout={LOCK_POLL_MS}").close()
        except SQLAlchemyError as error:
            self._warn("checkpoint_failed", error=str(getattr(error, "orig", None) or type(error).__name__))
            return False
        return not busy

    def _warn(self, event: str, **members: object) -> None:
        if time.monotonic() >= self._warn_at:
            self._warn_at = time.monotonic() + _WARN_EVERY_S
            log.warning(event, **members)

    def _size(self) -> int:
        return _bytes_of(self._path)


def log_of(file: Path) -> Path:
    """SQLite keeps it beside the file itself, not beside a link to it."""
    real = file.resolve()
    return real.with_name(f"{real.name}-wal")


def check_room_to_vacuum(file: Path) -> None:
    """All of the file goes through its log: on a disk that this fills, it could not be folded into the file again.

    Raises: StorageFull.
    """
    needed = 2 * (_bytes_of(file) + _bytes_of(log_of(file)))
    if shutil.disk_usage(file.resolve().parent).free < needed:
        raise StorageFull(f"Writing the file anew needs {needed / 1e6:.0f} MB of free space.", retry_after_s=30)


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
