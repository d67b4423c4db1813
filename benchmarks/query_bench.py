"""`make bench-queries`: reads on a million insights beside fifty thousand, and beside the plain design, over HTTP."""

import os
import platform
import sqlite3
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Annotated, TypeVar

import orjson
import typer
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import query_runs, servers
from benchmarks.export_run import Export, measure_export
from benchmarks.finish_cost import FinishCost, measure_finish
from benchmarks.http_load import run
from benchmarks.ingest_bench import in_memory, verdict
from benchmarks.made_insights import made_database
from benchmarks.plain_queries import copy_insights
from benchmarks.query_client import Asker, Timings, asking
from benchmarks.query_findings import Finding, judge_answers, judge_export, judge_finish
from benchmarks.query_runs import FILTERED, LARGE, PLAIN, SMALL, Amounts, Answers
from errors import InsightsError

T = TypeVar("T")
Work = Callable[[Sequence[Asker]], Coroutine[object, object, None]]

KEPT_IN = servers.ROOT / ".bench"
FULL = Amounts(filtered=1_500, repeats=100, trends=300, searches=50, plain=15, finishes=30, most_s=60)
QUICK = Amounts(filtered=200, repeats=20, trends=40, searches=10, plain=5, finishes=5, most_s=8)
FORMATS = ("csv", "jsonl")

console = Console(width=None if sys.stdout.isatty() else 120)  # 120: in a log, rows stay whole


@dataclass(slots=True)
class Report:
    machine: str
    rows: int
    small_rows: int
    answers: Answers = field(default_factory=Answers)
    exports: list[Export] = field(default_factory=list[Export])
    finish: FinishCost | None = None
    errors: list[str] = field(default_factory=list[str])

    def findings(self) -> list[Finding]:
        found = judge_answers(self.answers, rows=self.rows)
        for export in self.exports:
            found += judge_export(export, rows=self.rows)
        return found + (judge_finish(self.finish) if self.finish else [])

    @property
    def passed(self) -> bool:
        return not self.errors and all(found.good is not False for found in self.findings())


def attempt(report: Report, title: str, measure: Callable[[], T]) -> T | None:
    """One part; when it breaks its reason joins the report and the other parts still run."""
    console.rule(title, align="left")
    known = set(report.answers.kinds)
    try:
        return measure()
    except (RuntimeError, OSError, HTTPException, sqlite3.Error, LookupError, ValueError, InsightsError) as exc:
        report.errors.append(f"{title}: {type(exc).__name__}: {exc}")
        console.print(f"  broke off: {exc}", style="red", markup=False)
        return None
    finally:
        for kind in [kind for kind in report.answers.kinds if kind not in known]:
            _say(kind, report.answers.kinds[kind])


def _say(kind: str, timings: dict[str, Timings]) -> None:
    for name, times in timings.items():
        figures = f"p50 {times.ms(50):9.2f}   p99 {times.ms(99):9.2f} ms   of {len(times.asked):,}"
        console.print(f"  {kind:<40} {name:<6} {figures}", markup=False, highlight=False)


def ask(asked: Sequence[tuple[str, servers.Server]], work: Work) -> None:
    async def connected() -> None:
        async with asking(asked) as askers:
            await work(askers)

    run(connected())


def measure_all(folder: Path, amounts: Amounts, *, rows: int, small_rows: int, seed: int) -> Report:
    machine = f"{os.cpu_count()} CPUs, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    report = Report(machine, rows, small_rows)
    console.rule("Made insights", align="left")
    large, small = (made_database(folder, rows=count) for count in (rows, small_rows))
    if in_memory(folder):
        report.errors.append("the databases are in memory (tmpfs): choose a --folder on a disk")
    measure_service(report, large, small, amounts, seed=seed)
    plain = large.with_name(f"{large.stem}-plain.db")  # goes with the other when that is made anew
    beside_plain = partial(measure_beside_plain, report, large, plain, amounts, seed=seed)
    attempt(report, "Beside the plain design", beside_plain)
    finish = partial(measure_finish, large, folder / "finish", rounds=amounts.finishes)
    report.finish = attempt(report, "Finish", finish)
    return report


