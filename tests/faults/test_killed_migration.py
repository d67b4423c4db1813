"""A migration that is killed at any moment has done nothing or all of it; the next start ends it."""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from database import MIGRATIONS, find_damage, parse_database_url
from tests.faults.figures import Figures
from tests.harness import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SEED = int(os.environ.get("KILL_SEED", "0")) or random.randrange(1, 10**9)
OLD, NEW = "20261120_initial", "SELECT version_num FROM alembic_version"
MIGRATE = (
    "import asyncio, sys; from database import Database\n"
    "async def migrate():\n"
    "    database = Database.connect(sys.argv[1]); print('migrating', flush=True); await database.open()\n"
    "    print('migrated', flush=True); await database.close()\n"
    "asyncio.run(migrate())"
)


@pytest.mark.fault(2)
def test_kill_9_in_a_migration_leaves_all_or_nothing(tmp_path: Path, figures: Figures) -> None:
    old, file = tmp_path / "old.db", tmp_path / "insights.db"
    make_old_database(old, rows=figures.times(5_000, 50_000))
    texts = read(old, "SELECT id, text FROM conversations ORDER BY id")
    shutil.copyfile(old, file)
    whole_s = migrate(file, kill_after_s=None)
    newest = read(file, NEW)
    chance = random.Random(SEED)
    print(f"KILL_SEED={SEED}")  # shown when it fails: the same moments again
    for _ in range(figures.times(4, 20)):
        for leftover in tmp_path.glob("insights.db*"):
            leftover.unlink()
        shutil.copyfile(old, file)

        migrate(file, kill_after_s=chance.uniform(0, whole_s))

        assert find_damage(file) is None
        found = read(file, NEW)
        figures.count(kills=1, kills_before_it_was_done=found == [(OLD,)])
        assert found in ([(OLD,)], newest)
        migrate(file, kill_after_s=None)
        assert read(file, NEW) == newest
        assert read(file, "SELECT id, text FROM conversations ORDER BY id") == texts
        assert read(file, "PRAGMA integrity_check") == [("ok",)]


def make_old_database(file: Path, *, rows: int) -> None:
    """As the first version left it, with so many conversations that were analyzed."""
    engine = create_engine(parse_database_url(f"sqlite:///{file}"), isolation_level="AUTOCOMMIT")
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        connection.exec_driver_sql("BEGIN")
        command.upgrade(config, OLD)
        connection.exec_driver_sql("COMMIT")
    engine.dispose()
    with closing(sqlite3.connect(file)) as connection:
        connection.executemany(
            "INSERT INTO conversations (id, text, timestamp, status, created_at) VALUES (?, ?, ?, 'completed', ?)",
            ((f"conv_{number:032x}", f"My parcel {number} is late", number, number) for number in range(rows)),
        )
        connection.executemany(
            "INSERT INTO insights (id, conversation_id, timestamp, text, sentiment, sentiment_score, clusters,"
            " confidence, reasoning, grok_analysis, model, created_at)"
            " VALUES (?, ?, ?, ?, 'negative', -0.5, '[\"delivery\"]', 0.9, 'late', '{}', 'some', ?)",
            (
                (number + 1, f"conv_{number:032x}", number, f"My parcel {number} is late", number)
                for number in range(rows)
            ),
        )
        connection.commit()


def migrate(file: Path, *, kill_after_s: float | None) -> float:
    """In a process of its own, killed so long after it began; how long it took."""
    process = subprocess.Popen(
        [sys.executable, "-c", MIGRATE, f"sqlite:///{file}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process:
        process.stdout.readline()
        started = time.monotonic()
        if kill_after_s is None:
            assert process.stdout.readline() == "migrated\n"
            return time.monotonic() - started
        time.sleep(kill_after_s)
        process.kill()
    return time.monotonic() - started


def read(file: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(statement).fetchall()
