"""Event streams: how an event is written, how many streams may be open, and what ends them."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress

import orjson
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from answers import LiveStatus
from errors import Draining, Overloaded

MOST_STREAMS = 50  # each asks the database every second; all of them, idle, take 6 % of a core (measured)
_RETRY_AFTER_S = 10
_FRESH_S = 0.5  # half a turn of a stream
_PATIENCE_S = 30  # a client that has taken nothing for so long has its place given to another


class Streams:
    """The streams of this process: their places, what they share, and the word that ends them all."""

    def __init__(self) -> None:
        self._stopping = asyncio.Event()
        self.open_count = 0
        self._reading = asyncio.Lock()
        self._status: LiveStatus | None = None
        self._read_at = 0.0

    @property
    def ended(self) -> bool:
        return self._stopping.is_set()

    def end(self) -> None:
        """Wake every stream, so that it says good-bye and closes."""
        self._stopping.set()

    async def rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    @contextmanager
    def place(self) -> Generator[None, None, None]:
        """Raises: Draining once they have ended, Overloaded when every place is taken."""
        if self.ended:
            raise Draining
        if self.open_count >= MOST_STREAMS:
            raise Overloaded(
                f"{MOST_STREAMS} streams are open, and no more are served; connect again after the wait.",
                retry_after_s=_RETRY_AFTER_S,
            )
        self.open_count += 1
        try:
            yield
        finally:
            self.open_count -= 1

    async def share_status(self, read: Callable[[], Awaitable[LiveStatus]]) -> LiveStatus:
        """What some stream has read just now: counting a long queue once serves them all."""
        async with self._reading:
            if self._status is None or time.monotonic() - self._read_at > _FRESH_S:
                self._status = await read()
                self._read_at = time.monotonic()
            return self._status


class PatientStream(StreamingResponse):
    """Holds a place while it is sent; who goes away is noticed at once, who stalls after `patience_s`."""

    def __init__(
        self,
        content: AsyncGenerator[bytes, None],
        place: AbstractContextManager[None],
        *,
        headers: Mapping[str, str],
        media_type: str | None = None,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        super().__init__(content, headers=headers, media_type=media_type)
        self._place = place
        self._patience_s = patience_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._patience_s):
                await send(message)

        with self._place, suppress(TimeoutError, ClientDisconnect):  # Starlette makes the one of the other
            await super().__call__(scope, receive, send_in_time)


class EventStream(PatientStream):
    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncGenerator[bytes, None], streams: Streams, *, patience_s: float = _PATIENCE_S
    ) -> None:
        # the second keeps nginx from collecting events until its buffer is full
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(events, streams.place(), headers=headers, patience_s=patience_s)


def write_event(kind: str, data: object, *, position: int) -> bytes:
    """One event; JSON escapes every line break, so `data` stays one line. Its id is where the client would go on."""
    return b"event: %b\nid: %d\ndata: %b\n\n" % (kind.encode(), position, orjson.dumps(data, option=orjson.OPT_UTC_Z))
