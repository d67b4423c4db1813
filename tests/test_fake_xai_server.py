"""The fake xAI on its socket: bytes as they are, faults that a plain client feels, and an end that leaves nothing."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.fake_xai import FakeXai, FakeXaiServer, Journal, running_fake_xai
from tests.fake_xai_answers import GOOD_KEY, Json, chat_payload, score_of
from tests.fake_xai_faults import FIXTURES, Choice, always, delay, drip, load_fixtures

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parent.parent
HEADERS = {"authorization": f"Bearer {GOOD_KEY}", "x-grok-conv-id": "prompt-1"}
ROUTE = "chat/completions"
THREE = ("one", "two", "three")


@pytest.fixture(scope="module")
def shared() -> Generator[FakeXaiServer]:
    with running_fake_xai() as server:
        yield server


@pytest.fixture
def server(shared: FakeXaiServer) -> FakeXaiServer:
    """The one of all tests, with an empty script and journal."""
    shared.fake.script.clear()
    shared.journal.calls.clear()
    return shared


@contextmanager
def client_of(server: FakeXaiServer, *, timeout_s: float = 10.0) -> Generator[httpx2.Client, None, None]:
    with httpx2.Client(base_url=server.url, headers=HEADERS, timeout=timeout_s, trust_env=False) as http:
        yield http


@pytest.fixture
def http(server: FakeXaiServer) -> Generator[httpx2.Client]:
    with client_of(server) as opened:
        yield opened


def wait_until(holds: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < ends_at, "it did not come true"
        time.sleep(0.005)


def raw_request(*texts: str) -> bytes:
    body = json.dumps(chat_payload(*texts)).encode()
    head = f"POST /v1/{ROUTE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def read_all(connection: socket.socket) -> bytes:
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


# Bytes


@pytest.mark.parametrize("name", FIXTURES)
def test_every_fixture_arrives_byte_by_byte(server: FakeXaiServer, http: httpx2.Client, name: str) -> None:
    server.fake.script = [name]

    answer = http.post(ROUTE, json=chat_payload("one"))

    wanted = load_fixtures()[name]
    body = wanted["body"]
    text = body if isinstance(body, str) else json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    assert (answer.status_code, answer.content) == (wanted["status"], text.encode())
    assert answer.headers["content-type"] == wanted["content_type"]


def test_a_good_answer_arrives_whole(http: httpx2.Client) -> None:
    answer = http.post(ROUTE, json=chat_payload("\U0001f621 e\u0301 \u202e"))

    [result] = json.loads(answer.json()["choices"][0]["message"]["content"])["results"]
    assert result["sentiment_score"] == score_of("\U0001f621 e\u0301 \u202e")


def test_requests_in_one_packet_are_answered_in_turn(server: FakeXaiServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(raw_request("one") + raw_request("two"))
        wait_until(lambda: len(server.journal.calls) == 2)
        connection.shutdown(socket.SHUT_WR)
        received = read_all(connection)

    assert received.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert server.journal.texts() == ["one", "two"]


def test_a_request_that_arrives_in_crumbs_is_stamped_at_its_first_byte(
    server: FakeXaiServer, http: httpx2.Client
) -> None:
    request = raw_request("one")
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        for crumb in (request[:10], request[10:200]):
            connection.sendall(crumb)
            http.get("api-key").raise_for_status()  # once it is answered, the crumb was read
            http.get("api-key").raise_for_status()
        last_crumb_at = time.monotonic()
        connection.sendall(request[200:])
        wait_until(lambda: bool(server.journal.chats))

    [call] = server.journal.chats
    assert call.arrived_at < last_crumb_at <= call.complete_at


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(b"hello\r\n\r\n", id="no HTTP"),
        pytest.param(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="chunks"),
        pytest.param(b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", id="a length that is none"),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000, id="a head without end"),
    ],
)
def test_what_is_no_request_is_refused_and_closed(server: FakeXaiServer, request_bytes: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(request_bytes)
        received = read_all(connection)

    assert received.startswith(b"HTTP/1.1 400 ")
    assert not server.journal.calls


# Faults on the wire


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param(delay(30), httpx2.ReadTimeout, id="delay"),
        pytest.param("delay", httpx2.ReadTimeout, id="delay by name"),
        pytest.param("reset", httpx2.ReadError, id="reset"),
        pytest.param("cut", httpx2.RemoteProtocolError, id="cut"),
    ],
)
def test_a_broken_exchange_is_an_error_to_the_client(
    server: FakeXaiServer, fault: Choice, error: type[Exception]
) -> None:
    server.fake.script = [fault]

    with client_of(server, timeout_s=0.2) as http, pytest.raises(error):
        http.post(ROUTE, json=chat_payload(*THREE))

    assert server.journal.calls[0].texts == list(THREE)


def test_a_cut_answer_ends_in_the_middle(server: FakeXaiServer) -> None:
    server.fake.script = ["cut"]
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(raw_request("one"))
        head, _, body = read_all(connection).partition(b"\r\n\r\n")

    [told] = re.findall(rb"content-length: (\d+)", head)
    assert 0 < len(body) < int(told)


def test_a_dripping_answer_comes_a_byte_at_a_time(server: FakeXaiServer, http: httpx2.Client) -> None:
    server.fake.script = [drip(0.0005)]

    with http.stream("POST", ROUTE, json=chat_payload("one")) as answer:
        chunks = list(answer.iter_raw())

    assert len(chunks) > 10
    assert json.loads(b"".join(chunks))["model"] == "grok-4.3"


def test_a_drip_by_name_outlasts_a_deadline(server: FakeXaiServer) -> None:
    server.fake.script = ["drip"]

    with client_of(server) as http, http.stream("POST", ROUTE, json=chat_payload("one")) as answer:
        first = [next(chunks) for chunks in [answer.iter_raw()] for _ in range(3)]

    assert max(map(len, first)) <= 2
    wait_until(lambda: server.fake.in_flight == 0)
    assert server.journal.calls[0].answered_at is None


ODD: dict[str, Callable[[httpx2.Response], bool]] = {
    "empty_200": lambda answer: answer.content == b"",
    "html_200": lambda answer: answer.headers["content-type"] == "text/html",
    "gzip_bomb": lambda answer: len(answer.content) == 2**25,
    "wrong_content_type": lambda answer: answer.headers["content-type"] == "text/plain" and "choices" in answer.json(),
}


@pytest.mark.parametrize("fault", ODD)
def test_an_odd_answer_has_status_200(server: FakeXaiServer, http: httpx2.Client, fault: str) -> None:
    server.fake.script = [fault]

    answer = http.post(ROUTE, json=chat_payload("one"))

    assert answer.status_code == 200
    assert ODD[fault](answer)


def test_after_a_fault_the_next_call_is_answered_well(server: FakeXaiServer, http: httpx2.Client) -> None:
    server.fake.script = ["reset"]
    with pytest.raises(httpx2.ReadError):
        http.post(ROUTE, json=chat_payload("one"))

    assert http.post(ROUTE, json=chat_payload("one")).status_code == 200


# Many at once


async def ask_at_once(server: FakeXaiServer, count: int) -> list[Json]:
    limits = httpx2.Limits(max_connections=50)
    async with httpx2.AsyncClient(base_url=server.url, headers=HEADERS, limits=limits, trust_env=False) as http:
        answers = await asyncio.gather(
            *(http.post(ROUTE, json=chat_payload(f"text {number}")) for number in range(count))
        )
    return [json.loads(answer.json()["choices"][0]["message"]["content"])["results"][0] for answer in answers]


async def test_many_calls_are_each_journaled_once_and_answered_with_their_own(server: FakeXaiServer) -> None:
    results = await ask_at_once(server, 500)

    assert [result["sentiment_score"] for result in results] == [score_of(f"text {number}") for number in range(500)]
    assert sorted(server.journal.texts()) == sorted(f"text {number}" for number in range(500))
    assert all(call.answered_at is not None for call in server.journal.calls)


def test_slow_answers_block_no_other(server: FakeXaiServer, http: httpx2.Client) -> None:
    server.fake.script = [delay(30)] * 30
    with ExitStack() as waiting:
        for _ in range(30):
            connection = waiting.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            connection.sendall(raw_request("slow"))
        wait_until(lambda: server.fake.in_flight == 30)
        answer = http.post(ROUTE, json=chat_payload("swift"))

    assert answer.status_code == 200
    assert server.journal.calls[-1].in_flight == 31


def test_a_client_that_hangs_up_is_noted_and_does_no_harm(server: FakeXaiServer, http: httpx2.Client) -> None:
    server.fake.script = [delay(30)]
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(raw_request("one"))
        wait_until(lambda: server.fake.in_flight == 1)
    wait_until(lambda: server.fake.in_flight == 0)

    answer = http.post(ROUTE, json=chat_payload("two"))

    left, stayed = server.journal.calls
    assert (left.status, left.answered_at) == (200, None)
    assert answer.status_code == 200
    wait_until(lambda: stayed.answered_at is not None)


def test_a_plan_may_be_swapped_while_it_runs(server: FakeXaiServer, http: httpx2.Client) -> None:
    plan = server.fake.plan
    server.fake.plan = always("unavailable")
    down = http.post(ROUTE, json=chat_payload("one")).status_code

    server.fake.plan = plan

    assert (down, http.post(ROUTE, json=chat_payload("one")).status_code) == (503, 200)


# Start and end


def test_calls_that_hang_do_not_keep_it_from_stopping() -> None:
    threads_before = threading.active_count()
    with running_fake_xai() as server:
        server.hang()
        connections = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
        for connection in connections:
            connection.sendall(raw_request("one"))
        wait_until(lambda: server.fake.in_flight == 20)
    for connection in connections:
        connection.close()

    assert server.fake.in_flight == 0
    assert (threading.active_count(), server.connections) == (threads_before, set())


def test_it_can_end_and_return_at_the_same_port() -> None:
    with running_fake_xai() as server, client_of(server) as http:
        http.post(ROUTE, json=chat_payload("one"))
    with client_of(server) as http, pytest.raises(httpx2.ConnectError):
        http.post(ROUTE, json=chat_payload("one"))

    with running_fake_xai(server.fake, port=server.port) as again, client_of(again) as http:
        answer = http.post(ROUTE, json=chat_payload("one"))

    assert answer.status_code == 200
    assert len(again.journal.calls) == 2


def test_a_mistake_in_a_plan_comes_to_light_at_the_end() -> None:
    def mistaken(_number: int, payload: Json) -> Choice:
        raise KeyError(payload["model"])

    with pytest.raises(KeyError, match="grok"), running_fake_xai(FakeXai(plan=mistaken)) as server:  # noqa: SIM117
        with client_of(server) as http, pytest.raises(httpx2.ReadError):
            http.post(ROUTE, json=chat_payload("one"))


def test_its_environment_leads_to_it(server: FakeXaiServer) -> None:
    environment = server.environment

    answer = httpx2.get(
        f"{environment['GROK_BASE_URL']}/api-key",
        headers={"authorization": f"Bearer {environment['GROK_KEY']}"},
        trust_env=False,
    )

    assert answer.json()["redacted_api_key"] == f"xa...{GOOD_KEY[-4:]}"


# By hand


@contextmanager
def started_by_hand(*options: str) -> Generator[tuple[subprocess.Popen[str], str], None, None]:
    """The program as `make fake-xai` runs it, and the command that it prints."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.fake_xai", "--port", "0", *options],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().rstrip()
        finally:
            process.kill()


def test_by_hand_it_says_how_to_use_it_and_what_came_of_it(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    with started_by_hand("--journal", str(file), "--faults", "1", "--kinds", "internal") as (process, command):
        [url] = re.findall(r"^GROK_BASE_URL=(http://127\.0\.0\.1:\d+/v1) GROK_KEY=test make run$", command)
        answer = httpx2.post(f"{url}/{ROUTE}", headers=HEADERS, json=chat_payload(*THREE), trust_env=False)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=10)

    assert (answer.status_code, process.returncode) == (500, 0)
    assert "calls 1, conversations 3, faults 1, in flight 0" in said
    assert [call.texts for call in Journal.load(file).calls] == [list(THREE)]


def test_a_port_that_is_taken_ends_the_start_with_a_sentence(server: FakeXaiServer) -> None:
    with started_by_hand("--port", str(server.port)) as (process, said):
        process.wait(timeout=10)

    assert process.returncode == 2
    assert said.startswith("The fake xAI cannot start: ")
