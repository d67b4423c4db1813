"""Clients that are slow, silent, greedy or too many, on real sockets and on both event loops."""

import json
import socket
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain, repeat

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from connections import ConnectionLimits, limited, room_for_connections
from tests.harness import Json, wait_until

pytestmark = pytest.mark.integration

LIMITS = ConnectionLimits(most_open=5, head_s=0.4, head_bytes=4096, stall_s=1, stall_bytes=1024)
KEEP_ALIVE_S = 1
MEGABYTES = 16 * 1024 * 1024  # more than the kernel keeps for a client that reads nothing


async def play(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body, if it is asked to, and answers with what the path asks for."""
    size = len(await read_all(receive)) if scope["method"] == "POST" else 0
    body = b"x" * MEGABYTES if scope["path"] == "/large" else b"%d bytes, %d headers" % (size, len(scope["headers"]))
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def read_all(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


class Listener:
    """A server on a thread of its own."""

    def __init__(self, loop: str) -> None:
        config = uvicorn.Config(
            play,
            http=limited(LIMITS),
            loop=loop,
            lifespan="off",
            log_config=None,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=1,
        )
        self.server = uvicorn.Server(config)

    @property
    def open_count(self) -> int:
        return len(self.server.server_state.connections)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.server.servers[0].sockets[0].getsockname(), timeout=5)

    @contextmanager
    def running(self) -> Generator[None]:
        self.server.config.port = 0
        thread = threading.Thread(target=self.server.run)
        thread.start()
        wait_until(lambda: self.server.started)
        try:
            yield
        finally:
            self.server.should_exit = True
            thread.join()


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def started(request: pytest.FixtureRequest) -> Generator[Listener]:
    listener = Listener(request.param)
    with listener.running():
        yield listener


@pytest.fixture
def listener(started: Listener) -> Generator[Listener]:
    yield started
    wait_until(lambda: started.open_count == 0)  # whatever a test did, nobody is left


def read_to_the_end(connection: socket.socket) -> bytes:
    received = b""
    with suppress(ConnectionError):
        while chunk := connection.recv(65_536):
            received += chunk
    return received


def ask(connection: socket.socket, request: bytes) -> bytes:
    """The answer to a whole request."""
    connection.sendall(request)
    answer = b""
    while not answer.endswith(b" headers"):
        answer += connection.recv(65_536)
    return answer


def assert_answered(answer: bytes, status: int, error: str) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    told: Json = json.loads(body)
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"Content-Type: application/problem+json" in head
    assert (told["status"], told["error"]) == (status, error)


def drip(connection: socket.socket, parts: Iterable[bytes]) -> bytes:
    """Send a bit every twentieth of a second until the other side has enough; what it says."""
    connection.settimeout(0.05)
    with suppress(ConnectionError):
        for part in parts:
            connection.sendall(part)
            with suppress(TimeoutError):
                return connection.recv(65_536)
    return b""


def test_a_client_that_says_nothing_is_cut_off(listener: Listener) -> None:
    with listener.connect() as connection:
        assert read_to_the_end(connection) == b""


def test_a_head_that_drips_is_given_up(listener: Listener) -> None:
    with listener.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")

        answer = drip(connection, repeat(b"X-A: b\r\n"))

    assert_answered(answer, 408, "request_timeout")


def test_a_second_head_that_drips_is_given_up(listener: Listener) -> None:
    with listener.connect() as connection:
        assert b"0 bytes" in ask(connection, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

        answer = drip(connection, chain([b"GET / HTTP/1.1\r\n"], repeat(b"X-A: b\r\n")))

    assert_answered(answer, 408, "request_timeout")


@pytest.mark.parametrize("rest", [b"\r\n", b"x"], ids=["blank lines", "the rest of a body that nobody reads"])
def test_who_goes_on_after_the_answer_without_a_request_is_cut_off(listener: Listener, rest: bytes) -> None:
    length = b"Content-Length: 1000000\r\n" if rest == b"x" else b""
    with listener.connect() as connection:
        ask(connection, b"GET / HTTP/1.1\r\nHost: x\r\n%b\r\n" % length)

        assert drip(connection, repeat(rest)) == b""


@pytest.mark.parametrize(
    "part",
    [pytest.param(b"X-A: b\r\n" * 1024, id="of many headers"), pytest.param(b"x" * 8192, id="of one header")],
)
def test_a_head_without_end_is_refused(listener: Listener, part: bytes) -> None:
    with listener.connect() as connection:
        ask(connection, b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nX-B: ")  # answered: the rest has begun
        connection.sendall(part)

        assert_answered(read_to_the_end(connection), 431, "head_too_large")


def test_trailers_are_no_headers_and_have_an_end(listener: Listener) -> None:
    request = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
    with listener.connect() as connection:
        answer = ask(connection, request + b"X-A: b\r\n" * 10 + b"\r\n" + request)
        connection.sendall(b"X-A: b\r\n" * 1024)

        assert b"3 bytes, 2 headers" in answer
        assert_answered(read_to_the_end(connection), 431, "head_too_large")


def test_a_body_in_small_chunks_is_no_large_head(listener: Listener) -> None:
    with listener.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(50):
            connection.sendall(b"8\r\n12345678\r\n" * 64)

        assert b"25600 bytes" in ask(connection, b"0\r\n\r\n")


@pytest.mark.parametrize("request_bytes", [b"GARBAGE\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9.9\r\n\r\n"])
def test_what_is_no_http_is_answered_as_everything_is(listener: Listener, request_bytes: bytes) -> None:
    with listener.connect() as connection:
        connection.sendall(request_bytes)

        assert_answered(read_to_the_end(connection), 400, "invalid_schema")


def test_garbage_after_a_request_is_not_its_answer(listener: Listener) -> None:
    with listener.connect() as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\nGARBAGE\r\n\r\n")

        assert b"HTTP/1.1 400" not in read_to_the_end(connection)


@pytest.mark.parametrize("kept", [b"keep-alive", b"close"])
def test_who_does_not_read_the_answer_is_cut_off(listener: Listener, kept: bytes) -> None:
    with listener.connect() as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: %b\r\n\r\n" % kept)

        wait_until(lambda: listener.open_count == 1)
        wait_until(lambda: listener.open_count == 0)


def test_who_reads_slowly_gets_all_of_it(listener: Listener) -> None:
    left = MEGABYTES
    with listener.connect() as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        while left > 0 and (chunk := connection.recv(MEGABYTES // 16, socket.MSG_WAITALL)):
            left -= len(chunk)
            time.sleep(0.1)

    assert left <= 0


def test_more_connections_than_there_is_room_for_are_told_so(listener: Listener) -> None:
    with ExitStack() as held:
        for number in range(LIMITS.most_open):
            held.enter_context(listener.connect())
            wait_until(lambda wanted=number + 1: listener.open_count == wanted)  # type: ignore[misc]

        with listener.connect() as late:
            assert_answered(read_to_the_end(late), 503, "overloaded")

    with listener.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert read_to_the_end(connection).startswith(b"HTTP/1.1 200")


@pytest.mark.unit
@pytest.mark.parametrize(
    ("descriptors", "room"),
    [
        pytest.param(64, 32, id="few"),
        pytest.param(1024, 904, id="as shells have it"),
        pytest.param(-1, 100_000, id="no limit"),
    ],
)
def test_some_descriptors_are_kept_for_files_and_calls(descriptors: int, room: int) -> None:
    assert room_for_connections(descriptors, calls=20) == room
