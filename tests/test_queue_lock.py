import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from queue_lock import QueueLock

pytestmark = pytest.mark.integration

HOLD = """
import sys
from pathlib import Path
from queue_lock import QueueLock

lock = QueueLock(Path(sys.argv[1]))
print(lock.acquire(), flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process(file: Path) -> Generator[tuple[subprocess.Popen[str], str]]:
    """A process that tries for the lock and stays; with what it said of its success."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    ) as process:
        assert process.stdout
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "insights.db"


def test_the_first_who_comes_holds_it(file: Path) -> None:
    lock = QueueLock(file)

    assert lock.acquire()
    assert lock.acquire()  # again is still
    assert lock.held
    lock.release()


def test_another_process_is_refused_while_it_is_held(file: Path) -> None:
    lock = QueueLock(file)
    lock.acquire()

    with another_process(file) as (_, acquired):
        assert acquired == "False"
    lock.release()


def test_a_second_lock_in_the_same_process_is_refused_too(file: Path) -> None:
    first, second = QueueLock(file), QueueLock(file)
    first.acquire()

    assert (second.acquire(), second.held) == (False, False)
    first.release()


def test_what_is_released_can_be_had(file: Path) -> None:
    first, second = QueueLock(file), QueueLock(file)
    first.acquire()
    first.release()

    assert (first.held, second.acquire()) == (False, True)
    second.release()


def test_the_lock_of_a_killed_process_is_free_at_once(file: Path) -> None:
    lock = QueueLock(file)
    with another_process(file) as (process, acquired):
        while_alive = lock.acquire()
        process.kill()
        process.wait()

        assert (acquired, while_alive) == ("True", False)
        assert lock.acquire()
    lock.release()


def test_two_databases_have_a_lock_each(tmp_path: Path) -> None:
    one, other = QueueLock(tmp_path / "one.db"), QueueLock(tmp_path / "other.db")

    assert (one.acquire(), other.acquire()) == (True, True)
    one.release()
    other.release()


def test_releasing_what_is_not_held_does_nothing(file: Path) -> None:
    lock = QueueLock(file)
    lock.release()

    assert not lock.held


def test_others_are_told_when_the_owner_last_said_that_it_works(file: Path) -> None:
    owner, other = QueueLock(file), QueueLock(file)
    owner.acquire()
    beaten_at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    owner.beat(beaten_at)

    told = other.beat(beaten_at + timedelta(hours=1))

    assert told == beaten_at
    owner.release()


def test_two_names_of_one_file_are_one_queue(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    file, link = tmp_path / "insights.db", tmp_path / "elsewhere" / "link.db"
    link.symlink_to(file)
    owner, other = QueueLock(file), QueueLock(link)

    assert (owner.acquire(), other.acquire()) == (True, False)
    owner.release()
