"""Killed at any moment, again and again, the service loses nothing it acknowledged and analyzes nothing twice over."""

import os
import random
import threading
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import httpx2
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from database import MIGRATIONS
from survival import FAILPOINTS
from tests.faults.figures import FULL, Figures
from tests.faults.invariants import find_broken, find_double, find_lost
from tests.faults.senders import BULK, ONE, TEXTS, Sender, acknowledged_by, sending
from tests.harness import Service, wait_until
from tests.nursery import Nursery

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SEED = int(os.environ.get("KILL_SEED", "0")) or random.randrange(1, 10**9)
QUIET = {"LOG_LEVEL": "WARNING"} | ({} if FULL else {"POLL_INTERVAL_SECONDS": "0.2"})
RESCUED_WITHIN_S = 40  # a lease takes 60 s: what is rescued sooner was given back by whoever owns the queue
ROWS = 100
IN_MIGRATION = "in_migration"
WITHIN = ["before_commit:kill=0.001@9", "before_checkpoint:kill=0.001", "before_checkpoint:kill=0.005"]


@pytest.fixture(autouse=True)
def chance() -> random.Random:
    print(f"KILL_SEED={SEED}")  # shown when it fails: the same moments again
    return random.Random(SEED)


def find_in_hand(service: Service) -> dict[str, int]:
    """What somebody had in hand when he died: the epochs of the claims, by conversation."""
    return dict(service.query("SELECT id, lease_epoch FROM conversations WHERE status = 'processing'"))


def wait_for_rescue(service: Service, in_hand: dict[str, int]) -> None:
    """Until the first of them is in other hands."""
    wait_until(
        lambda: any(find_in_hand(service).get(one) != epoch for one, epoch in in_hand.items()),
        within_s=RESCUED_WITHIN_S,
    )


def drain(service: Service) -> None:
    def is_done() -> bool:
        return service.query("SELECT 1 FROM conversations WHERE due_at IS NOT NULL LIMIT 1") == []

    wait_until(is_done, within_s=120)


def finish(service: Service, figures: Figures) -> None:
    """Work the queue to its end; what was in hand at too many kills is failed as poison, and is sent back once."""
    service.start()
    drain(service)
    codes = [code for (code,) in service.query("SELECT error_code FROM conversations WHERE status = 'failed'")]
    figures.count(sent_back=len(codes))
    with service.client() as client:
        assert client.post(f"{ONE}/retry", params={"status": "failed"}).status_code in {200, 202}
    drain(service)
    service.stop()
    assert set(codes) <= {"poison"}


def judge(service: Service, senders: Sequence[Sender], figures: Figures) -> None:
    """All that was promised to the senders, once the queue is empty."""
    acknowledged = acknowledged_by(senders)
    figures.count(acknowledged=len(acknowledged), answers_lost=sum(sender.lost_answers for sender in senders))
    figures.count(lost=len(find_lost(service.query, acknowledged.values())), double=len(find_double(service.query)))
    assert [complaint for sender in senders for complaint in sender.complaints] == []
    assert find_broken(service.query, acknowledged=acknowledged.values()) == []
    assert service.query("SELECT DISTINCT status FROM conversations ORDER BY 1") == [("completed",), ("skipped",)]


@pytest.mark.fault(1)
def test_kill_9_of_two_processes_at_any_moment_loses_nothing(
    tmp_path: Path, nursery: Nursery, chance: random.Random, figures: Figures
) -> None:
    pair = [Service(tmp_path, QUIET, nursery=nursery, log_name=f"{name}.log") for name in ("one", "two")]
    senders = [Sender("first"), Sender("second")]
    in_hand: dict[str, int] = {}
    for _ in range(figures.times(5, 1_000)):
        started = time.monotonic()
        for service in pair:
            service.launch()
        if in_hand:
            wait_for_rescue(pair[0], in_hand)
            figures.note_most(resumed_after_s=time.monotonic() - started)
        for service in pair:
            service.wait_until_ready()
        with sending(senders, *(service.url for service in pair)):
            for service in chance.sample(pair, 2):
                time.sleep(chance.uniform(0.02, 0.4))
                service.kill()
        in_hand = find_in_hand(pair[0])
        figures.count(kills=2, kills_with_rows_in_hand=bool(in_hand))
    finish(pair[0], figures)

    judge(pair[0], senders, figures)
    assert figures.counts["acknowledged"] > 5 * figures.counts["kills"]


