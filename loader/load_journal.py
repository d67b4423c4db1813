"""What a load has done so far, on disk beside the file: how far it came, and the rows that were not taken."""

import csv
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import cast

import orjson

from loader.bulk_client import Batch, Outcome

_COMMIT_INTERVAL_S = 0.5  # what a kill may make us send again; the service answers "duplicate"
_TEXT_CHARS = 200
_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")


@dataclass(slots=True)
class Tally:
    """Counts of one file; `end` rows from its start have been answered for."""

    end: int = 0
    accepted_count: int = 0
    duplicate_count: int = 0
    rejected_count: int = 0
    version_count: int = 0


@dataclass(slots=True)
class Journal:
    """The progress file and the rejected rows of one source; kept in step, so that going on repeats nothing.

    `fingerprint` names the file's content and the options that decide its rows: progress under another one is void.
    """

    progress_path: Path | None
    rejected_path: Path
    fingerprint: str
    tally: Tally = field(default_factory=Tally)
    reasons: Counter[str] = field(default_factory=Counter[str])
    resumed: bool = False
    _pending: list[tuple[int, str, str]] = field(default_factory=list[tuple[int, str, str]])
    _committed_at: float = 0.0

    def resume(self) -> None:
        """Take up the counts of an interrupted load, if it was this same load; else start afresh."""
        kept = _read_progress(self.progress_path)
        if kept is not None and kept.get("fingerprint") == self.fingerprint:
            counts = {name: kept.get(name) for name in asdict(self.tally)}
            self.tally = Tally(**{name: count for name, count in counts.items() if isinstance(count, int)})
            self.resumed = self.tally.end > 0
        if not self.resumed:
            self.rejected_path.unlink(missing_ok=True)

    def record(self, batch: Batch, outcome: Outcome) -> None:
        """Note an answered batch; batches come in the order of the file."""
        refused = [(refusal.item.line, refusal.reason, _text_of(refusal.item.body)) for refusal in outcome.refusals]
        rejected = sorted([*batch.rejected, *refused])
        self._pending.extend(rejected)
        self.reasons.update(reason for _, reason, _ in rejected)
        self.tally.end = batch.end
        self.tally.accepted_count += outcome.accepted_count
        self.tally.duplicate_count += outcome.duplicate_count
        self.tally.version_count += outcome.version_count
        self.tally.rejected_count += len(rejected)
        if monotonic() - self._committed_at > _COMMIT_INTERVAL_S or len(self._pending) > 1_000:
            self.commit()

    def commit(self) -> None:
        """Write rejected rows first: a kill in between writes them twice, never not at all."""
        if self._pending:
            _append_rejected(self.rejected_path, self._pending)
            self._pending.clear()
        if self.progress_path is not None and self.tally.end:
            fresh = self.progress_path.with_name(self.progress_path.name + ".new")
            fresh.write_bytes(orjson.dumps({"fingerprint": self.fingerprint, **asdict(self.tally)}))
            fresh.replace(self.progress_path)
        self._committed_at = monotonic()

    def finish(self) -> None:
        self.commit()
        if self.progress_path is not None:
            self.progress_path.unlink(missing_ok=True)


def open_journal(path: Path | None, name: str, *, fingerprint: str, resume: bool) -> Journal:
    """The journal beside a file, or in the current folder where that one cannot be written; stdin has no progress."""
    base = path.with_name(name) if path is not None else Path(name)
    folder = base.parent if _writable(base.parent) else Path()
    progress_path = folder / f"{name}.progress" if path is not None else None
    journal = Journal(progress_path, folder / f"{name}.rejected.csv", fingerprint)
    if resume:
        journal.resume()
    else:
        journal.rejected_path.unlink(missing_ok=True)
    return journal


def _writable(folder: Path) -> bool:
    probe = folder / ".ingest_data.probe"
    try:
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True


def _read_progress(path: Path | None) -> dict[str, object] | None:
    if path is None or not path.is_file():
        return None
    try:
        kept: object = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError:
        return None
    return cast("dict[str, object]", kept) if isinstance(kept, dict) else None


def _text_of(body: bytes) -> str:
    return str(orjson.loads(body).get("text", ""))


def _append_rejected(path: Path, rows: list[tuple[int, str, str]]) -> None:
    with path.open("a", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        if stream.tell() == 0:
            writer.writerow(("line", "reason", "text"))
        writer.writerows((line, reason, _neutralise(text[:_TEXT_CHARS])) for line, reason, text in rows)


def _neutralise(cell: str) -> str:
    """A spreadsheet would run a cell that starts like a formula."""
    return f"'{cell}" if cell.startswith(_FORMULA_SIGNS) else cell
