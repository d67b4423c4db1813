"""Who has a SQLite file open: every process of ours holds a shared lock beside it, so that nobody swaps it meanwhile.

It stands apart from the queue's lock, which only one process has. The operating system lets go of both when their
process dies, however it dies.
"""

import fcntl
import os
import time
from pathlib import Path

BEING_REPLACED = (
    "Another program has held the database for itself for 10 s, to restore or to check it: try again later."
)
_CHECKED_WITHIN_S = 10.0  # a start holds it alone while it checks the file
_LOOK_EVERY_S = 0.05


class Presence:
    """A `flock` on `<database>.open`: shared by all who have the file open, or exclusive for who replaces it."""

    def __init__(self, database_file: Path) -> None:
        file = database_file.resolve()  # two names of one file are one database
        self._path = file.with_name(file.name + ".open")
        self._descriptor: int | None = None

    def join(self, *, patience_s: float = _CHECKED_WITHIN_S) -> bool:
        """Be one of those who have it open; waits while another start checks it. False while somebody replaces it."""
        patience_ends_at = time.monotonic() + patience_s
        while not self._lock(fcntl.LOCK_SH):
            if time.monotonic() > patience_ends_at:
                return False
            time.sleep(_LOOK_EVERY_S)
        return True

    def be_first(self) -> bool:
        """True when nobody else has it open, nor can until `leave`; waits while another start checks it."""
        patience_ends_at = time.monotonic() + _CHECKED_WITHIN_S
        while not self.be_alone():
            if self.join(patience_s=0):
                return self.be_alone()  # who was alone may just have left
            if time.monotonic() > patience_ends_at:
                return False
            time.sleep(_LOOK_EVERY_S)
        return True

    def be_alone(self) -> bool:
        """True when nobody else has it open, nor can until `leave`. Never waits."""
        return self._lock(fcntl.LOCK_EX)

    def leave(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _lock(self, kind: int) -> bool:
        if self._descriptor is None:
            # to read is enough for a lock, so that root's file does not shut out the service's user
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            self.leave()
            return False
        return True
