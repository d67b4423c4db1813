"""How many may pass in a window: an exact sliding log, one that clients share fairly, and one for calls going out.

Pure state over an injected clock: nothing sleeps here, the caller waits for as long as it is told.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

_LONGEST_PROMISE_S = 60.0
_RECOVERY_S = 30.0  # from half the rate to all of it in 15 s: slower than the burst that was too much
_UNSENT_POLL_S = 0.005  # every place is held by a call that is just being sent


class SlidingWindow:
    """Never more than `limit` admissions in any window of `window_s` seconds."""

    def __init__(self, limit: int, *, window_s: float, monotonic: Callable[[], float]) -> None:
        self.limit = limit
        self._window_s = window_s
        self._monotonic = monotonic
        self._admitted_at: deque[float] = deque()

    def admit(self) -> float:
        """0.0 when admitted; else the seconds until a place is free, and nothing is counted."""
        wait_s = self.wait_s()
        if wait_s <= 0:
            self._admitted_at.append(self._monotonic())
            return 0.0
        return wait_s

    def wait_s(self, limit: int | None = None) -> float:
        """Seconds until one more would stay within `limit` (default: the window's own); 0.0 when it would now."""
        now = self._monotonic()
        while self._admitted_at and self._admitted_at[0] <= now - self._window_s:
            self._admitted_at.popleft()
        allowed = self.limit if limit is None else limit
        if len(self._admitted_at) < allowed:
            return 0.0
        return self._admitted_at[len(self._admitted_at) - allowed] + self._window_s - now


class CallWindow:
    """Never more than `limit` calls sent in any window of `window_s` seconds, and fewer for a while after a 429.

    A call counts from the moment it was sent, not from when it was let through: connecting takes a varying time.
    `lower` halves the limit; it comes back evenly within 30 s after the told wait, and never above what was set.
    """

    def __init__(self, limit: int, *, window_s: float, monotonic: Callable[[], float]) -> None:
        self.limit = limit
        self.window_s = window_s
        self._monotonic = monotonic
        self._sent_at: deque[float] = deque()
        self._unsent = 0
        self._lowered_to = float(limit)
        self._rises_from = -_RECOVERY_S

    @property
    def current(self) -> int:
        """Calls allowed in a window now, 1 to `limit`."""
        passed_s = max(0.0, self._monotonic() - self._rises_from)
        return min(self.limit, int(self._lowered_to + self.limit * passed_s / _RECOVERY_S))

    @property
    def count(self) -> int:
        """Calls in the window that ends now, those included that are about to be sent."""
        since = self._monotonic() - self.window_s
        while self._sent_at and self._sent_at[0] <= since:
            self._sent_at.popleft()
        return len(self._sent_at) + self._unsent

    def lower(self, *, rest_s: float) -> None:
        """xAI said that it is too much, and to rest so long; what is in flight hears the same: it counts once."""
        now = self._monotonic()
        if now >= self._rises_from:
            self._lowered_to, self._rises_from = float(max(1, self.current // 2)), now
        self._rises_from = max(self._rises_from, now + rest_s)

    def wait_s(self) -> float:
        """Seconds until one more call may be let through; 0.0 when it may now."""
        over = self.count - self.current
        if over < 0:
            return 0.0
        if over >= len(self._sent_at):
            return _UNSENT_POLL_S
        return self._sent_at[over] + self.window_s - self._monotonic()

    def admit(self) -> "CallSlot":
        """Take a place; only when `wait_s` is 0.0."""
        self._unsent += 1
        return CallSlot(self)

    def record_sent(self) -> None:
        self._unsent -= 1
        self._sent_at.append(self._monotonic())


class CallSlot:
    """A call's place in the window: held until the call has been sent."""

    def __init__(self, window: CallWindow) -> None:
        self._window = window
        self.sent = False

    def mark_sent(self) -> None:
        """The last byte has gone; only the first time counts."""
        if not self.sent:
            self.sent = True
            self._window.record_sent()


class FairLimiter:
    """A sliding window that several clients share: alone, one may use all of it; together, each has an equal share.

    A client counts as present for `window_s` and 2 s more after its last try, admitted or not: long enough for one that
    was told to come back (whole seconds) to find its share free. Of many refused at once, each is promised a place of
    its own, window after window.
    """

    def __init__(
        self, limit: int, *, window_s: float, monotonic: Callable[[], float], most_clients: int = 10_000
    ) -> None:
        self._limit = limit
        self._window_s = window_s
        self._monotonic = monotonic
        self._most_clients = most_clients
        self._all = SlidingWindow(limit, window_s=window_s, monotonic=monotonic)
        self._present: OrderedDict[str, _Client] = OrderedDict()  # least recently seen first

    def admit(self, client: str) -> float:
        """0.0 when admitted; else the seconds after which a try of this client succeeds, at most 60."""
        own = self._see(client)
        share = max(1, self._limit // len(self._present))
        wait_s = max(own.window.wait_s(share), self._all.wait_s())
        if wait_s <= 0:
            self._all.admit()
            own.window.admit()
            return 0.0
        return self._promise(own, share=share, wait_s=wait_s)

    def _promise(self, own: "_Client", *, share: int, wait_s: float) -> float:
        now = self._monotonic()
        while own.promised and own.promised[0] <= now:
            own.promised.popleft()
        if len(own.promised) >= share:
            wait_s = max(wait_s, own.promised[-share] + self._window_s - now)
        if wait_s <= _LONGEST_PROMISE_S:
            own.promised.append(now + wait_s)
        return min(wait_s, max(_LONGEST_PROMISE_S, self._window_s))

    def _see(self, client: str) -> "_Client":
        now = self._monotonic()
        own = self._present.pop(client, None) or _Client(
            now, SlidingWindow(self._limit, window_s=self._window_s, monotonic=self._monotonic)
        )
        own.seen_at = now
        self._present[client] = own
        while len(self._present) > self._most_clients or self._oldest_seen_at() < now - self._window_s - 2:
            self._present.popitem(last=False)
        return own

    def _oldest_seen_at(self) -> float:
        return next(iter(self._present.values())).seen_at


@dataclass(slots=True)
class _Client:
    """When a client was last seen, what it was given, and when it was told to come back (moments, rising)."""

    seen_at: float
    window: SlidingWindow
    promised: deque[float] = field(default_factory=deque[float])
