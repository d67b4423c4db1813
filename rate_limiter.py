"""How many may pass in a window: an exact sliding log, and the same shared fairly among clients.

Pure state over an injected clock: nothing sleeps here, the caller waits for as long as it is told.
"""

from collections import OrderedDict, deque
from collections.abc import Callable


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


class FairLimiter:
    """A sliding window that several clients share: alone, one may use all of it; together, each has an equal share.

    A client counts as present for `window_s` and 2 s more after its last try, admitted or not: long enough for one that
    was told to come back (whole seconds) to find its share free.
    """

    def __init__(
        self, limit: int, *, window_s: float, monotonic: Callable[[], float], most_clients: int = 10_000
    ) -> None:
        self._limit = limit
        self._window_s = window_s
        self._monotonic = monotonic
        self._most_clients = most_clients
        self._all = SlidingWindow(limit, window_s=window_s, monotonic=monotonic)
        self._present: OrderedDict[str, tuple[float, SlidingWindow]] = OrderedDict()  # least recently seen first

    def admit(self, client: str) -> float:
        """0.0 when admitted; else the seconds after which a try of this client succeeds."""
        own = self._see(client)
        share = max(1, self._limit // len(self._present))
        wait_s = max(own.wait_s(share), self._all.wait_s())
        if wait_s <= 0:
            self._all.admit()
            own.admit()
        return wait_s

    def _see(self, client: str) -> SlidingWindow:
        now = self._monotonic()
        _, own = self._present.pop(client, (now, None))
        self._present[client] = (
            now,
            own or SlidingWindow(self._limit, window_s=self._window_s, monotonic=self._monotonic),
        )
        while len(self._present) > self._most_clients or self._oldest_seen_at() < now - self._window_s - 2:
            self._present.popitem(last=False)
        return self._present[client][1]

    def _oldest_seen_at(self) -> float:
        return next(iter(self._present.values()))[0]
