import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backups import Refused, check, make, restore
from backups.__main__ import main
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

    kept = tmp_path / "insights.db.before-restore-20260301T120000Z"
    assert over_the_damaged.kept == kept
    assert kept.read_text().startswith("Not a database")
    assert to_nothing.kept is None
    assert check(file).conversations == 0


async def test_while_somebody_has_it_open_it_is_not_replaced(tmp_path: Path) -> None:
    database = Database.connect(f"sqlite:///{tmp_path / 'insights.db'}")
    await database.open()
    make(tmp_path / "insights.db", tmp_path / "backup.db", tell=heard)

    with pytest.raises(Refused, match="stop it first"):
        restore(tmp_path / "insights.db", tmp_path / "backup.db", now=NOW)

    await database.close()


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
