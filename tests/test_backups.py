import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from backups import Refused, check, make, restore, vacuum
from backups.__main__ import main
from backups.making import part_of
from database import Database

pytestmark = pytest.mark.unit

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def heard(_line: str) -> None:
    pass


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An empty database of the service."""

    async def open_and_close() -> None:
        database = Database.connect(f"sqlite:///{tmp_path / 'insights.db'}")
        await database.open()
        await database.close()

    asyncio.run(open_and_close())
    return tmp_path / "insights.db"


def test_a_backup_leaves_nothing_but_itself(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()

    made = make(file, folder / "one.db", tell=heard)

    assert [path.name for path in folder.iterdir()] == ["one.db"]
    assert made == check(folder / "one.db")


def test_a_backup_replaces_nothing(file: Path, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("precious")

    with pytest.raises(Refused, match="is there already"):
        make(file, tmp_path / "there", tell=heard)

    assert (tmp_path / "there").read_text() == "precious"


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:50_000])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def write_words(file: Path) -> None:
    file.write_text("Not a database at all. " * 1_000)


def replace_by_another(file: Path) -> None:
    file.unlink()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE recipes (name)")


def come_from_the_future(file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '20991231_wonders'")


@pytest.mark.parametrize("spoil", [cut, empty, write_words, replace_by_another, come_from_the_future, Path.unlink])
def test_what_is_no_sound_backup_is_not_restored(file: Path, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    make(file, tmp_path / "backup.db", tell=heard)
    before = file.read_bytes()
    spoil(tmp_path / "backup.db")

    with pytest.raises(Refused):
        restore(file, tmp_path / "backup.db", now=NOW)

    assert file.read_bytes() == before
    assert not list(tmp_path.glob("*before-restore*"))


def test_a_database_that_is_damaged_or_gone_is_restored_all_the_same(file: Path, tmp_path: Path) -> None:
    make(file, tmp_path / "backup.db", tell=heard)
    write_words(file)

    over_the_damaged = restore(file, tmp_path / "backup.db", now=NOW)
    file.unlink()
    to_nothing = restore(file, tmp_path / "backup.db", now=NOW)

    kept = tmp_path / "insights.db.before-restore-20260301T120000.000000Z"
    assert over_the_damaged.kept == kept
    assert kept.read_text().startswith("Not a database")
    assert to_nothing.kept is None
    assert check(file).conversations == 0


def write_beside_its_file(database_file: Path, *, rows: int) -> None:
    """As a process that is killed leaves it: what it committed is in the log alone."""
    script = f"""
import os, sqlite3
connection = sqlite3.connect({str(database_file)!r}, isolation_level=None)
connection.execute("PRAGMA journal_mode=WAL")
for number in range({rows}):
    connection.execute(
        "INSERT INTO conversations (id, text, timestamp, status, created_at, due_at)"
        " VALUES (?, 'late', 0, 'pending', 0, 1)",
        (f"conv_{{number}}",),
    )
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_what_is_only_in_a_backups_log_is_restored_too(file: Path, tmp_path: Path) -> None:
    make(file, tmp_path / "backup.db", tell=heard)
    write_beside_its_file(tmp_path / "backup.db", rows=50)

    restored = restore(file, tmp_path / "backup.db", now=NOW)

    assert restored.content.conversations == 50
    assert check(file).conversations == 50


def test_a_backup_with_a_damaged_log_is_refused(file: Path, tmp_path: Path) -> None:
    make(file, tmp_path / "backup.db", tell=heard)
    write_beside_its_file(tmp_path / "backup.db", rows=50)
    damage_the_log_of(tmp_path / "backup.db")

    with pytest.raises(Refused, match="log"):
        restore(file, tmp_path / "backup.db", now=NOW)


def damage_the_log_of(database_file: Path) -> bytes:
    """In its middle; what it holds then."""
    wal = beside(database_file, "-wal")
    content = wal.read_bytes()
    middle = len(content) // 2
    wal.write_bytes(content[:middle] + b"rubbish" + content[middle + 7 :])
    return wal.read_bytes()


def beside(database_file: Path, ending: str) -> Path:
    return database_file.with_name(database_file.name + ending)