@pytest.mark.fault(2)
def test_kill_9_at_each_failpoint_loses_nothing(
    tmp_path: Path, nursery: Nursery, chance: random.Random, figures: Figures
) -> None:
    service = Service(tmp_path, QUIET, nursery=nursery)
    sender = Sender("first")
    service.start()  # the tables are there: what is killed later is not the first start
    service.kill()
    for _ in range(figures.times(1, 20)):
        points = [f"{name}:kill@{chance.randint(1, 4)}" for name in FAILPOINTS if name != IN_MIGRATION]
        for point in [*points, *WITHIN]:
            service.launch(FAILPOINTS=point)
            service.wait_until_ready_or_ended()
            with sending([sender], service.url):
                assert service.wait_for_end() == -9, point
            figures.count(kills=1)
            assert find_broken(service.query, acknowledged=sender.acknowledged.values()) == [], point
    finish(service, figures)

    judge(service, [sender], figures)


@pytest.mark.fault(2)
def test_kill_9_in_a_migration_leaves_a_file_that_the_next_start_migrates(
    tmp_path: Path, nursery: Nursery, figures: Figures
) -> None:
    versions = len(list((MIGRATIONS / "versions").glob("*.py")))
    service = Service(tmp_path, QUIET, nursery=nursery)
    for _ in range(figures.times(1, 20)):
        service.remove_database()
        for version in range(1, versions + 1):
            service.launch(FAILPOINTS=f"{IN_MIGRATION}:kill@{version}")
            assert service.wait_for_end() == -9
            figures.count(kills=1)
        service.start()
        ids = send_bulk(service, "kept", rows=20)
        drain(service)
        service.stop()
        go_back_one_version(service)
        service.launch(FAILPOINTS=f"{IN_MIGRATION}:kill")
        assert service.wait_for_end() == -9
        service.start()
        service.kill()
        figures.count(kills=1, lost=len(find_lost(service.query, ids)))

        assert find_broken(service.query, acknowledged=ids) == []


def go_back_one_version(service: Service) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = create_engine(f"sqlite:///{service.file}", isolation_level="AUTOCOMMIT")
    with closing(engine.connect()) as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "-1")
    engine.dispose()


@pytest.mark.fault(3)
def test_of_a_bulk_that_is_killed_all_is_stored_or_nothing(
    tmp_path: Path, nursery: Nursery, chance: random.Random, figures: Figures
) -> None:
    service = Service(tmp_path, QUIET, nursery=nursery)
    deadly = ["in_acceptance:kill", "in_acceptance:kill=0.002", "after_acceptance:kill", ""]
    for number in range(figures.times(4, 200)):
        point = deadly[number % len(deadly)]
        service.start(FAILPOINTS=point)
        acknowledged = post_and_kill(service, f"bulk-{number}", after_s=5.0 if point else chance.uniform(0.005, 0.05))
        stored = count_stored(service, f"bulk-{number}")
        figures.count(kills=1, whole=stored == ROWS, nothing=stored == 0, lost=max(0, len(acknowledged) - stored))

        assert stored in {0, ROWS}
        assert find_broken(service.query, acknowledged=acknowledged) == []
    service.start()
    for number in range(figures.times(4, 200)):
        send_bulk(service, f"bulk-{number}", rows=ROWS)
    drain(service)
    service.stop()

    assert count_stored(service, "bulk-") == figures.counts["kills"] * ROWS


def post_and_kill(service: Service, name: str, *, after_s: float) -> list[str]:
    """The ids that were acknowledged, before the service was killed by a failpoint or from here."""
    acknowledged: list[str] = []

    def post() -> None:
        with suppress(httpx2.TransportError):  # killed first: nothing was promised
            acknowledged.extend(send_bulk(service, name, rows=ROWS))

    posting = threading.Thread(target=post)
    posting.start()
    posting.join(timeout=after_s)
    service.kill()
    posting.join()
    return acknowledged


def send_bulk(service: Service, name: str, *, rows: int) -> list[str]:
    items = [{"text": TEXTS[number % 5], "external_id": f"{name}-{number}"} for number in range(rows)]
    with service.client() as client:
        answer = client.post(BULK, json={"conversations": items})
    assert answer.status_code == 202, answer.text
    return [result["conversation_id"] for result in answer.json()["results"]]


def count_stored(service: Service, name: str) -> int:
    [(count,)] = service.query(f"SELECT count(*) FROM conversations WHERE external_id LIKE '{name}%'")
    return int(count)
