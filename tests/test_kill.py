"""Killed at any moment, again and again, the service loses nothing it acknowledged and analyzes nothing twice over."""

import os
import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.harness import Service, free_port, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CYCLES = int(os.environ.get("KILL_CYCLES", "8"))  # 30 is the full form
SEED = int(os.environ.get("KILL_SEED", "0")) or random.randrange(1, 10**9)
BULK_ITEMS = 25
ONE, BULK = "/api/v1/conversations", "/api/v1/conversations/bulk"
TEXTS = [
    "My parcel is late again",
    "Love it, thanks!",
    "Charged twice, refund me",
    "https://t.co/x",
    "App crashes on login",
]


@dataclass
class Loader:
    """Sends without a pause until the service dies; what was sent and never answered goes first the next time."""

    name: str
    acknowledged: dict[str, str] = field(default_factory=dict[str, str])  # external id -> conversation id
    unanswered: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    complaints: list[str] = field(default_factory=list[str])
    lost_answers: int = 0
    _count: int = 0

    def load(self, url: str) -> None:
        with httpx2.Client(base_url=url, timeout=10, trust_env=False) as client:
            try:
                while True:
                    self._send(client)
            except httpx2.TransportError:
                self.lost_answers += bool(self.unanswered)

    def _send(self, client: httpx2.Client) -> None:
        items = self.unanswered or self._next_items()
        self.unanswered = items
        if len(items) == 1:
            answer = client.post(ONE, json=items[0])
            results = [answer.json()]
        else:
            answer = client.post(BULK, json={"conversations": items})
            results = answer.json().get("results", [])
        if answer.status_code != 202:
            self.complaints.append(answer.text)
        for item, result in zip(items, results, strict=True):
            earlier = self.acknowledged.setdefault(item["external_id"], result["conversation_id"])
            if earlier != result["conversation_id"]:
                self.complaints.append(f"{item['external_id']} was acknowledged as two rows")
        self.unanswered = []

    def _next_items(self) -> list[dict[str, Any]]:
        size = 1 if self._count % 3 else BULK_ITEMS
        numbers = range(self._count, self._count + size)
        self._count += size
        return [{"text": TEXTS[number % 5], "external_id": f"{self.name}-{number}"} for number in numbers]


def run_cycle(service: Service, loaders: list[Loader], chance: random.Random) -> str:
    """Start, load, kill at a random moment; the statuses that the killed service left behind."""
    service.start()
    threads = [threading.Thread(target=loader.load, args=(service.url,)) for loader in loaders]
    for thread in threads:
        thread.start()
    time.sleep(chance.uniform(0.02, 0.6))
    service.kill()
    for thread in threads:
        thread.join()
    return " ".join(
        f"{row[0]}={row[1]}" for row in service.query("SELECT status, count(*) FROM conversations GROUP BY 1")
    )


def test_nothing_acknowledged_is_lost_and_nothing_analyzed_twice(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    service = Service(tmp_path, {"LOG_LEVEL": "WARNING"}, port=free_port())
    loaders = [Loader("first"), Loader("second")]
    left_behind = [run_cycle(service, loaders, chance) for _ in range(CYCLES)]
    try:
        started = time.monotonic()
        service.start()
        wait_until(lambda: _open_rows(service) == 0, within_s=60)
        recovered_s = time.monotonic() - started
    finally:
        service.stop()

    acknowledged = {key: one for loader in loaders for key, one in loader.acknowledged.items()}
    rows: dict[str, tuple[str, str, int, int]] = {
        row[0]: row[1:]
        for row in service.query(
            "SELECT c.external_id, c.id, c.status, c.rescues, count(i.id) FROM conversations c"
            " LEFT JOIN insights i ON i.conversation_id = c.id GROUP BY c.id"
        )
    }
    print(
        f"seed {SEED}: {CYCLES} kills, {len(acknowledged)} acknowledged, {len(rows)} stored,"
        f" {sum(loader.lost_answers for loader in loaders)} answers lost,"
        f" {sum('processing' in left for left in left_behind)} kills with rows in hand,"
        f" {sum(row[2] > 0 for row in rows.values())} rows rescued, drained {recovered_s:.1f} s after the last start"
    )
    assert [complaint for loader in loaders for complaint in loader.complaints] == []
    assert len(acknowledged) > 10 * CYCLES
    assert {key: one for key, one in acknowledged.items() if rows.get(key, ("",))[0] != one} == {}
    assert service.query("SELECT external_id FROM conversations GROUP BY 1 HAVING count(*) > 1") == []
    assert {row[1] for row in rows.values()} == {"completed", "skipped"}
    assert {row[3] for row in rows.values() if row[1] == "completed"} == {1}
    assert {row[3] for row in rows.values() if row[1] == "skipped"} == {0}
    assert service.query("PRAGMA integrity_check") == [("ok",)]
    assert service.query("PRAGMA foreign_key_check") == []


def _open_rows(service: Service) -> int:
    [(count,)] = service.query("SELECT count(*) FROM conversations WHERE status IN ('pending', 'processing')")
    return int(count)
