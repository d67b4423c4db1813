"""Who may work the queue of a SQLite file: the process that holds the lock beside it, alone, for as long as it lives.

It stands alone because the operating system lets go of the lock at the very moment its owner dies, however it dies:
whoever gets it next knows that every claimed row is abandoned, without waiting for a lease to end. An owner that is
stopped, not dead, keeps it: when its file was last touched says whether the owner still works.
"""

import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path


class QueueLock:
    """An exclusive `flock` on `<database>.lock`."""

    def __init__(self, database_file: Path) -> None:
        file = database_file.resolve()  # two names of one file are one queue
        self._path = file.with_name(file.name + ".lock")
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    def acquire(self) -> bool:
        """True when this process holds the lock, now or already; False when another does. Never waits."""
        if self._descriptor is not None:
            return True
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def beat(self, now: datetime) -> datetime:
        """As the owner: say that the queue is worked. For others: when the owner last said so."""
        if self._descriptor is not None:
            os.utime(self._descriptor, (now.timestamp(), now.timestamp()))
            return now
        return datetime.fromtimestamp(self._path.stat().st_mtime, UTC)

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
