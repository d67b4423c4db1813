"""After an erasure the bytes themselves are gone: no file of the database holds a word of what was erased."""

import hashlib
import random
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from tests.harness import Service, running_service, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

WITHIN_S = 60  # it takes some seconds on a machine with nothing else to do


def canary(number: int) -> str:
    return "zq" + hashlib.sha256(str(number).encode()).hexdigest()[:14]


def send(client: httpx2.Client, numbers: Iterable[int], *, author: str | None = None) -> list[str]:
    """Conversations of which every part that a client sends has a word that is nowhere else."""
    items = [
        {
            "text": f"My parcel {canary(number)} is late again, refund me {canary(number)}",
            "author": author or f"author-{canary(number)}",
            "external_id": f"order-{canary(number)}",
            "raw_data": {"note": canary(number) * 20},
        }
        for number in numbers
    ]
    answer = client.post("/api/v1/conversations/bulk", json={"conversations": items})
    assert answer.status_code == 202, answer.text
    return [result["conversation_id"] for result in answer.json()["results"]]


def leftovers(service: Service, words: Iterable[str]) -> set[str]:
    """The words of which any of the database's files still holds the end: the full-text index shortens beginnings."""
    files = [path for path in service.folder.iterdir() if path.name.startswith(service.file.name)]
    everything = b"\0".join(path.read_bytes() for path in files).lower()
    return {word for word in words if word[-9:].lower().encode() in everything}


def all_ended(service: Service) -> bool:
    return service.query("SELECT count(*) FROM conversations WHERE due_at > 0") == [(0,)]


def test_nothing_of_what_was_erased_stays_in_the_files(tmp_path: Path) -> None:
    with running_service(tmp_path, LOG_LEVEL="WARNING") as service, service.client() as client:
        ids = [one for start in range(0, 1_500, 300) for one in send(client, range(start, start + 300))]
        send(client, range(5_000, 5_200), author="Nobody-zqforgetme")
        wait_until(lambda: all_ended(service), within_s=60)
        client.put(f"/api/v1/conversations/{ids[0]}/correction", json={"sentiment": "negative", "note": "zqremark"})
        for one in ids[:100]:
            client.delete(f"/api/v1/conversations/{one}")
        client.delete("/api/v1/conversations", params={"author": "Nobody-zqforgetme"})
        erased = [canary(number) for number in (*range(100), *range(5_000, 5_200))] + ["zqforgetme", "zqremark"]

        wait_until(lambda: not leftovers(service, erased), within_s=WITHIN_S)

        kept = [canary(number) for number in range(100, 1_500)]
        assert leftovers(service, kept) == set(kept)


def test_rows_that_grew_in_the_midst_of_others_leave_no_copies_of_those(tmp_path: Path) -> None:
    with running_service(tmp_path, LOG_LEVEL="WARNING") as service, service.client() as client:
        ids = [one for start in range(0, 3_000, 300) for one in send(client, range(start, start + 300))]
        wait_until(lambda: all_ended(service), within_s=60)
        fail_in_random_order(service.file, ids[:1_500])
        for one in ids[::20]:
            client.delete(f"/api/v1/conversations/{one}")
        erased = [canary(number) for number in range(0, 3_000, 20)]

        wait_until(lambda: not leftovers(service, erased), within_s=WITHIN_S)

        assert leftovers(service, [canary(1), canary(2_999)]) == {canary(1), canary(2_999)}


def fail_in_random_order(file: Path, ids: list[str]) -> None:
    """As Grok's answers that cannot be used come in: each row grows by a long answer, and its page is split."""
    chance = random.Random(1)
    with closing(sqlite3.connect(file, isolation_level=None, timeout=30)) as connection:
        connection.execute("PRAGMA secure_delete=ON")
        for one in chance.sample(ids, len(ids)):
            connection.execute(
                "UPDATE conversations SET status = 'failed', error = 'it cannot be used', error_code = 'reply_invalid',"
                " skip_reason = NULL, raw_answer = ? WHERE id = ?",
                ("x" * chance.randrange(200, 2_000), one),
            )


def test_a_kill_right_after_an_erasure_leaves_nothing_either(tmp_path: Path) -> None:
    with running_service(tmp_path, LOG_LEVEL="WARNING") as service, service.client() as client:
        ids = send(client, range(100))
        wait_until(lambda: all_ended(service), within_s=60)
        for one in ids:
            client.delete(f"/api/v1/conversations/{one}")
    words = [canary(number) for number in range(100)]
    assert leftovers(service, words)  # it was killed before they could be forgotten

    with running_service(tmp_path, LOG_LEVEL="WARNING") as service:
        wait_until(lambda: not leftovers(service, words), within_s=WITHIN_S)


def test_what_is_too_old_leaves_no_byte(tmp_path: Path) -> None:
    with running_service(tmp_path, LOG_LEVEL="WARNING") as service, service.client() as client:
        send(client, range(100))
        wait_until(lambda: all_ended(service), within_s=60)
    with closing(sqlite3.connect(service.file)) as connection:  # ids tell when a conversation was taken in
        connection.execute("PRAGMA foreign_keys = OFF")
        for table, column in (("conversations", "id"), ("insights", "conversation_id")):
            connection.execute(f"UPDATE {table} SET {column} = 'conv_00' || substr({column}, 8)")
        connection.commit()
    words = [canary(number) for number in range(100)]
    assert leftovers(service, words) == set(words)

    with running_service(tmp_path, LOG_LEVEL="WARNING", RETENTION_DAYS="1") as service:
        wait_until(lambda: not leftovers(service, words), within_s=WITHIN_S)
