"""A backup that is made under load is one moment of the database, and the service starts from it."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.faults.figures import Figures
from tests.faults.invariants import find_broken
from tests.faults.senders import Sender, acknowledged_by, sending
from tests.harness import ROOT, Service, wait_until
from tests.nursery import Nursery

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.mark.fault(16)
def test_backups_under_load_are_whole_and_the_service_starts_from_them(
    tmp_path: Path, nursery: Nursery, figures: Figures
) -> None:
    service = Service(tmp_path, {"LOG_LEVEL": "WARNING"}, nursery=nursery)
    service.start()
    senders = [Sender("first"), Sender("second")]
    backup, acknowledged = tmp_path / "none.db", list[str]()
    with sending(senders, service.url):
        try:
            for number in range(figures.times(2, 100)):
                acknowledged = [one for sender in senders for one in list(sender.acknowledged.values())]
                backup = tmp_path / f"backup-{number}.db"

                made = backups("make", backup, database=service.file)

                assert made.returncode == 0, made.stderr
                assert find_broken(partial(query, backup), acknowledged=acknowledged) == []
                figures.count(backups=1, rows_in_backups=query(backup, "SELECT count(*) FROM conversations")[0][0])
            refused = backups("restore", backup, database=service.file)
        finally:
            service.kill()
    held = query(backup, "SELECT id FROM conversations ORDER BY id")

    restored = backups("restore", backup, database=service.file)
    service.start()
    try:
        wait_until(lambda: service.query("SELECT count(*) FROM conversations WHERE due_at > 0") == [(0,)], within_s=60)
    finally:
        service.stop()

    figures.count(acknowledged=len(acknowledged_by(senders)))
    assert (refused.returncode, "stop it first" in refused.stderr) == (1, True)
    assert restored.returncode == 0, restored.stderr
    assert service.query("SELECT id FROM conversations ORDER BY id") == held
    assert find_broken(service.query, acknowledged=acknowledged) == []


@pytest.mark.fault(16)
def test_a_restore_keeps_the_database_before_with_what_was_in_its_log(
    tmp_path: Path, nursery: Nursery, figures: Figures
) -> None:
    service = Service(tmp_path, {"LOG_LEVEL": "WARNING"}, nursery=nursery)
    sender = Sender("only")
    service.start()
    with sending([sender], service.url):
        wait_until(lambda: len(sender.acknowledged) > 1, within_s=30)
        made = backups("make", tmp_path / "early.db", database=service.file)
        wait_until(lambda: len(sender.acknowledged) > 100, within_s=30)
        service.kill()  # its log is not folded into the file

    restored = backups("restore", tmp_path / "early.db", database=service.file)

    assert (made.returncode, restored.returncode) == (0, 0), made.stderr + restored.stderr
    [kept] = tmp_path.glob("insights.db.before-restore-*Z")
    assert find_broken(partial(query, kept), acknowledged=sender.acknowledged.values()) == []
    assert query(service.file, "SELECT count(*) FROM conversations") < query(kept, "SELECT count(*) FROM conversations")
    figures.count(kept_rows=query(kept, "SELECT count(*) FROM conversations")[0][0])


def backups(command: str, file: Path, *, database: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "DATABASE_URL": f"sqlite:///{database}"}
    return subprocess.run(
        [sys.executable, "-m", "backups", command, str(file)],
        cwd=database.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def query(file: Path, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(statement).fetchall()
