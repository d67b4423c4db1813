"""What a load tells its user: progress, the plan of a dry run, the summary; plain lines where there is no terminal."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import monotonic
from typing import Self

import orjson
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from loader.csv_rows import Plan, Row

_PLAIN_INTERVAL_S = 5.0
_PLAIN_WIDTH = 160  # a table in a log file must not be cut at 80


@dataclass(slots=True)
class FileReport:
    """One line of the summary, and the sentences under it."""

    name: str
    read_count: int = 0
    accepted_count: int = 0
    duplicate_count: int = 0
    rejected_count: int = 0
    left_out_count: int = 0
    rate_per_s: float = 0.0
    repairs: Counter[str] = field(default_factory=Counter[str])
    reasons: Counter[str] = field(default_factory=Counter[str])
    notes: list[str] = field(default_factory=list[str])


class Meter:
    """Progress of one file by bytes read: a bar on a terminal, otherwise a line every few seconds."""

    def __init__(self, console: Console, name: str, *, total_bytes: int) -> None:
        self._console = console
        self._name = name
        self._total_bytes = max(1, total_bytes)
        self._told_at = monotonic()
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
            self._bar = Progress(
                *columns, TextColumn("{task.fields[rows]:,} rows"), TimeRemainingColumn(), console=self._console
            )
            self._task = self._bar.add_task(escape(self._name), total=self._total_bytes, rows=0)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, bytes_read: int, row_count: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=bytes_read, rows=row_count)
        elif monotonic() - self._told_at > _PLAIN_INTERVAL_S:
            self.tell(f"{100 * bytes_read // self._total_bytes} % read, {row_count:,} rows answered")

    def tell(self, sentence: str) -> None:
        """A sentence between the progress; on a terminal each, in a log at most one every few seconds."""
        if self._bar is not None or monotonic() - self._told_at > _PLAIN_INTERVAL_S:
            self._told_at = monotonic()
            self._console.print(f"{self._name}: {sentence}", markup=False, highlight=False, soft_wrap=True)


def create_console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=_PLAIN_WIDTH)


def print_plan(console: Console, plan: Plan, *, rows: Iterable[Row], report: FileReport) -> None:
    """What a dry run found: format, mapping, the counts of every row, and the first rows as they would be sent."""
    columns = plan.columns
    names = {"text": columns.text_at, "author": columns.author_at, "timestamp": columns.time_at, "id": plan.id_at}
    mapping = ", ".join(f"{role} <- {_column(columns.names, at)}" for role, at in names.items())
    delimiter = {"\t": "TAB", "\x1f": "none"}.get(plan.shape.dialect.delimiter, plan.shape.dialect.delimiter)
    header = "with header" if columns.has_header else "without header"
    counts = f"{report.accepted_count} to send, {report.rejected_count} rejected, {report.left_out_count} left out"
    lines = [
        f"{report.name}: {columns.format_name}",
        f"  encoding {plan.form.encoding}, rows end with {plan.form.row_end}, delimiter {delimiter}, {header}",
        f"  {mapping}",
        f"  {report.read_count} rows: {counts}",
        *(f"  {sentence}" for sentence in _sentences(report)),
        *(f"  {orjson.dumps(row.payload).decode()}" for row in rows),
    ]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def print_sample(console: Console, bodies: list[bytes]) -> None:
    console.print("\n".join(body.decode() for body in bodies), markup=False, highlight=False, soft_wrap=True)


def print_summary(console: Console, reports: list[FileReport]) -> None:
    table = Table("file", *("rows", "accepted", "duplicates", "rejected", "left out", "rows/s"))
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify = "right"
    for report in reports:
        counts = (report.read_count, report.accepted_count, report.duplicate_count, report.rejected_count)
        cells = (f"{count:,}" for count in (*counts, report.left_out_count, round(report.rate_per_s)))
        table.add_row(escape(report.name), *cells)
    console.print(table)
    for report in reports:
        for sentence in _sentences(report):
            console.print(f"{report.name}: {sentence}", markup=False, highlight=False, soft_wrap=True)


def _column(names: tuple[str, ...], at: int | None) -> str:
    return "-" if at is None else names[at]


def _sentences(report: FileReport) -> list[str]:
    told = [f"repaired: {_enumerate(report.repairs)}"] if report.repairs.total() else []
    if report.reasons:
        told.append(f"rejected: {_enumerate(report.reasons)}")
    return [*report.notes, *told]


def _enumerate(counts: Counter[str]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.most_common(8) if count)
