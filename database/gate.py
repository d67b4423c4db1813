"""A gate that the reads of this process pass: it knows how many are under way, and can be shut for a moment."""

import threading
from collections.abc import Generator
from contextlib import contextmanager


class Gate:
    """A read stands inside `with gate:`, and waits at its start while the gate is shut.

    A read begun within a read could wait for itself: none is, units are plain functions of one session.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turned = threading.Condition(self._lock)  # whose own door costs a read a microsecond more
        self._is_shut = False
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            while self._is_shut:
                self._turned.wait()
            self._inside += 1

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._is_shut:  # somebody may wait for it
                self._turned.notify_all()

    def wait_until_empty(self, timeout_s: float) -> bool:
        """Whether nobody is inside, at the latest after `timeout_s`."""
        with self._lock:
            return self._turned.wait_for(lambda: self._inside == 0, timeout_s)

    @contextmanager
    def shut(self) -> Generator[None, None, None]:
        """Nobody comes in until the end of the block, whatever ends it; who is inside goes on."""
        self._turn(is_shut=True)
        try:
            yield
        finally:
            self._turn(is_shut=False)

    def _turn(self, *, is_shut: bool) -> None:
        with self._lock:
            self._is_shut = is_shut
            self._turned.notify_all()
