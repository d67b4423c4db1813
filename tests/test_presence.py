import os
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from database import Presence, find_damage

pytestmark = pytest.mark.unit


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "insights.db"


def test_a_start_waits_while_another_one_checks_the_file(file: Path) -> None:
    checking, starting = Presence(file), Presence(file)
    assert checking.be_alone()
    threading.Timer(0.3, checking.leave).start()

    joined = starting.join()

    assert joined
    starting.leave()


def test_who_restores_is_not_waited_for_without_end(file: Path) -> None:
    restoring, starting = Presence(file), Presence(file)
    assert restoring.be_alone()

    joined = starting.join(patience_s=0.2)

    assert not joined
    restoring.leave()


def test_of_two_checks_at_a_time_the_second_one_finds_the_damage_too(file: Path) -> None:
    file.write_text("Not a database at all. " * 1_000)
    checking = Presence(file)
    assert checking.be_alone()
    threading.Timer(0.3, checking.leave).start()
    started = time.monotonic()

    damage = find_damage(file)

    assert damage is not None
    assert time.monotonic() - started >= 0.3


def test_what_somebody_has_open_is_not_checked_again(file: Path) -> None:
    file.write_text("Not a database at all. " * 1_000)
    serving = Presence(file)
    assert serving.join()

    damage = find_damage(file)

    assert damage is None
    serving.leave()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_what_root_made_does_not_shut_out_the_services_user() -> None:
    with TemporaryDirectory() as folder:  # pytest's own are closed to others
        Path(folder).chmod(0o755)
        as_root, as_user = Presence(Path(folder) / "insights.db"), Presence(Path(folder) / "insights.db")
        assert as_root.join()
        os.seteuid(65534)
        try:
            joined = as_user.join()
        finally:
            os.seteuid(0)
        as_user.leave()
        as_root.leave()

    assert joined
