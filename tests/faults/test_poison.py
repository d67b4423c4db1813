"""A row that kills the process is given up after three rescues; the others go on, however often the service dies."""

import os
import signal
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.fake_xai import FakeXai, FakeXaiServer, running_fake_xai
from tests.fake_xai_answers import texts_of
from tests.fake_xai_faults import no_faults
from tests.faults.figures import Figures
from tests.faults.invariants import find_broken
from tests.harness import Service, post_all, wait_for_call, wait_until
from tests.nursery import Nursery

pytestmark = [pytest.mark.integration, pytest.mark.slow]

DEADLY = "the text that nobody survives"


@pytest.fixture
def xai() -> Generator[FakeXaiServer]:
    with running_fake_xai(FakeXai(latency_s=0.03)) as running:
        yield running


@pytest.fixture
def service(tmp_path: Path, nursery: Nursery, xai: FakeXaiServer) -> Generator[Service]:
    environment = {
        **xai.environment,
        "LOG_LEVEL": "WARNING",
        "POLL_INTERVAL_SECONDS": "0.1",
        "GROK_CALLS_PER_SECOND": "1000",
        "CANARY_SHARE": "0",
    }
    made = Service(tmp_path, environment, nursery=nursery)
    yield made
    made.kill()


def is_done(service: Service) -> bool:
    return service.query("SELECT 1 FROM conversations WHERE due_at IS NOT NULL LIMIT 1") == []


def count_ends(service: Service) -> dict[str, int]:
    return dict(service.query("SELECT coalesce(error_code, status), count(*) FROM conversations GROUP BY 1"))


@pytest.mark.fault(10)
def test_of_a_hundred_rows_only_the_one_that_kills_is_failed(
    service: Service, xai: FakeXaiServer, figures: Figures
) -> None:
    def kill_for_it(_number: int, payload: dict[str, Any]) -> None:
        if DEADLY in texts_of(payload):
            os.kill(service.pid, signal.SIGKILL)

    xai.fake.plan = kill_for_it
    for number in range(figures.times(1, 20)):
        service.remove_database()
        service.start()
        ids = post_all(service, *(f"parcel {number} of order {row} is late" for row in range(99)), DEADLY)
        deaths = 0
        while not is_done(service):
            if not service.is_running:
                deaths += 1
                service.start()
            time.sleep(0.02)
        service.kill()
        figures.count(rows=100, deaths=deaths, poison=count_ends(service).get("poison", 0))

        assert count_ends(service) == {"completed": 99, "poison": 1}
        assert find_broken(service.query, acknowledged=ids) == []
        assert deaths == 4


@pytest.mark.fault(10)
def test_five_kills_in_slow_calls_fail_no_row(service: Service, xai: FakeXaiServer, figures: Figures) -> None:
    for number in range(figures.times(1, 20)):
        service.remove_database()
        xai.hang()
        ids: list[str] = []
        for _ in range(5):
            seen = len(xai.journal.chats)
            service.start()
            ids = ids or post_all(service, *(f"parcel {number} of order {row} is late" for row in range(10)))
            wait_for_call(xai, after=seen)
            service.kill()
            figures.count(kills=1)
        xai.fake.plan = no_faults
        service.start()
        wait_until(lambda: is_done(service), within_s=60)
        service.kill()

        assert count_ends(service) == {"completed": 10}
        assert find_broken(service.query, acknowledged=ids) == []
