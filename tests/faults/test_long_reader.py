"""The log of SQLite while somebody reads: bounded whatever the service reads, small again when readers have gone."""

import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from tests.faults.figures import Figures
from tests.faults.invariants import find_broken
from tests.harness import Service, running_service, wait_until
from tests.nursery import Nursery

pytestmark = [pytest.mark.integration, pytest.mark.slow]

MB = 1_000_000
MOST_WAL, MOST_IDLE_WAL = 64 * 1024 * 1024, 4 * 1024 * 1024


@pytest.mark.fault(14)
def test_the_log_stays_small_while_the_service_itself_reads_without_a_pause(
    tmp_path: Path, nursery: Nursery, figures: Figures
) -> None:
    with running_service(tmp_path, nursery, LOG_LEVEL="WARNING") as service, service.client() as client:
        stop, kept = threading.Event(), list[str]()
        readers = [threading.Thread(target=read_until, args=(service, stop)) for _ in range(4)]
        for reader in readers:
            reader.start()
        written = 0
        while written < figures.times(5, 2_000) * MB:
            written += write(client, kept)
            figures.note_most(wal_MB=wal_bytes(service) / MB)
            assert wal_bytes(service) <= MOST_WAL
        stop.set()
        for reader in readers:
            reader.join()
        started = time.monotonic()
        wait_until(lambda: wal_bytes(service) <= MOST_IDLE_WAL, within_s=90)  # while what was sent is being read
        figures.note_most(small_after_s=time.monotonic() - started, written_MB=written / MB)

        assert find_broken(service.query, acknowledged=kept) == []


@pytest.mark.fault(14)
def test_the_log_is_small_again_when_another_program_stops_reading(
    tmp_path: Path, nursery: Nursery, figures: Figures
) -> None:
    with running_service(tmp_path, nursery, LOG_LEVEL="WARNING") as service, service.client() as client:
        kept: list[str] = []
        write(client, kept)
        with closing(sqlite3.connect(service.file, isolation_level=None)) as other:
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM conversations").fetchone()
            written = 0
            while written < figures.times(6, 500) * MB:
                written += write(client, kept)
            figures.note_most(wal_MB=wal_bytes(service) / MB, written_MB=written / MB)
            grown = wal_bytes(service)
            other.execute("ROLLBACK")
        started = time.monotonic()
        wait_until(lambda: wal_bytes(service) <= MOST_IDLE_WAL, within_s=90)
        figures.note_most(small_after_s=time.monotonic() - started)

        assert grown > MOST_IDLE_WAL
        assert find_broken(service.query, acknowledged=kept) == []


def write(client: httpx2.Client, kept: list[str]) -> int:
    """Half a megabyte of conversations; how many bytes."""
    text = "My parcel is late again. " * 200
    answer = client.post("/api/v1/conversations/bulk", json={"conversations": [{"text": text}] * 100})
    assert answer.status_code == 202, answer.text
    kept += [result["conversation_id"] for result in answer.json()["results"]]
    return 100 * len(text)


def read_until(service: Service, stop: threading.Event) -> None:
    with service.client() as client:
        while not stop.is_set():
            client.get("/api/v1/insights", params={"q": "parcel", "facet": "topic,sentiment", "limit": 100})


def wal_bytes(service: Service) -> int:
    wal = service.file.with_name(service.file.name + "-wal")
    return wal.stat().st_size if wal.exists() else 0
