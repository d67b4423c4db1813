"""SQLite's write-ahead log, folded into the file between commits and emptied as often as its readers let it.

A checkpoint copies what every reader has gone past; only when nobody reads from the log can it begin anew. Under load
that moment may never come by itself, so now and then the writer holds the lock and waits for it: those who begin to
read meanwhile read the file alone. What was erased is in the log until then, too.

Before a commit on top of a large log the writer waits for this process's own reads, however long they take, and nobody
begins one meanwhile. A reader in another process is waited for shortly, then the log grows: it must not stop writes.
Source: https://www.sqlite.org/wal.html (Avoiding Excessively Large WAL Files)
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from database.engine import LOCK_POLL_MS
from database.gate import Gate
from errors import StorageFull
from survival import pass_by
from telemetry import get_logger

log = get_logger()

CHECK_EVERY_S = 1.0
_EMPTY_EVERY_S = 5.0
_LARGE_BYTES = 32 * 1024 * 1024  # half of what is promised: a commit may bring some MB more
_TOO_LARGE_BYTES = 64 * 1024 * 1024
_PATIENCE_MS = LOCK_POLL_MS  # with those who are reading
_PATIENCE_WITH_OTHERS_MS = 2_000  # with other processes, when the log is large
_SHORTEST_REST_S, _LONGEST_REST_S = 5.0, 60.0  # while one of them reads on and on
_ASK_EVERY_S = LOCK_POLL_MS / 1_000
_WARN_EVERY_S = 60.0


class WriteAheadLog:
    """Used on the writer's thread only: `make_room` before each commit, `tend` after it and each second while `in_use`.

    `reads`: those of this process.
    """

    def __init__(self, engine: Engine, file: Path, reads: Gate) -> None:
        self._engine = engine
        self._path = log_of(file)
        self._reads = reads
        self._fold_at = self._empty_at = self._make_room_at = time.monotonic()
        self._rest_s = 0.0
        self._warn_at = self._fold_at
        self.in_use = True  # by who was here before, perhaps

    def make_room(self, still_waits: Callable[[], bool]) -> None:
        """Empty a log that is large, unless another process reads it.

        `still_waits` is asked every 100 ms whether to go on waiting for the reads of this process.
        """
        if self._size() <= _LARGE_BYTES or time.monotonic() < self._make_room_at or self._empty():
            return
        with self._reads.shut():
            while not (ended := self._reads.wait_until_empty(_ASK_EVERY_S)) and still_waits():
                pass
            emptied = ended and self._empty()
        if ended and not emptied and not self._empty(_PATIENCE_WITH_OTHERS_MS):
            self._rest_s = min(max(2 * self._rest_s, _SHORTEST_REST_S), _LONGEST_REST_S)
            self._make_room_at = time.monotonic() + self._rest_s

    def tend(self, *, idle: bool) -> None:
        now = time.monotonic()
        if idle:
            self.in_use = not self._empty()
            return
        self.in_use = True
        if now >= self._empty_at:
            self._empty()
            self._empty_at = time.monotonic() + _EMPTY_EVERY_S
        elif now >= self._fold_at:
            self._checkpoint("PASSIVE")

    def _empty(self, patience_ms: int = _PATIENCE_MS) -> bool:
        emptied = self._checkpoint("TRUNCATE", patience_ms)
        if emptied:
            self._rest_s, self._make_room_at = 0.0, time.monotonic()
        elif (size := self._size()) > _TOO_LARGE_BYTES:
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
