"""On a full disk reads work and writes are refused with 507; no conversation fails, and all goes on with room."""

import time
from functools import partial
from pathlib import Path

import httpx2
import pytest

from tests.fake_xai import FakeXai
from tests.fake_xai_server import running_fake_xai
from tests.faults.endpoints import READS, WRITES
from tests.faults.figures import Figures
from tests.faults.full_disks import fill_up, small_disk
from tests.faults.invariants import find_broken
from tests.harness import Service, running_service, wait_until
from tests.nursery import Nursery

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ANSWERED = {200, 202, 404, 409, 429, 507}  # 429: files of insights are limited


@pytest.mark.fault(12)
def test_a_full_disk_while_it_runs(tmp_path: Path, nursery: Nursery, figures: Figures) -> None:
    with (
        small_disk(tmp_path / "disk", megabytes=figures.times(24, 200)) as disk,  # what is stored must fit, twice
        running_fake_xai(FakeXai(latency_s=0.3)) as xai,
        running_service(disk, nursery, LOG_LEVEL="WARNING", **xai.environment) as service,
        service.client() as client,
    ):
        kept: list[str] = []
        for _ in range(figures.times(2, 40)):
            kept += send(client, 60)  # some are with Grok when the disk becomes full
            erased = kept.pop()
            ballast = fill_up(disk)
            statuses = use_everything(client, kept=kept[-1], erased=erased)
            for _ in range(20):
                if 507 not in statuses:  # there was room in the log
                    statuses += use_everything(client, kept=kept[-1], erased=erased)
            assert 507 in statuses
            figures.count(full=1, refused_507=statuses.count(507), reads=statuses.count(200))
            figures.count(status_500=statuses.count(500))
            assert set(statuses) <= ANSWERED
            ballast.unlink()
            started = time.monotonic()
            kept += send(client, 1)
            wait_until(lambda: all_ended(service), within_s=60)
            figures.note_most(went_on_after_s=time.monotonic() - started)

        assert service.query("SELECT count(*) FROM conversations WHERE status = 'failed'") == [(0,)]
        assert find_broken(service.query, acknowledged=kept) == []


@pytest.mark.fault(12)
def test_a_start_on_a_full_disk(tmp_path: Path, nursery: Nursery, figures: Figures) -> None:
    kept: list[str] = []
    with small_disk(tmp_path / "disk", megabytes=8) as disk:
        service = Service(disk, {"LOG_LEVEL": "WARNING"}, nursery=nursery)
        try:
            service.start()
            for _ in range(figures.times(1, 20)):
                with service.client() as client:
                    kept += send(client, 40)  # some are in hand when it is killed
                service.kill()
                ballast = fill_up(disk)
                service.launch()
                wait_until(partial(answers_or_ended, service), within_s=30)
                assert service.is_running or service.wait_for_end() == 3
                figures.count(starts=1, refused_starts=not service.is_running)
                ballast.unlink()
                service.kill()
                service.start()
                wait_until(lambda: all_ended(service), within_s=60)
        finally:
            service.kill()

        assert service.query("SELECT count(*) FROM conversations WHERE status = 'failed'") == [(0,)]
        assert find_broken(service.query, acknowledged=kept) == []


def answers_or_ended(service: Service) -> bool:
    try:
        return not service.is_running or httpx2.get(f"{service.url}/health", trust_env=False).status_code == 200
    except httpx2.TransportError:
        return False


def send(client: httpx2.Client, count: int) -> list[str]:
    """Send so many, again while there is no room; their ids."""
    items = [{"text": f"My parcel {number} is late again, {time.monotonic_ns()}"} for number in range(count)]
    answer = client.post("/api/v1/conversations/bulk", json={"conversations": items})
    while answer.status_code == 507:
        time.sleep(0.1)
        answer = client.post("/api/v1/conversations/bulk", json={"conversations": items})
    return [result["conversation_id"] for result in answer.json()["results"]]


def use_everything(client: httpx2.Client, *, kept: str, erased: str) -> list[int]:
    """Every endpoint, a few times."""
    requests = [*WRITES, *(("GET", path, None) for path in READS)] * 4
    made = [client.request(method, path.format(kept=kept, erased=erased), json=body) for method, path, body in requests]
    return [answer.status_code for answer in made]


def all_ended(service: Service) -> bool:
    return service.query("SELECT count(*) FROM conversations WHERE status IN ('pending', 'processing')") == [(0,)]