def test_what_is_left_of_a_damaged_log_is_kept_beside_its_file(file: Path, tmp_path: Path) -> None:
    make(file, tmp_path / "backup.db", tell=heard)
    write_beside_its_file(file, rows=50)
    damaged, pages = damage_the_log_of(file), file.read_bytes()

    kept = restore(file, tmp_path / "backup.db", now=NOW).kept

    assert kept is not None
    assert (kept.read_bytes(), beside(kept, "-wal").read_bytes()) == (pages, damaged)
    assert not beside(file, "-wal").exists()
    with closing(sqlite3.connect(kept)) as connection:
        [rescued] = connection.execute("SELECT count(*) FROM conversations").fetchone()
    assert 0 < rescued < 50


def test_a_log_without_its_file_does_not_get_into_the_new_one(file: Path, tmp_path: Path) -> None:
    make(file, tmp_path / "backup.db", tell=heard)
    write_beside_its_file(file, rows=50)
    file.unlink()

    kept = restore(file, tmp_path / "backup.db", now=NOW).kept

    assert kept is not None
    assert beside(kept, "-wal").exists()
    assert check(file).conversations == 0


def test_the_new_file_belongs_to_whom_the_old_one_did_and_opens_to_nobody_else(file: Path, tmp_path: Path) -> None:
    make(file, tmp_path / "backup.db", tell=heard)
    (tmp_path / "backup.db").chmod(0o644)
    file.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(file, 65534, 65534)
    before = file.stat()

    restore(file, tmp_path / "backup.db", now=NOW)

    after = file.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_a_backup_opens_to_nobody_to_whom_the_database_does_not(file: Path, tmp_path: Path) -> None:
    file.chmod(0o600)

    make(file, tmp_path / "backup.db", tell=heard)

    assert (tmp_path / "backup.db").stat().st_mode & 0o777 == 0o600


async def test_while_somebody_has_it_open_it_is_not_replaced(tmp_path: Path) -> None:
    database = Database.connect(f"sqlite:///{tmp_path / 'insights.db'}")
    await database.open()
    make(tmp_path / "insights.db", tmp_path / "backup.db", tell=heard)

    with pytest.raises(Refused, match="stop it first"):
        restore(tmp_path / "insights.db", tmp_path / "backup.db", now=NOW)

    await database.close()


def test_a_database_that_was_written_anew_holds_nothing_that_is_gone(file: Path) -> None:
    write_beside_its_file(file, rows=50)
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete=OFF")
        connection.execute("DELETE FROM conversations WHERE id <> 'conv_49'")
    assert b"conv_13" in file.read_bytes()

    written = vacuum(file)

    assert written.conversations == 1
    assert b"conv_13" not in file.read_bytes()
    assert b"conv_49" in file.read_bytes()


def test_without_room_a_database_is_not_written_anew(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def almost_full(_path: Path) -> SimpleNamespace:
        return SimpleNamespace(free=len(before))

    monkeypatch.setattr(shutil, "disk_usage", almost_full)

    with pytest.raises(Refused, match="MB of free space"):
        vacuum(file)

    assert file.read_bytes() == before


def test_for_postgresql_its_own_programs_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql+asyncpg://clerk:secret@host:5433/insights")

    statuses = [main(["make", "x"]), main(["restore", "x"])]

    told = capsys.readouterr().err
    assert statuses == [2, 2]
    assert "pg_dump --format=custom --file=FILE 'postgresql://clerk@host:5433/insights'" in told
    assert "pg_restore --clean" in told
    assert "secret" not in told


def test_what_a_killed_backup_left_is_removed_by_the_next(tmp_path: Path) -> None:
    nobody = 4_194_305  # above any process's number
    left = [tmp_path / f".copy.db.{nobody}.part", tmp_path / f".copy.db.{nobody}.part-journal"]
    ours = tmp_path / f".copy.db.{os.getpid()}.part"
    for path in (*left, ours):
        path.touch()

    assert part_of(tmp_path / "copy.db") == ours

    assert [path.exists() for path in (*left, ours)] == [False, False, True]
