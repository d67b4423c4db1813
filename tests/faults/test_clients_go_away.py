"""Clients that break off at any point, that do not read, that come in crowds: nothing of theirs stays behind."""

import contextlib
import os
import random
import resource
import socket
import struct
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from tests.faults.clients import BULK, ONE, Held, connect, exchange, held_by, request
from tests.faults.figures import Figures
from tests.faults.invariants import find_broken
from tests.harness import Service, running_service, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SEED = int(os.environ.get("CLIENT_SEED", "0")) or random.randrange(1, 10**9)
PATIENCE_S = 15  # as connections.py has it, for heads and for answers
INSIGHTS = "/api/v1/insights"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    """With enough in it for a file that no kernel buffers whole: 250 insights of 40 KB."""
    with running_service(tmp_path_factory.mktemp("away"), LOG_LEVEL="INFO") as running:
        with running.client() as client:
            items = [{"text": "My parcel is late again " + "\N{POUTING FACE}" * 9_900}] * 50
            for _ in range(5):
                assert client.post(BULK, json={"conversations": items}).status_code == 202
            wait_until(lambda: client.get("/health").json()["queue_size"] == 0, within_s=60)
        yield running


@contextlib.contextmanager
def everything_given_back(service: Service, *, within_s: float) -> Generator[None]:
    """As many files, sockets and threads as before, and nobody in a place."""
    before = held_by(service)
    yield
    wait_until(lambda: at_rest(held_by(service), before), within_s=within_s)
    assert exchange(service, request("GET", "/ready"))["http_status"] == 200


def at_rest(now: Held, before: Held) -> bool:
    return now.sockets <= before.sockets and now.threads <= before.threads + 4  # a pool fills as needed


Leave = Callable[[socket.socket, random.Random], None]


def in_the_head(connection: socket.socket, chance: random.Random) -> None:
    whole = request("POST", ONE, {"text": "late parcel"})
    connection.sendall(whole[: chance.randrange(1, whole.index(b"\r\n\r\n"))])


def in_the_body(connection: socket.socket, chance: random.Random) -> None:
    whole = request("POST", BULK, {"conversations": [{"text": "late parcel"}] * 100})
    connection.sendall(whole[: chance.randrange(whole.index(b"\r\n\r\n") + 4, len(whole) - 1)])


def while_waiting(connection: socket.socket, _chance: random.Random) -> None:
    connection.sendall(request("POST", ONE, {"text": "late parcel"}))


def with_requests_in_line(connection: socket.socket, _chance: random.Random) -> None:
    connection.sendall(request("GET", f"{INSIGHTS}?limit=100") * 5)


def in_a_file(connection: socket.socket, chance: random.Random) -> None:
    connection.sendall(request("GET", f"{INSIGHTS}?format={chance.choice(['csv', 'jsonl'])}"))
    connection.recv(chance.randrange(1, 200_000))


def in_a_stream(connection: socket.socket, chance: random.Random) -> None:
    connection.sendall(request("GET", "/api/v1/events", None, "Last-Event-ID: 0"))
    connection.recv(chance.randrange(1, 5_000))


WAYS: list[Leave] = [in_the_head, in_the_body, while_waiting, with_requests_in_line, in_a_file, in_a_stream]


def hang_up(connection: socket.socket, *, rudely: bool) -> None:
    """With a reset, which a client's crash is to the service, or with a good-bye."""
    if rudely:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.fault(19)
def test_clients_that_go_away_at_any_point_leave_nothing(service: Service, figures: Figures) -> None:
    chance = random.Random(SEED)
    print(f"CLIENT_SEED={SEED}")
    plateau, count = 0.0, figures.times(60, 500)

    with everything_given_back(service, within_s=30):
        for number in range(2 * count):
            if number == count:  # each way has been gone often: what is needed at once has been asked for
                plateau = held_by(service).memory_mb
            connection = connect(service)
            WAYS[number % len(WAYS)](connection, chance)
            hang_up(connection, rudely=chance.random() < 0.5)
            figures.count(clients_gone=1)
            if number % 50 == 49:
                figures.note_most(descriptors=held_by(service).descriptors)

    grown = held_by(service).memory_mb - plateau
    figures.note_most(memory_grown_mb=grown)
    assert grown < 80  # pages of files, 10 MB each here, and what the allocator keeps of them
    places = [exchange(service, request("GET", f"{INSIGHTS}?limit=1"))["http_status"] for _ in range(8)]
    assert places == [200] * 8
    assert [line for line in service.log_lines() if line["level"] in {"error", "critical"}] == []
    assert find_broken(service.query, acknowledged=[]) == []


@pytest.mark.fault(19)
def test_clients_that_stay_and_do_nothing_are_cut_off_and_keep_no_place(service: Service, figures: Figures) -> None:
    """All kinds at once, so that the wait is one: silent, a head that stops, a body that stops, answers unread."""
    stalled = [b"", b"GET / HTTP/1.1\r\nHost: x\r\n", request("POST", ONE, {"text": "late"})[:-3]]
    unread = [request("GET", f"{INSIGHTS}?{asked}") for asked in ("limit=1000", "format=csv", "format=jsonl")]
    with everything_given_back(service, within_s=4 * PATIENCE_S), contextlib.ExitStack() as held:
        before = held_by(service).sockets
        for kind in [*stalled, *unread] * figures.times(1, 10):
            held.enter_context(connect(service)).sendall(kind)
            figures.count(stayed=1)
        wait_until(lambda: held_by(service).sockets > before)  # a busy machine takes them late
        started = time.monotonic()
        wait_until(lambda: held_by(service).sockets <= before, within_s=4 * PATIENCE_S)
        figures.note_most(cut_off_s=time.monotonic() - started)

    assert figures.counts["cut_off_s"] > PATIENCE_S / 2
    assert [line for line in service.log_lines() if line["level"] == "critical"] == []


@pytest.mark.fault(19)
def test_without_descriptors_it_turns_away_and_recovers(service: Service, figures: Figures) -> None:
    assert service.process is not None
    limit = held_by(service).descriptors + 5
    before = resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE)
    try:
        for _ in range(figures.times(2, 50)):
            resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (limit, before[1]))
            with contextlib.ExitStack() as held:
                for _ in range(40):
                    held.enter_context(connect(service))
                    figures.count(connections=1)
                busy_s = cpu_s(service)
                time.sleep(0.3)
                figures.note_most(cpu_share=(cpu_s(service) - busy_s) / 0.3)
            wait_until(lambda: answers(service), within_s=20)
            assert exchange(service, request("POST", ONE, {"text": "late parcel"}))["http_status"] == 202
            figures.count(recoveries=1)
    finally:
        resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, before)

    assert service.process.poll() is None
    assert find_broken(service.query, acknowledged=[]) == []


def answers(service: Service) -> bool:
    with contextlib.suppress(OSError, IndexError, ValueError):
        return bool(exchange(service, request("GET", "/ready"))["http_status"] == 200)
    return False


def cpu_s(service: Service) -> float:
    assert service.process is not None
    fields = Path(f"/proc/{service.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
