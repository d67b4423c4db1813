"""`make bench`: the service beside the plain design, bulk beside `executemany`, and offline analysis, in one run."""

import os
import platform
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated, TypeVar

import orjson
import typer
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bulk_posts import BulkPosts, measure_bulk_posts
from benchmarks.mock_analysis import ANALYSIS_BAR_PER_S, LATENCY_BAR_MS, MockAnalysis, measure_mock_analysis
from benchmarks.single_posts import P99_BAR, THROUGHPUT_BAR, SinglePosts, measure_ceiling, measure_single_posts

T = TypeVar("T")

console = Console(width=None if sys.stdout.isatty() else 120)  # 120: in a log, rows stay whole


@dataclass(slots=True)
class Report:
    machine: str
    client_ceiling_per_s: float = 0.0
    single: SinglePosts | None = None
    bulk: BulkPosts | None = None
    analysis: MockAnalysis | None = None
    errors: list[str] = field(default_factory=list[str])

    @property
    def passed(self) -> bool:
        parts = (self.single, self.bulk, self.analysis)
        return not self.errors and all(part is not None and part.passed for part in parts)


def in_memory(folder: Path) -> bool:
    """Whether the folder is on a tmpfs, where fsync costs nothing and "on disk" means nothing (Linux only)."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return False
    points = [(Path(row.split()[1]), row.split()[2]) for row in mounts.read_text().splitlines()]
    nearest = max(
        (point for point in points if folder.resolve().is_relative_to(point[0])), key=lambda at: len(at[0].parts)
    )
    return nearest[1] in ("tmpfs", "ramfs")


def disk_folder() -> Path:
    """The first temporary folder that is on a disk, else the folder one stands in."""
    candidates = (Path(tempfile.gettempdir()), Path("/var/tmp"))
    return next((folder for folder in candidates if folder.is_dir() and not in_memory(folder)), Path.cwd())


def attempt(report: Report, title: str, measure: Callable[[], T]) -> T | None:
    """One part; when it breaks its reason joins the report and the other parts still run."""
    console.rule(title, align="left")
    try:
        return measure()
    except (RuntimeError, OSError, sqlite3.Error, LookupError, ValueError) as exc:
        report.errors.append(f"{title}: {type(exc).__name__}: {exc}")
        console.print(f"  broke off: {exc}", style="red", markup=False)
        return None


def verdict(*, good: bool) -> str:
    return "[green]pass[/]" if good else "[red]FAIL[/]"


def add_single(table: Table, single: SinglePosts) -> None:
    for figure, name, bar, good in (
        ("per_s", "single POSTs, requests/s", f">= {THROUGHPUT_BAR:g}x", single.fast),
        ("p50_ms", "single POSTs, p50 ms", "", None),
        ("p99_ms", "single POSTs, p99 ms", f"<= {P99_BAR:g}x", single.prompt),
    ):
        ours, plain, ratio = single.middle("service", figure), single.middle("plain", figure), single.ratio(figure)
        shown = "" if good is None else verdict(good=good)
        table.add_row(name, f"{ours:,.1f}", f"{plain:,.1f}", f"{ratio:.3g}x", bar, shown)
        found = single.round_ratios(figure)
        table.add_row("  by round", "", "", f"{found[0]:.3g} to {found[-1]:.3g}x", "", "")
    on_disk = {check.server: check for check in single.checks}
    cells = [f"{on_disk[name].stored_count:,} of {on_disk[name].acknowledged_count:,}" for name in ("service", "plain")]
    exact = verdict(good=all(check.exact for check in single.checks))
    table.add_row("single POSTs on disk after kill -9", *cells, "", "all, once", exact)
    refused = sum(row.other_count for row in single.rounds if row.server == "plain")
    table.add_row(
        "single POSTs, not accepted",
        f"{single.refused_count}",
        f"{refused}",
        "",
        "0",
        verdict(good=single.refused_count == 0),
    )


def add_bulk(table: Table, bulk: BulkPosts) -> None:
    ours, rival = median(bulk.service_rows_per_s), median(bulk.executemany_rows_per_s)
    table.add_row("bulk, rows/s (beside executemany)", f"{ours:,.0f}", f"{rival:,.0f}", f"{bulk.ratio:.3g}x", "", "")
    stored = f"{bulk.stored_count:,} of {bulk.acknowledged_count:,}"
    table.add_row("bulk rows on disk after kill -9", stored, "", "", "all, once", verdict(good=bulk.passed))


def add_analysis(table: Table, analysis: MockAnalysis) -> None:
    rate, latency = analysis.analyzed_per_s, analysis.readable_median_ms
    complete = analysis.counts.get("completed", 0)
    good = rate >= ANALYSIS_BAR_PER_S
    table.add_row(
        "offline analysis, conversations/s", f"{rate:,.0f}", "", "", f">= {ANALYSIS_BAR_PER_S:g}", verdict(good=good)
    )
    all_complete = verdict(good=complete == analysis.conversation_count)
    table.add_row(
        "offline analysis, completed", f"{complete:,} of {analysis.conversation_count:,}", "", "", "all", all_complete
    )
    good = latency < LATENCY_BAR_MS
    table.add_row(
        "POST to readable insight, median ms", f"{latency:.1f}", "", "", f"< {LATENCY_BAR_MS:g}", verdict(good=good)
    )


def show(report: Report, *, clients: int) -> None:
    table = Table(title=f"Medians over the rounds, {clients} keep-alive clients, every commit on disk")
    table.add_column("measured")
    for name in ("service", "beside it", "ratio", "bar"):
        table.add_column(name, justify="right")
    table.add_column("")
    if report.single:
        add_single(table, report.single)
    if report.bulk:
        add_bulk(table, report.bulk)
    if report.analysis:
        add_analysis(table, report.analysis)
    console.print(table)
    console.print(
        f"{report.machine}; the load client alone drives {report.client_ceiling_per_s:,.0f} req/s.\n"
        "The service analyzes in the background while its POSTs are measured; the plain design only stores.\n"
        "Each stands still (SIGSTOP) while the other is measured."
    )
    if report.single:
        fsync_ms = report.single.fsync_ms
        console.print(f"One fsync on this disk: {min(fsync_ms):.2f} to {max(fsync_ms):.2f} ms, before each round.")
        if not report.single.steady:
            console.print(
                "The rounds disagree: something else used the disk or the CPUs. Each round alone must reach the bar, "
                "or measure again.",
                style="yellow",
            )


def as_json(report: Report) -> bytes:
    parts: dict[str, object] = asdict(report)
    ratios: dict[str, float] = {}
    if report.single:
        ratios |= {f"single_{figure}": report.single.ratio(figure) for figure in ("per_s", "p50_ms", "p99_ms")}
    if report.bulk:
        ratios["bulk_rows_per_s"] = report.bulk.ratio
    return orjson.dumps(parts | {"ratios": ratios, "passed": report.passed}, option=orjson.OPT_INDENT_2)


def main(
    *,
    rounds: Annotated[int, typer.Option(min=1, max=50, help="Rounds for each side, alternating.")] = 4,
    round_seconds: Annotated[float, typer.Option(min=0.5, max=60, help="Length of a round of single POSTs.")] = 5.0,
    clients: Annotated[int, typer.Option(min=1, max=500, help="Keep-alive clients at a time.")] = 64,
    quick: Annotated[bool, typer.Option("--quick", help="Short rounds: a look, not a measurement.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Where the databases are made; on the disk to measure.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write every figure to this file too.")] = None,
) -> None:
    """Measure the service beside the plain design; exit 1 when a bar is missed or a 202 is not on disk."""
    if quick:
        rounds, round_seconds = min(rounds, 2), min(round_seconds, 2.0)
    bulk_seconds, conversations, samples = (1.0, 1500, 20) if quick else (2.0, 3000, 50)
    with tempfile.TemporaryDirectory(prefix="insights-bench-", dir=folder or disk_folder()) as made:
        place = Path(made)
        machine = f"{os.cpu_count()} CPUs, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
        report = Report(machine)
        if in_memory(place):
            report.errors.append("the databases are in memory (tmpfs): choose a --folder on a disk")
        report.client_ceiling_per_s = measure_ceiling(clients=clients, seconds=1.0)
        report.single = attempt(
            report,
            "Single POSTs",
            lambda: measure_single_posts(place / "single", rounds=rounds, seconds=round_seconds, clients=clients),
        )
        report.bulk = attempt(
            report, "Bulk POSTs", lambda: measure_bulk_posts(place / "bulk", rounds=rounds, seconds=bulk_seconds)
        )
        report.analysis = attempt(
            report,
            "Offline analysis",
            lambda: measure_mock_analysis(place / "analysis", conversations=conversations, samples=samples),
        )
    show(report, clients=clients)
    for error in report.errors:
        console.print(error, style="red", markup=False)
    if json:
        json.write_bytes(as_json(report))
    raise typer.Exit(0 if report.passed else 1)


if __name__ == "__main__":
    typer.run(main)
