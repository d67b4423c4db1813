"""The loader killed at any moment, and the service under it: run again, each valid row is there once."""

import os
import random
import subprocess
import time
from pathlib import Path

import pytest

from ingest_data import ExitCode, Options, run
from tests.faults.figures import FULL, Figures
from tests.faults.invariants import find_broken
from tests.harness import Service, wait_until
from tests.nursery import Nursery
from tests.test_ingest_data import rejected_rows, start_command

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SEED = int(os.environ.get("LOADER_SEED", "0")) or random.randrange(1, 10**9)
ROWS = 4_000 if FULL else 2_000


def write_export(path: Path) -> None:
    """As spreadsheets and scripts leave them behind: a BOM, CRLF, quoted line breaks, NUL, a field of 1 MB, repeats."""
    rows = [f'{number},"The parcel no. {number} is late,\r\nagain"\r\n' for number in range(ROWS)]
    rows[100] = '100,"The door stic\x00ks"\r\n'
    rows[200] = f'200,"{"x" * 1_000_000}"\r\n'
    rows[300] = '300,""\r\n'
    rows += rows[:50]  # the same rows once more
    path.write_bytes(b"\xef\xbb\xbf" + ("id,text\r\n" + "".join(rows)).encode())


def kill(loader: subprocess.Popen[bytes]) -> bool:
    """Whether it was still at work."""
    killed = loader.poll() is None
    loader.kill()
    loader.communicate()
    return killed


def is_at_work(loader: subprocess.Popen[bytes], export: Path, *, since: float) -> bool:
    progress = export.with_name(f"{export.name}.progress")
    return loader.poll() is not None or (progress.exists() and progress.stat().st_mtime > since)


@pytest.mark.fault(20)
def test_a_loader_killed_and_run_again_loads_each_valid_row_once(
    tmp_path: Path, nursery: Nursery, figures: Figures
) -> None:
    chance = random.Random(SEED)
    print(f"LOADER_SEED={SEED}")
    export = tmp_path / "export.csv"
    write_export(export)
    service = Service(tmp_path, {"LOG_LEVEL": "WARNING"}, nursery=nursery)
    service.start()
    try:
        for number in range(figures.times(2, 50)):
            loader = start_command(service.url, str(export), "--batch-size", "5", folder=tmp_path)
            started = time.time()
            wait_until(lambda: is_at_work(loader, export, since=started))  # noqa: B023
            time.sleep(chance.uniform(0.0, 0.3))
            if number % 2:
                service.kill()
                figures.count(services_killed=1)
                time.sleep(chance.uniform(0.0, 0.2))
            figures.count(loaders_killed=kill(loader))
            if number % 2:
                service.start()

        code = run(Options(files=[str(export)], api_url=service.url))
    finally:
        service.stop()

    stored = service.query("SELECT count(*), count(DISTINCT text) FROM conversations")
    figures.count(rows=stored[0][0], double=stored[0][0] - stored[0][1], lost=ROWS - 2 - stored[0][1])
    assert code is ExitCode.ROWS_REJECTED
    assert stored == [(ROWS - 2, ROWS - 2)]
    assert [row["reason"][:25] for row in rejected_rows(export)] == ["the text has more than 10", "the text is empty"]
    assert figures.counts["loaders_killed"] > 0
    assert find_broken(service.query, acknowledged=[]) == []


PLAIN = "id,text\r\n1,The door sticks badly\r\n2,Where is my invoice please\r\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(PLAIN.encode("utf-8-sig"), "encoding utf-8-sig", id="a byte order mark"),
        pytest.param(PLAIN.encode("utf-16"), "encoding utf-16", id="UTF-16"),
        pytest.param(PLAIN.encode(), "rows end with CRLF", id="CRLF"),
        pytest.param(PLAIN.replace("\r\n", "\r").encode(), "rows end with CR,", id="CR"),
        pytest.param(PLAIN.replace("The door", '"The\r\ndoor').replace("badly", 'badly"').encode(), "2 rows: 2 to send",
                     id="a quoted line break"),
        pytest.param(PLAIN.replace("door", "do\x00or").encode(), "1 NUL characters were left out", id="NUL"),
        pytest.param(f"{PLAIN}3,{'x' * 1_000_000}\r\n".encode(), "the text has more than 10000 characters (1)",
                     id="a field of 1 MB"),
        pytest.param(f'{PLAIN}3,"cut'.encode(), "the file ends inside a quoted field", id="an open quote"),
        pytest.param(PLAIN.replace(",", ";").encode(), "delimiter ;,", id="semicolons"),
        pytest.param(PLAIN.replace(",", "\t").encode(), "delimiter TAB", id="tabs"),
    ],
)  # fmt: skip
def test_the_loader_says_what_it_made_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, said: str
) -> None:
    (tmp_path / "export.csv").write_bytes(content)

    code = run(Options(files=[str(tmp_path / "export.csv")], dry_run=True))

    told = capsys.readouterr().out
    assert code is ExitCode.OK
    assert said in told
    assert "2 to send" in told
