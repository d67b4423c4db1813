"""The way out to xAI: open, resting for a told time, or shut by the breaker; and the place of each call on it.

enter: window (calls/s) -> told wait over? -> breaker -> Admission -> (account) -> still open? -> sent -> learnt
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from circuit_breaker import CircuitBreaker, State
from errors import GrokBudgetReached, GrokLaneShut, GrokOutage, GrokThrottled
from rate_limiter import CallSlot, CallWindow
from telemetry import get_logger

log = get_logger()

_THROTTLED_S = 2.0  # a 429 that tells no wait
_CLOSED_S = 60.0  # a wrong key, no credits or a wrong model


class Lane:
    """The way out to xAI: open, resting for a told time, or shut by the breaker; `outage` is what has to be mended."""

    def __init__(
        self,
        window: CallWindow,
        breaker: CircuitBreaker,
        *,
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.window = window
        self.outage: GrokOutage | None = None  # a wrong key, no credits, a wrong model: until a call succeeds
        self.proven = False  # a call has succeeded, and none was refused for good since
        self._breaker = breaker
        self._monotonic = monotonic
        self._sleep = sleep
        self._turn = asyncio.Lock()
        self._closed_until = 0.0
        self._closed_for: GrokOutage | None = None

    @property
    def breaker_state(self) -> State:
        return self._breaker.state

    @property
    def budget_wait_s(self) -> float:
        """Seconds until there may be budget again; 0.0 while there is room."""
        reached = isinstance(self._closed_for, GrokBudgetReached)
        return max(0.0, self._closed_until - self._monotonic()) if reached else 0.0

    def wait_s(self) -> float:
        """Seconds until a call makes sense; 0.0 when it does now."""
        return max(0.0, self._closed_until - self._monotonic(), self._breaker.wait_s())

    async def enter(self) -> "Admission":
        """Wait for a place in the window. Raises: GrokLaneShut while the lane is shut."""
        async with self._turn:  # first come, first served
            while (wait_s := self.window.wait_s()) > 0:
                await self._sleep(wait_s)
            if (wait_s := self.wait_s() or self._breaker.admit()) > 0:
                raise _shut(wait_s)
            return Admission(self, self._breaker, self.window.admit())

    def check_open(self) -> None:
        """A call that has waited since it entered must not go within a told wait. Raises: GrokLaneShut."""
        if (wait_s := self._closed_until - self._monotonic()) > 0:
            raise _shut(wait_s)

    def close(self, error: GrokOutage) -> None:
        """Rest as long as was told, or as befits the error; a rate that was too high is lowered."""
        throttled = isinstance(error, GrokThrottled)
        rest_s = error.retry_after_s or (_THROTTLED_S if throttled else _CLOSED_S)
        self.rest(error, rest_s)
        if throttled:
            self.window.lower(rest_s=rest_s)
        elif not isinstance(error, GrokBudgetReached):
            self.outage, self.proven = error, False

    def rest(self, error: GrokOutage, seconds: float) -> None:
        until = self._monotonic() + seconds
        if until > self._closed_until:
            self._closed_until, self._closed_for = until, error
        log.warning("grok_lane_closed", error=error.code, reason=error.details, rest_s=seconds)


class Admission:
    """One call on the lane, from its place in the window to what it taught the breaker; what comes first counts."""

    def __init__(self, lane: Lane, breaker: CircuitBreaker, slot: CallSlot) -> None:
        self.slot = slot
        self._lane = lane
        self._breaker = breaker
        self._era = breaker.era
        self._told = False

    def answered(self) -> None:
        """It answered, if perhaps not as we wished."""
        self._tell(self._breaker.record_success)

    def succeeded(self) -> None:
        """The answer could be used; `answered` came before."""
        self._lane.outage, self._lane.proven = None, True

    def failed(self) -> None:
        self._tell(self._breaker.record_failure)

    def forgotten(self) -> None:
        """It taught nothing; a probe left under way would keep the lane shut for ever."""
        self._tell(self._breaker.forget_probe)

    def _tell(self, news: "_News") -> None:
        if not self._told:
            self._told = True
            news(era=self._era)


class _News(Protocol):
    def __call__(self, *, era: int) -> None: ...


def _shut(wait_s: float) -> GrokLaneShut:
    return GrokLaneShut("Calls to xAI rest for now.", retry_after_s=max(1, round(wait_s)))
