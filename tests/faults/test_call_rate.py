"""Never more calls to xAI in any second than allowed: over retries, kills, restarts, and by two processes at once."""

import random
import time
from pathlib import Path

import pytest

from tests.fake_xai import FakeXai, FakeXaiServer, running_fake_xai
from tests.fake_xai_faults import Choice
from tests.faults.figures import Figures
from tests.faults.invariants import find_broken
from tests.harness import Service, wait_until
from tests.nursery import Nursery

pytestmark = [pytest.mark.integration, pytest.mark.slow]

LIMIT = 10
BULK = "/api/v1/conversations/bulk"
SETTINGS = {
    "GROK_CALLS_PER_SECOND": str(LIMIT),
    "GROK_MAX_CONCURRENCY": "30",
    "GROK_PACK_SIZE": "1",
    "BATCH_SIZE": "30",
    "POLL_INTERVAL_SECONDS": "0.1",
    "LOG_LEVEL": "WARNING",
}


def troubled(number: int, _payload: object) -> Choice:
    """Every fifth call has to be made again; some are answered late, so that answers and new calls mix."""
    return {0: "internal", 1: "reset"}.get(number % 10)


def feed(service: Service, name: str, count: int) -> list[str]:
    """More than can be read while the test lasts; their ids."""
    ids: list[str] = []
    with service.client() as client:
        for start in range(0, count, 500):
            texts = [f"{name}: parcel {number} is late" for number in range(start, min(count, start + 500))]
            answer = client.post(BULK, json={"conversations": [{"text": text} for text in texts]})
            ids += [result["conversation_id"] for result in answer.json()["results"]]
    return ids


def tell(server: FakeXaiServer, figures: Figures) -> None:
    figures.count(calls=len(server.journal.calls), windows_above=server.calls_above(LIMIT))
    figures.note_most(calls_in_a_second=server.journal.calls_in_busiest_window())


@pytest.mark.fault(11)
def test_restarts_and_retries_stay_within_the_limit(tmp_path: Path, nursery: Nursery, figures: Figures) -> None:
    """Every second life ends by a kill, and the next begins at once, when calls of the last one still count."""
    chance = random.Random(11)
    restarts = figures.times(2, 50)
    life_s = 1.2 if not figures.full else 12.0
    with running_fake_xai(FakeXai(plan=troubled, latency_s=0.05, keeps_payloads=False)) as server:
        service = Service(tmp_path, {**SETTINGS, **server.environment}, nursery=nursery)
        ids: list[str] = []
        for life in range(restarts + 1):
            service.start()
            ids += feed(service, f"life {life}", round(LIMIT * life_s * 2))
            time.sleep(chance.uniform(0.7, 1.3) * life_s)
            if life % 2:
                service.stop()
            else:
                service.kill()
        tell(server, figures)

    figures.count(restarts=restarts)
    assert figures.counts["windows_above"] == 0
    assert figures.counts["calls"] > LIMIT, "it did work"
    assert find_broken(service.query, acknowledged=ids) == []


@pytest.mark.fault(11)
def test_two_processes_stay_within_the_limit_together(
    tmp_path: Path, nursery: Nursery, postgresql_url: str, figures: Figures
) -> None:
    lasting_s = figures.times(2, 600)
    with running_fake_xai(FakeXai(plan=troubled, latency_s=0.05, keeps_payloads=False)) as server:
        environment = {**SETTINGS, **server.environment, "DATABASE_URL": postgresql_url}
        folders = [tmp_path / name for name in ("one", "other")]
        services = [Service(folder, environment, nursery=nursery) for folder in folders]
        for folder, service in zip(folders, services, strict=True):
            folder.mkdir()
            service.start()
        try:
            feed(services[0], "both", LIMIT * lasting_s * 2)
            called = len(server.journal.calls)
            wait_until(lambda: len(server.journal.calls) > called, within_s=30)
            began = time.monotonic()
            time.sleep(lasting_s)
            figures.count(seconds=time.monotonic() - began)
        finally:
            for service in services:
                service.kill()
        tell(server, figures)

    assert figures.counts["windows_above"] == 0
    assert figures.counts["calls"] > LIMIT, "they did work"
