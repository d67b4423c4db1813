"""What a client may take of a connection: whoever is slow, silent or without end is cut off, never waited for.

    opened --> head: 15 s, 128 KB --> body: 15 s (`bodies`) --> answer: taken, or 32 KB of it every 15 s --> next head
      |
      +--> more open than there is room for: 503

It stands below the application. uvicorn has no such limits: it keeps a head that never ends, and of an answer what the
client does not read, for as long as the client likes.
"""

import asyncio
import resource
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from errors import HeadTooLarge, InsightsError, InvalidSchema, Overloaded, SlowRequest
from problems import MEDIA_TYPE, to_body
from telemetry import get_logger

log = get_logger()

_AMPLE = 100_000
_NO_LINGERING = struct.pack("ii", 1, 0)  # struct linger: on, for 0 s
_RESERVED = 100  # descriptors for files, the database, xAI; in use at rest are some 30


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one connection may take, and how many there may be."""

    most_open: int = 1000
    head_s: float = 15
    head_bytes: int = 128 * 1024  # also what may surround a body: sizes of chunks, trailers
    stall_s: float = 15
    stall_bytes: int = 32 * 1024


def room_for_connections(descriptors: int, *, calls: int) -> int:
    """How many may be open when the process may have so many files and sockets, and makes so many calls at once."""
    if descriptors == resource.RLIM_INFINITY:
        return _AMPLE
    return max(descriptors // 2, descriptors - _RESERVED - calls)


class LimitedConnection(HttpToolsProtocol):
    """uvicorn's protocol within limits; `limited` makes one of given limits."""

    limits: ClassVar[ConnectionLimits] = ConnectionLimits()

    _part: Literal["between", "head", "body"] = "between"
    _spare_bytes = 0
    _untaken_bytes = 0

    # the transport's calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._head_alarm = _Alarm(self.loop, self.limits.head_s, self._give_up_head)
        self._stall_alarm = _Alarm(self.loop, self.limits.stall_s, self._check_what_was_taken)
        if len(self.connections) > self.limits.most_open:
            self._refuse(Overloaded("As many connections are open as there is room for; connect again after the wait."))
        else:
            self._head_alarm.set()

    def data_received(self, data: bytes) -> None:
        self._spare_bytes -= len(data)
        if self._is_idle():
            self._head_alarm.set()
        super().data_received(data)
        if self._spare_bytes < 0 and self._part != "between" and not self.transport.is_closing():
            kilobytes = self.limits.head_bytes // 1024
            self._refuse(HeadTooLarge(f"Headers may have at most {kilobytes} KB; send fewer or shorter ones."))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_what_is_taken()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stall_alarm.stop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_alarm.stop()
        self._stall_alarm.stop()
        super().connection_lost(exc)

    # the parser's calls

    def on_message_begin(self) -> None:
        self._part, self._spare_bytes = "head", self.limits.head_bytes
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._part == "head":  # trailers of a chunked body would be added to its headers, however many they are
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._part = "body"
        self._head_alarm.stop()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._spare_bytes += 2 * len(body)  # itself, and as much again for the sizes of its chunks
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._part = "between"
        super().on_message_complete()

    # uvicorn's own

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_what_is_taken()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - ours says what to do
        """For what is no HTTP. Never amid an answer, nor in place of the one to a request that is under way."""
        if self._is_idle() or (self._part == "body" and not self.cycle.response_started):
            self._refuse(InvalidSchema("This is not a request in HTTP/1.1; see the address, the port and the headers."))
        else:
            self.transport.close()

    def _is_idle(self) -> bool:
        cycle = self.cycle  # uvicorn types it as always there
        return cycle is None or cycle.response_complete  # pyright: ignore[reportUnnecessaryComparison]

    def _give_up_head(self) -> None:
        """A head that has begun is answered; one who has said nothing would take an answer for that to the next."""
        if self._part == "head":
            self._refuse(SlowRequest(f"The headers did not arrive within {self.limits.head_s:g} s; send it again."))
        else:
            self.transport.close()

    def _refuse(self, error: InsightsError) -> None:
        log.info("connection_refused", error=error.code)
        body, headers = to_body(error)
        headers |= {"Content-Type": MEDIA_TYPE, "Content-Length": str(len(body)), "Connection": "close"}
        head = [STATUS_LINE[error.status], *(f"{name}: {value}\r\n".encode() for name, value in headers.items())]
        self.transport.write(b"".join([*head, b"\r\n", body]))
        self.transport.close()
        self._watch_what_is_taken()

    def _watch_what_is_taken(self) -> None:
        """Also once the connection is closing: the system waits for ever for a client that does not read the rest."""
        self._stall_alarm.stop()
        self._untaken_bytes = self.transport.get_write_buffer_size()
        if self._untaken_bytes:
            self._stall_alarm.set()

    def _check_what_was_taken(self) -> None:
        taken_bytes = self._untaken_bytes - self.transport.get_write_buffer_size()
        if taken_bytes < min(self._untaken_bytes, self.limits.stall_bytes):
            log.info("connection_refused", error="answer_not_taken")
            self._reset()
        else:
            self._watch_what_is_taken()

    def _reset(self) -> None:
        """Without waiting for the client to take the rest, which the system would, out of its own memory."""
        connection: socket.socket = self.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
        self.transport.abort()


def limited(limits: ConnectionLimits) -> type[LimitedConnection]:
    """The protocol of these limits, for `uvicorn.Config(http=...)`, which makes one for each connection."""
    return type("LimitedConnection", (LimitedConnection,), {"limits": limits})


class _Alarm:
    """Goes off once, so long after it was set; setting it again changes nothing."""

    def __init__(self, loop: asyncio.AbstractEventLoop, after_s: float, act: Callable[[], None]) -> None:
        self._loop = loop
        self._after_s = after_s
        self._act = act
        self._timer: asyncio.TimerHandle | None = None

    def set(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(self._after_s, self._go_off)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _go_off(self) -> None:
        self._timer = None
        self._act()