def measure_service(report: Report, large: Path, small: Path, amounts: Amounts, *, seed: int) -> None:
    """Both sizes side by side, then exports of the large one."""
    answers = report.answers
    with ExitStack() as stack:
        server = stack.enter_context(servers.service_on(large))
        both = [(LARGE, server), (SMALL, stack.enter_context(servers.service_on(small)))]
        parts: dict[str, Work] = {
            "Warm-up": partial(query_runs.warm_up, questions=20),
            "Little to read": partial(query_runs.ask_for_little, answers=answers, amounts=amounts),
            "Insights by any filters": partial(query_runs.ask_filtered, answers=answers, amounts=amounts, seed=seed),
            "A walk by cursor": partial(query_runs.ask_pages, answers=answers, amounts=amounts),
            "Trends": partial(query_runs.ask_trends, answers=answers, amounts=amounts, seed=seed),
            "Words and authors": partial(
                query_runs.ask_for_words_and_authors,
                answers=answers,
                amounts=amounts,
                rows=report.small_rows,
                seed=seed,
            ),
            "Topics": partial(query_runs.ask_for_topics, answers=answers, amounts=amounts),
        }
        for title, work in parts.items():
            attempt(report, title, partial(ask, both, work))
        for form in FORMATS:
            title = f"Export as {form}"
            export = attempt(report, title, partial(measure_export, server, format=form))
            report.exports += [export] if export else []
            answers.not_there += [] if export else [title.lower()]


def measure_beside_plain(report: Report, large: Path, plain: Path, amounts: Amounts, *, seed: int) -> None:
    if not plain.exists():
        copy_insights(large, plain)
    work = partial(query_runs.ask_beside_plain, answers=report.answers, amounts=amounts, seed=seed)
    with servers.service_on(large) as ours, servers.plain_queries(plain) as theirs:
        ask([(LARGE, ours), (PLAIN, theirs)], work)


def show(report: Report) -> None:
    table = Table(title="One client, one question at a time, over HTTP")
    table.add_column("measured")
    for name in (f"{report.rows:,}", f"beside it ({report.small_rows:,})", "ratio", "bar"):
        table.add_column(name, justify="right")
    table.add_column("")
    for found in report.findings():
        shown = "" if found.good is None else verdict(good=found.good)
        table.add_row(found.measured, found.service, found.beside, found.ratio, found.bar, shown)
    console.print(table)
    console.print(f"{report.machine}. Pages have 100 insights and the exact total.")
    if FILTERED in report.answers.kinds:
        console.print("The slowest by any filters:")
        for asked in report.answers.kinds[FILTERED][LARGE].slowest_first()[:5]:
            console.print(f"  {asked.latency_ms:8.1f} ms  {asked.path}", markup=False, highlight=False, soft_wrap=True)
    for error in [*report.answers.wrong[:10], *report.errors]:
        console.print(error, style="red", markup=False)


def as_json(report: Report) -> bytes:
    answers = {
        kind: {name: _figures(times) for name, times in timings.items()}
        for kind, timings in report.answers.kinds.items()
    }
    parts: dict[str, object] = asdict(report)
    parts |= {
        "answers": answers,
        "compared": report.answers.compared,
        "wrong": report.answers.wrong,
        "not_there": report.answers.not_there,
        "findings": [asdict(found) for found in report.findings()],
        "passed": report.passed,
    }
    return orjson.dumps(parts, option=orjson.OPT_INDENT_2)


def _figures(times: Timings) -> dict[str, object]:
    figures: dict[str, float | None] = {"p50_ms": times.ms(50), "p99_ms": times.ms(99), "worst_ms": times.ms(100)}
    figures |= {"cpu_p50_ms": times.cpu_ms(50), "cpu_p99_ms": times.cpu_ms(99)}
    asked = [one._asdict() for one in times.slowest_first()]
    return {"count": len(times.asked), **figures, "asked": asked}


def main(
    *,
    rows: Annotated[int, typer.Option(min=2_000, help="Insights in the large database.")] = 1_000_000,
    small_rows: Annotated[int, typer.Option(min=500, help="Insights in the small one.")] = 50_000,
    quick: Annotated[bool, typer.Option("--quick", help="50,000 and 5,000, asked less: a look.")] = False,
    seed: Annotated[int, typer.Option(help="Another seed, other questions.")] = 1,
    folder: Annotated[Path, typer.Option(help="Where databases are kept for the next run.")] = KEPT_IN,
    json: Annotated[Path | None, typer.Option(help="Write every figure and question to this file too.")] = None,
) -> None:
    """Measure reads beside a small database and the plain design; exit 1 when a bar is missed."""
    if quick:
        rows, small_rows = min(rows, 50_000), min(small_rows, 5_000)
    report = measure_all(folder, QUICK if quick else FULL, rows=rows, small_rows=small_rows, seed=seed)
    show(report)
    if json:
        json.write_bytes(as_json(report))
    raise typer.Exit(0 if report.passed else 1)


if __name__ == "__main__":
    typer.run(main)
