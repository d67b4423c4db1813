"""Whether to call a service that keeps failing.

    closed --5 failures in a row, or half of the last 20--> open --cooldown over--> half-open (one probe)
      ^                                                       ^                        |          |
      |                                                       +--failed: longer--------+          |
      +----------------------------------------------------------------------succeeded------------+

Pure state over an injected clock; the caller waits for as long as it is told. A call is admitted in an `era`, and each
opening begins a new one: what a call of an older era ended in is late news, and moves nothing.
"""

from collections import deque
from collections.abc import Callable
from enum import StrEnum

_SAMPLE = 20
_LONGEST_COOLDOWN_S = 120.0


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitBreaker:
    """Opens after `threshold` failures in a row, or when half of the last 20 calls failed."""

    def __init__(self, *, threshold: int, cooldown_s: float, monotonic: Callable[[], float]) -> None:
        self._threshold = threshold
        self._first_cooldown_s = cooldown_s
        self._cooldown_s = cooldown_s
        self._monotonic = monotonic
        self._recent: deque[bool] = deque(maxlen=_SAMPLE)
        self._failures_in_row = 0
        self._open_until: float | None = None
        self._probing = False
        self.era = 0

    @property
    def state(self) -> State:
        if self._open_until is None:
            return State.CLOSED
        return State.HALF_OPEN if self._probing or self._monotonic() >= self._open_until else State.OPEN

    def wait_s(self) -> float:
        """Seconds until a call could be let through; 0.0 when one could now. Takes no probe."""
        if self._open_until is None:
            return 0.0
        if self._probing:
            return self._cooldown_s
        return max(0.0, self._open_until - self._monotonic())

    def admit(self) -> float:
        """0.0 when the call may go (in half-open it is the one probe); else the seconds to wait."""
        wait_s = self.wait_s()
        if wait_s <= 0 and self._open_until is not None:
            self._probing = True
        return wait_s

    def record_success(self, *, era: int) -> None:
        if era != self.era:
            return
        if self._open_until is not None:
            self._recent.clear()
        self._recent.append(True)
        self._failures_in_row = 0
        self._open_until = None
        self._probing = False
        self._cooldown_s = self._first_cooldown_s

    def record_failure(self, *, era: int) -> None:
        if era != self.era:
            return
        self._recent.append(False)
        self._failures_in_row += 1
        if self._probing:
            self._cooldown_s = max(self._first_cooldown_s, min(self._cooldown_s * 2, _LONGEST_COOLDOWN_S))
            self._open()
        elif self._open_until is None and self._is_too_much():
            self._open()

    def forget_probe(self, *, era: int) -> None:
        """The probe ended without telling whether the service is well (cancelled, or refused for its content)."""
        if era == self.era:
            self._probing = False

    def _is_too_much(self) -> bool:
        half_failed = len(self._recent) == _SAMPLE and self._recent.count(False) * 2 >= _SAMPLE
        return self._failures_in_row >= self._threshold or half_failed

    def _open(self) -> None:
        self._probing = False
        self.era += 1
        self._open_until = self._monotonic() + self._cooldown_s
