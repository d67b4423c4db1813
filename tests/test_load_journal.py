from pathlib import Path

import pytest

from loader.bulk_client import Batch, Item, Outcome, Refusal
from loader.load_journal import open_journal

pytestmark = pytest.mark.unit


def test_a_folder_that_cannot_be_written_sends_notes_to_the_current_one(tmp_path: Path) -> None:
    locked = tmp_path / "a file, so that even root can write nothing below it"
    locked.touch()

    journal = open_journal(locked / "twcs.csv", "twcs.csv", fingerprint="print", resume=True)

    assert journal.rejected_path == Path("twcs.csv.rejected.csv")


@pytest.mark.parametrize(
    ("fingerprint", "resume", "end"),
    [
        pytest.param("same", True, 7, id="the same load goes on"),
        pytest.param("other", True, 0, id="another file or other options start over"),
        pytest.param("same", False, 0, id="so does a user who asks for it"),
    ],
)
def test_progress_counts_only_for_the_same_load(tmp_path: Path, fingerprint: str, *, resume: bool, end: int) -> None:
    path = tmp_path / "twcs.csv"
    open_journal(path, "twcs.csv", fingerprint="same", resume=True).record(Batch(end=7), Outcome(accepted_count=7))

    assert open_journal(path, "twcs.csv", fingerprint=fingerprint, resume=resume).tally.end == end


def test_damaged_progress_is_no_progress(tmp_path: Path) -> None:
    (tmp_path / "twcs.csv.progress").write_bytes(b'{"fingerprint": "sa')

    assert not open_journal(tmp_path / "twcs.csv", "twcs.csv", fingerprint="same", resume=True).resumed


def test_refused_rows_stand_in_the_order_of_the_file_and_run_as_no_formula(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "twcs.csv", "twcs.csv", fingerprint="same", resume=True)
    refused = Refusal(Item(3, b'{"text": "=1+1"}'), "not wanted")

    journal.record(Batch(end=2, rejected=[(9, "the text is empty", "")]), Outcome(refusals=[refused]))
    journal.finish()

    written = journal.rejected_path.read_text(encoding="utf-8").splitlines()
    assert written == ["line,reason,text", "3,not wanted,'=1+1", "9,the text is empty,"]
    assert not (tmp_path / "twcs.csv.progress").exists()
