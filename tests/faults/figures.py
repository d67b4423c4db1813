"""What a fault's test did and saw, in numbers: few times in `make test`, often in `make soak`, and told in one table.

A test asks `figures.times(short, full)` how often to do what it does, and adds up what it sees with `figures.count`.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.harness import ROOT

FULL = bool(os.environ.get("SOAK"))
REPORT = ROOT / ".soak" / "report.md"
NEVER = (
    "lost",
    "double",
    "status_500",
    "failed",
    "calls_within_a_wait",
    "windows_above",
    "differences",
    "invented",
)  # counts that are shown even where they are nothing


@dataclass(slots=True)
class Figures:
    """Of one test; `number` is the fault's in docs/FAULTS.md."""

    number: int
    fault: str
    full: bool = FULL
    counts: dict[str, float] = field(default_factory=dict[str, float])
    seconds: float = 0.0
    passed: bool = False

    def times(self, short: int, full: int) -> int:
        """How often this run does it."""
        return full if self.full else short

    def count(self, **more: float) -> None:
        """Add to a figure: `figures.count(kills=1, rows=25)`."""
        for name, value in more.items():
            self.counts[name] = self.counts.get(name, 0) + value

    def note_most(self, **values: float) -> None:
        """Keep the highest: `figures.note_most(recovered_s=0.8)`."""
        for name, value in values.items():
            self.counts[name] = max(self.counts.get(name, value), value)

    def told(self) -> str:
        shown = {name: value for name, value in self.counts.items() if value or name in NEVER}
        return ", ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in shown.items())


def write_table(all_figures: Iterable[Figures]) -> list[str]:
    """The lines of the report, a row a test, by the number of the fault."""
    rows = [("#", "fault", "", "s", "figures")]
    rows += [
        (str(each.number), each.fault, "ok" if each.passed else "FAILED", f"{each.seconds:.0f}", each.told())
        for each in sorted(all_figures, key=lambda each: (each.number, each.fault))
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [_line(row, widths) for row in rows]
    return [lines[0], _line(["-" * width for width in widths], widths), *lines[1:]]


def keep_report(all_figures: Sequence[Figures], *, report: Path = REPORT) -> None:
    report.parent.mkdir(exist_ok=True)
    failed = sum(not each.passed for each in all_figures)
    minutes = sum(each.seconds for each in all_figures) / 60
    title = f"# Faults: {len(all_figures) - failed} of {len(all_figures)} as promised, in {minutes:.0f} minutes\n"
    report.write_text("\n".join([title, *write_table(all_figures), ""]), encoding="utf-8")


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)) + " |"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"
