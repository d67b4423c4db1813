"""Told to stop, the service ends within 10 s whatever is under way, with status 0 and nothing left in hand."""

import random
import signal
import socket
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fake_xai import FakeXaiServer, running_fake_xai
from tests.faults.figures import Figures
from tests.faults.invariants import find_broken
from tests.faults.senders import BULK
from tests.harness import Service, wait_for_call, wait_until
from tests.nursery import Nursery

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ENDS_WITHIN_S = 10
HALF_A_BODY = (
    b"POST /api/v1/conversations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b'Content-Length: 100\r\n\r\n{"text": "'
)
WEBSOCKET = (
    b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
CLIENTS = {
    "half a header": b"POST /api/v1/conversations HTTP/1.1\r\nHost: x\r\nX-Nev",
    "half a body": HALF_A_BODY,
    "an idle connection": b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
    "an open stream": b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n",
    "a file that nobody reads": b"GET /api/v1/insights?format=jsonl HTTP/1.1\r\nHost: x\r\n\r\n",
    "a WebSocket": WEBSOCKET,
    "nothing said": b"",
}


@pytest.fixture
def xai() -> Generator[FakeXaiServer]:
    with running_fake_xai() as running:
        yield running


@pytest.fixture
def service(tmp_path: Path, nursery: Nursery) -> Generator[Service]:
    made = Service(tmp_path, {"LOG_LEVEL": "WARNING"}, nursery=nursery)
    yield made
    made.kill()


def fill(service: Service, *, insights: int) -> None:
    """More than the sockets between service and client hold."""
    service.start()
    with service.client() as client:
        for start in range(0, insights, 100):
            items = [{"text": f"parcel {start + number} is late " + "x" * 9_000} for number in range(100)]
            assert client.post(BULK, json={"conversations": items}).status_code == 202
    wait_until(lambda: service.query("SELECT 1 FROM conversations WHERE due_at IS NOT NULL LIMIT 1") == [], within_s=60)
    service.stop()


def hold_open(stack: ExitStack, service: Service) -> None:
    """A client of each kind that never comes to an end."""
    for request in CLIENTS.values():
        held = stack.enter_context(socket.socket())
        held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        held.connect(("127.0.0.1", service.port))
        held.sendall(request)


@pytest.mark.fault(6)
def test_sigterm_with_everything_under_way_ends_in_time_and_leaves_nothing_in_hand(
    service: Service, xai: FakeXaiServer, figures: Figures
) -> None:
    fill(service, insights=400)
    xai.hang()
    for number in range(figures.times(1, 20)):
        service.start(**xai.environment)
        seen = len(xai.journal.chats)
        with ExitStack() as stack, service.client() as client:
            for row in range(5):
                client.post("/api/v1/conversations", json={"text": f"order {row} of round {number} is lost"})
            wait_for_call(xai, after=seen)
            hold_open(stack, service)
            time.sleep(0.3)  # until all of it has arrived
            ended_after_s = stop_twice(service, [signal.SIGINT, signal.SIGTERM][number % 2])
        figures.count(stops=1)
        figures.note_most(ended_after_s=ended_after_s)

        assert ended_after_s <= ENDS_WITHIN_S
        assert service.wait_for_end() == 0
        open_rows = "SELECT DISTINCT status, attempts, rescues FROM conversations WHERE due_at IS NOT NULL"
        assert service.query(open_rows) == [("pending", 0, 0)]
        assert find_broken(service.query, acknowledged=[]) == []


@pytest.mark.fault(6)
def test_sigterm_while_a_commit_hangs_ends_in_time(service: Service, figures: Figures) -> None:
    for number in range(figures.times(1, 10)):
        service.start(FAILPOINTS=f"before_commit:pause=45@{3 + number % 3}")
        hanging = ThreadPoolExecutor(2)
        with service.client() as client:
            for row in range(2):
                hanging.submit(client.post, "/api/v1/conversations", json={"text": f"order {row} is lost"})
                time.sleep(0.3)  # a commit of its own
            took_s = service.stop()
            hanging.shutdown()
        figures.count(stops=1)
        figures.note_most(ended_after_s=took_s)

        assert took_s <= ENDS_WITHIN_S
        assert service.wait_for_end() == 0
        assert any(line["event"] == "database_hangs" for line in service.log_lines())
    service.start()
    service.stop()
    assert find_broken(service.query, acknowledged=[]) == []


def stop_twice(service: Service, second: int) -> float:
    started = time.monotonic()
    service.signal(signal.SIGTERM)
    time.sleep(0.2)
    service.signal(second)
    service.wait_for_end()
    return time.monotonic() - started


@pytest.mark.fault(6)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_during_the_start_ends_it_and_the_next_start_is_whole(
    service: Service, number: int, figures: Figures
) -> None:
    chance = random.Random(figures.number)
    for _ in range(figures.times(3, 100)):
        service.remove_database()
        service.launch()
        time.sleep(chance.uniform(0.0, 0.3))
        took_s = service.stop(number)
        figures.count(stops=1)
        figures.note_most(ended_after_s=took_s)

        assert took_s <= ENDS_WITHIN_S
        assert service.wait_for_end() in {0, -number}
    service.start()
    service.stop()

    assert find_broken(service.query, acknowledged=[]) == []
