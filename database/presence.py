"""Who has a SQLite file open: every process of ours holds a shared lock beside it, so that nobody swaps it meanwhile.

It stands apart from the queue's lock, which only one process has. The operating system lets go of both when their
process dies, however it dies.
"""

import fcntl
import os
from pathlib import Path


class Presence:
    """A `flock` on `<database>.open`: shared by all who have the file open, or exclusive for who replaces it."""

    def __init__(self, database_file: Path) -> None:
        file = database_file.resolve()  # two names of one file are one database
        self._path = file.with_name(file.name + ".open")
        self._descriptor: int | None = None

    def join(self) -> bool:
        """Be one of those who have it open; False while somebody replaces it. Never waits."""
        return self._lock(fcntl.LOCK_SH)

    def be_alone(self) -> bool:
        """True when nobody else has it open, nor can until `leave`. Never waits."""
        return self._lock(fcntl.LOCK_EX)

    def leave(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _lock(self, kind: int) -> bool:
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            self.leave()
            return False
        return True
