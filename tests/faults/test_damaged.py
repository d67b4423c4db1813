"""A database that was damaged while the service was down: the start is refused, or nothing of it is missing."""

import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from database import find_damage
from tests.faults.figures import Figures
from tests.faults.senders import Sender, sending
from tests.harness import Service, wait_until
from tests.nursery import Nursery

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SEED = int(os.environ.get("DAMAGE_SEED", "0")) or random.randrange(1, 10**9)
PAGE = 4096
Damage = Callable[[random.Random, Path], None]


def cut_the_file(chance: random.Random, file: Path) -> None:
    os.truncate(file, chance.randrange(file.stat().st_size))


def overwrite_pages(chance: random.Random, file: Path) -> None:
    for _ in range(chance.randint(1, 5)):
        write_over(file, chance.randrange(file.stat().st_size // PAGE) * PAGE, chance.randbytes(PAGE))


def overwrite_the_header(chance: random.Random, file: Path) -> None:
    write_over(file, chance.randrange(16), chance.randbytes(84))


def empty_the_file(_chance: random.Random, file: Path) -> None:
    os.truncate(file, 0)


def zero_the_middle(chance: random.Random, file: Path) -> None:
    pages = file.stat().st_size // PAGE
    write_over(file, chance.randrange(pages // 2) * PAGE, bytes(PAGE * (pages // 4)))


def cut_the_log(chance: random.Random, file: Path) -> None:
    os.truncate(wal_of(file), chance.randrange(wal_of(file).stat().st_size))


def overwrite_the_log(chance: random.Random, file: Path) -> None:
    write_over(wal_of(file), chance.randrange(wal_of(file).stat().st_size - 600), chance.randbytes(512))


def remove_the_log(_chance: random.Random, file: Path) -> None:
    wal_of(file).unlink()


def damage_a_log_without_its_index(chance: random.Random, file: Path) -> None:
    file.with_name(file.name + "-shm").unlink()
    write_over(wal_of(file), chance.randrange(wal_of(file).stat().st_size // 3), chance.randbytes(512))


def remove_all_but_the_log(_chance: random.Random, file: Path) -> None:
    file.unlink()


OF_THE_FILE: list[Damage] = [cut_the_file, overwrite_pages, overwrite_the_header, empty_the_file, zero_the_middle]
OF_THE_LOG: list[Damage] = [
    cut_the_log,
    overwrite_the_log,
    remove_the_log,
    damage_a_log_without_its_index,
    remove_all_but_the_log,
]


@pytest.mark.fault(15)
def test_a_damaged_file_is_never_started_from_in_silence(tmp_path: Path, nursery: Nursery, figures: Figures) -> None:
    clean, killed = tmp_path / "clean", tmp_path / "killed"
    make_database(clean, nursery, end=Service.stop)
    make_database(killed, nursery, end=Service.kill)
    assert find_damage(copy_of(clean, tmp_path)) is None
    assert find_damage(copy_of(killed, tmp_path)) is None
    whole = {folder: content(copy_of(folder, tmp_path)) for folder in (clean, killed)}
    chance = random.Random(SEED)
    print(f"DAMAGE_SEED={SEED}")  # shown when it fails: the same places again
    silent: list[str] = []
    kinds = [*((clean, damage) for damage in OF_THE_FILE), *((killed, damage) for damage in OF_THE_LOG)]
    for number in range(figures.times(20, 200)):
        folder, damage = kinds[number % len(kinds)]
        file = copy_of(folder, tmp_path)
        damage(chance, file)

        found = find_damage(file)

        figures.count(copies=1, refused=found is not None)
        if found is None and content(file) != whole[folder]:
            silent.append(f"{number}: {damage.__name__}")
    figures.count(silent_starts=len(silent))
    assert silent == []


@pytest.mark.fault(15)
def test_a_start_on_a_damaged_file_ends_with_what_to_do(tmp_path: Path, nursery: Nursery, figures: Figures) -> None:
    make_database(tmp_path / "clean", nursery, end=Service.stop)
    chance = random.Random(SEED)
    for damage in [cut_the_file, zero_the_middle, empty_the_file][: figures.times(1, 3)]:
        file = copy_of(tmp_path / "clean", tmp_path)
        damage(chance, file)
        before = file.read_bytes()
        service = Service(file.parent, nursery=nursery)

        service.launch()

        figures.count(starts=1)
        assert service.wait_for_end() == 3
        told = service.log.read_text()
        assert f"{file} is damaged" in told
        assert "python -m backups restore FILE" in told
        assert file.read_bytes() == before


@pytest.mark.fault(15)
def test_a_check_ends_when_its_time_is_over_even_within_a_large_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def warn(event: str, **_details: object) -> None:
        told.append(event)

    monkeypatch.setattr("database.checking.log", SimpleNamespace(warning=warn))
    file = tmp_path / "large.db"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE large (text TEXT)")
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300000)"
            " INSERT INTO large SELECT hex(zeroblob(100)) FROM n"
        )
    write_over(file, file.stat().st_size - 20 * PAGE, b"x" * PAGE)
    assert find_damage(file, most_s=60) is not None
    assert told == []

    found = find_damage(file, most_s=0)

    assert found is None
    assert told == ["check_cut_short"]


def make_database(folder: Path, nursery: Nursery, *, end: Callable[[Service], object]) -> None:
    folder.mkdir()
    service, sender = Service(folder, {"LOG_LEVEL": "WARNING"}, nursery=nursery), Sender("only")
    service.start()
    with sending([sender], service.url):
        wait_until(lambda: len(sender.acknowledged) > 300, within_s=60)
        end(service)


def copy_of(folder: Path, scratch: Path) -> Path:
    """The database and all that is beside it, in a folder of its own that is used again."""
    shutil.rmtree(scratch / "copy", ignore_errors=True)
    shutil.copytree(folder, scratch / "copy")
    return scratch / "copy" / "insights.db"


def content(file: Path) -> dict[str, list[Any]] | None:
    """Every row, or None when SQLite finds something wrong."""
    try:
        with closing(sqlite3.connect(file)) as connection:
            connection.text_factory = bytes
            if connection.execute("PRAGMA integrity_check").fetchone() != (b"ok",):
                return None
            names = ("conversations", "insights", "insight_topics", "insight_counts")
            return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in names}
    except sqlite3.DatabaseError:
        return None


def wal_of(file: Path) -> Path:
    return file.with_name(file.name + "-wal")


def write_over(path: Path, place: int, what: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(what)


def test_an_index_from_before_a_power_failure_condemns_no_log(tmp_path: Path, nursery: Nursery) -> None:
    """The index (`-shm`) is never synced: the one on the disk may be of when the log, empty by now, was full."""
    service = Service(tmp_path, {"LOG_LEVEL": "WARNING"}, nursery=nursery)
    service.start()
    with service.client() as client:
        client.post("/api/v1/conversations", json={"text": "My parcel is late"})
    index = service.file.with_name("insights.db-shm")
    older = index.read_bytes()
    wait_until(lambda: service.file.with_name("insights.db-wal").stat().st_size == 0, within_s=30)
    service.kill()

    index.write_bytes(older)
    of_this_boot = find_damage(service.file)
    os.utime(index, (0, 0))

    assert of_this_boot == "the end of its log (-wal) is damaged or missing"
    assert find_damage(service.file) is None
