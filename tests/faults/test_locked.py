"""While another process has the lock of the file, reads work and writes are refused in time; then all goes on."""

import sqlite3
import threading
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.faults.endpoints import READS, WRITES
from tests.faults.figures import Figures
from tests.faults.invariants import find_broken
from tests.harness import Service, post_one, running_service, wait_until
from tests.nursery import Nursery

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ALL_WRITES = (*WRITES, ("POST", "/api/v1/reanalyze", {"all": True}))
LIMITED = ("/api/v1/reanalyze", "/api/v1/conversations/retry")  # at most 10 a minute
PATIENCE_S = 5.0
LITTLE_MORE_S = 2.5  # for a busy machine; without it all of them are answered within 5.4 s


@pytest.mark.fault(13)
def test_a_file_that_is_locked_by_another_process(tmp_path: Path, nursery: Nursery, figures: Figures) -> None:
    written_s = figures.times(1, 30)  # the last of them waits for 5 s more
    with running_service(tmp_path, nursery, LOG_LEVEL="WARNING") as service, service.client() as client:
        kept = [post_one(client, "My parcel is late again")]
        answers: list[tuple[httpx2.Response, float]] = []
        with locked(service.file), clients_that_write(service, kept[0], answers) as stop:
            ends_at = time.monotonic() + written_s
            while time.monotonic() < ends_at:
                for path in READS:
                    figures.count(**{f"reads_{client.get(path.format(kept=kept[0])).status_code}": 1})
                time.sleep(0.1)
            stop.set()
        kept.append(post_one(client, "Charged twice, refund me"))
        wait_until(lambda: open_rows(service) == 0, within_s=30)

    statuses = [answer.status_code for answer, _ in answers]
    refused = [answer for answer, _ in answers if answer.status_code == 503]
    figures.count(writes_503=statuses.count(503), status_500=statuses.count(500))
    figures.note_most(answered_after_s=max(seconds for _, seconds in answers))
    paths = {path.split("?")[0].format(kept=kept[0], erased=kept[0]) for _, path, _ in ALL_WRITES}
    assert {answer.request.url.path for answer in refused} == paths
    assert {(answer.json()["error"], answer.headers["Retry-After"]) for answer in refused} == {("database_busy", "1")}
    others = {(answer.status_code, answer.request.url.path) for answer, _ in answers if answer.status_code != 503}
    assert others <= {(429, path) for path in LIMITED}
    assert max(seconds for _, seconds in answers) < PATIENCE_S + LITTLE_MORE_S
    assert {name for name in figures.counts if name.startswith("reads_")} == {"reads_200"}
    assert find_broken(service.query, acknowledged=kept) == []


@contextmanager
def locked(file: Path) -> Generator[None]:
    """Another connection has the lock, as another process would."""
    with closing(sqlite3.connect(file, isolation_level=None, timeout=30)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def clients_that_write(
    service: Service, kept: str, answers: list[tuple[httpx2.Response, float]]
) -> Generator[threading.Event]:
    """Twenty of them, each again as soon as it is answered, until the event is set."""
    stop = threading.Event()

    def write_until_then(number: int) -> None:
        method, path, body = ALL_WRITES[number % len(ALL_WRITES)]
        time.sleep(number * 0.05)  # so that they do not all come at once
        with service.client() as client:
            while not stop.is_set():
                started = time.monotonic()
                answer = client.request(method, path.format(kept=kept, erased=kept), json=body)
                answers.append((answer, time.monotonic() - started))

    threads = [threading.Thread(target=write_until_then, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    try:
        yield stop
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def open_rows(service: Service) -> int:
    [(count,)] = service.query("SELECT count(*) FROM conversations WHERE status IN ('pending', 'processing')")
    return int(count)
