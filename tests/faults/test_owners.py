"""Several processes on one database: who works the queue, who takes over, and what comes too late."""

import signal
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.fake_xai import FakeXai, FakeXaiServer, running_fake_xai
from tests.faults.figures import Figures
from tests.faults.invariants import find_broken
from tests.harness import Service, post_all, wait_for_call, wait_until
from tests.nursery import Nursery

pytestmark = [pytest.mark.integration, pytest.mark.slow]

LEASE_S = 1
FENCED = "insights_outcomes_fenced_total"


@pytest.fixture
def xai() -> Generator[FakeXaiServer]:
    with running_fake_xai(FakeXai(latency_s=0.2)) as running:
        yield running


def metric(service: Service, name: str) -> float:
    with service.client() as client:
        lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def make_services(count: int, folder: Path, nursery: Nursery, **environment: str) -> list[Service]:
    return [Service(folder, environment, nursery=nursery, log_name=f"{number}.log") for number in range(count)]


# A file


def takeovers(services: Sequence[Service]) -> list[tuple[str, int]]:
    """Who took the queue when, by the logs: moment and number of the service."""
    return sorted(
        (line["time"], number)
        for number, service in enumerate(services)
        if service.log.exists()
        for line in service.log_lines()
        if line["event"] == "queue_owned"
    )


def wait_for_takeover(services: Sequence[Service], *, after: int) -> None:
    wait_until(lambda: len(takeovers(services)) > after, within_s=20)


@pytest.mark.fault(5)
def test_of_four_processes_on_a_file_one_works_and_another_takes_over(
    tmp_path: Path, nursery: Nursery, xai: FakeXaiServer, figures: Figures
) -> None:
    environment = {
        **xai.environment,
        "POLL_INTERVAL_SECONDS": "0.5",
        "GROK_CALLS_PER_SECOND": "1000",
        "CANARY_SHARE": "0",
    }
    services = make_services(4, tmp_path, nursery, **environment)
    ids: list[str] = []
    in_hand: set[str] = set()
    try:
        for service in services:
            service.launch()
        for service in services:
            service.wait_until_ready()
        for cycle in range(figures.times(1, 50)):
            seen = len(xai.journal.chats)
            for number, service in enumerate(services):
                ids += post_all(service, *(f"order {row} by {number} in round {cycle}" for row in range(15)))
            taken = takeovers(services)
            owner = services[taken[-1][1]]
            wait_for_call(xai, after=seen)
            owner.kill()
            killed = time.monotonic()
            in_hand |= {row[0] for row in owner.query("SELECT text FROM conversations WHERE status = 'processing'")}
            figures.count(kills=1)
            wait_for_takeover(services, after=len(taken))
            figures.note_most(taken_over_after_s=time.monotonic() - killed)
            wait_until(
                lambda: services[0].query("SELECT 1 FROM conversations WHERE due_at IS NOT NULL") == [], within_s=60
            )
            owner.start()
    finally:
        for service in services:
            service.kill()

    texts = xai.journal.texts()
    doubled = {text for text in set(texts) if texts.count(text) > 1}
    figures.count(rows=len(ids), called_again_after_a_kill=len(doubled & in_hand), double=len(doubled - in_hand))
    assert doubled <= in_hand
    assert find_broken(services[0].query, acknowledged=ids) == []


@pytest.mark.fault(4)
def test_a_stopped_owner_of_a_file_keeps_the_queue_and_goes_on_with_it(
    tmp_path: Path, nursery: Nursery, xai: FakeXaiServer, figures: Figures
) -> None:
    services = make_services(2, tmp_path, nursery, **xai.environment, LEASE_SECONDS=str(LEASE_S))
    try:
        for service in services:
            service.start()
        owner = services[takeovers(services)[-1][1]]
        other = services[1 - services.index(owner)]
        owner.signal(signal.SIGSTOP)
        ids = post_all(other, "late parcel")
        if figures.full:
            stopped = time.monotonic()
            wait_until(lambda: not other.is_ready(), within_s=60)
            figures.note_most(red_after_s=time.monotonic() - stopped)
        time.sleep(2 * LEASE_S)
        while_stopped = other.query("SELECT status FROM conversations")
        owner.signal(signal.SIGCONT)
        wait_until(lambda: other.query("SELECT status FROM conversations") == [("completed",)])
        wait_until(other.is_ready)
    finally:
        for service in services:
            service.kill()

    figures.count(stops=1)
    assert while_stopped == [("pending",)]
    assert find_broken(services[0].query, acknowledged=ids) == []


# A server


@pytest.mark.fault(4)
def test_what_a_stopped_process_finishes_late_is_refused(
    tmp_path: Path, nursery: Nursery, xai: FakeXaiServer, new_postgresql_url: Callable[[], str], figures: Figures
) -> None:
    url = new_postgresql_url()
    environment = {
        **xai.environment,
        "DATABASE_URL": url,
        "LEASE_SECONDS": str(LEASE_S),
        "POLL_INTERVAL_SECONDS": "0.1",
        "GROK_CALLS_PER_SECOND": "1000",
        "CANARY_SHARE": "0",
    }
    sleeper, other = make_services(2, tmp_path, nursery, **environment)
    ids: list[str] = []
    try:
        sleeper.start()
        for cycle in range(figures.times(2, 200)):
            seen = len(xai.journal.chats)
            ids += post_all(sleeper, *(f"order {row} in round {cycle}" for row in range(3)))
            wait_for_call(xai, after=seen)
            sleeper.signal(signal.SIGSTOP)
            other.start()
            wait_until(
                lambda: ask(url, "SELECT 1 FROM conversations WHERE due_at IS NOT NULL LIMIT 1") == [], within_s=60
            )
            other.stop()
            sleeper.signal(signal.SIGCONT)
            wait_until(lambda: metric(sleeper, FENCED) > figures.counts.get("fenced", 0), within_s=20)
            figures.count(stops=1, fenced=metric(sleeper, FENCED) - figures.counts.get("fenced", 0))
    finally:
        sleeper.signal(signal.SIGCONT)
        sleeper.kill()
        other.kill()

    assert figures.counts["fenced"] > 0
    assert find_broken(lambda statement: ask(url, statement), acknowledged=ids, sqlite=False) == []


def ask(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()
