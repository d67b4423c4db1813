"""`make bench-grok`: packs beside one call a conversation on a fake xAI, and how much of the allowed rate is used."""

import os
import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar

import orjson
import typer
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.grok_runs import (
    CALLS_PER_S,
    LATENCY_S,
    PLACES,
    Lane,
    RateRun,
    run_at_full_rate,
    run_plain,
    run_service,
    run_with_faults,
)

T = TypeVar("T")

PACK = 10
SPEED_BAR = 9.0  # conversations/s, at least so many times the plain design's
CALLS_BAR = 1.05  # calls/s, at most so many times: the speed must come from the packs
COST_BAR = 0.25  # USD per 1,000 conversations, at most this part
RATE_BAR = 0.97  # of the allowed calls/s, while there is work and places are free

console = Console(width=None if sys.stdout.isatty() else 120)  # 120: in a log, rows stay whole


@dataclass(frozen=True, slots=True)
class Sizes:
    """Conversations of each lane, and seconds of a run at the full rate."""

    plain: int
    packed: int
    adaptive: int
    rate_s: float


FULL = Sizes(plain=100, packed=1000, adaptive=5000, rate_s=20.0)
QUICK = Sizes(plain=50, packed=500, adaptive=2500, rate_s=6.0)


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the table; `good` is None where nothing was promised."""

    measured: str
    values: tuple[str, str, str]
    ratio: str = ""
    bar: str = ""
    good: bool | None = None


@dataclass(slots=True)
class Report:
    machine: str
    plain: Lane | None = None
    packed: Lane | None = None
    adaptive: Lane | None = None
    full_rate: RateRun | None = None
    faults: RateRun | None = None
    errors: list[str] = field(default_factory=list[str])

    def findings(self) -> list[Finding]:
        found: list[Finding] = []
        if self.plain and self.packed and self.adaptive:
            found += compare(self.packed, self.adaptive, self.plain)
        if self.full_rate:
            found += judge_rate(self.full_rate, "full rate", bar=RATE_BAR)
        if self.faults:
            found += judge_rate(self.faults, "15 % errors, kill -9", bar=None)
        return found

    @property
    def passed(self) -> bool:
        parts = (self.plain, self.packed, self.adaptive, self.full_rate, self.faults)
        return not self.errors and all(parts) and all(found.good is not False for found in self.findings())


def compare(packed: Lane, adaptive: Lane, plain: Lane) -> list[Finding]:
    """The ratios are those of the packs of fixed size to the plain design."""
    lanes = (packed, adaptive, plain)
    speed = packed.conversations_per_s / plain.conversations_per_s
    calls = packed.calls_per_s / plain.calls_per_s
    cost = packed.usd_per_1000 / plain.usd_per_1000
    return [
        Finding(
            "conversations/s",
            _each(lanes, lambda lane: f"{lane.conversations_per_s:.1f}"),
            f"{speed:.2f}x",
            f">= {SPEED_BAR:g}x",
            speed >= SPEED_BAR,
        ),
        Finding(
            "calls/s",
            _each(lanes, lambda lane: f"{lane.calls_per_s:.2f}"),
            f"{calls:.2f}x",
            f"<= {CALLS_BAR:g}x",
            calls <= CALLS_BAR,
        ),
        Finding(
            "USD per 1,000 conversations",
            _each(lanes, lambda lane: f"{lane.usd_per_1000:.3f}"),
            f"{cost:.1%}",
            f"<= {COST_BAR:.0%}",
            cost <= COST_BAR,
        ),
        Finding("prompt tokens from xAI's cache", _each(lanes, lambda lane: f"{lane.cached_share:.0%}")),
        Finding(
            "calls in the busiest 1 s",
            _each(lanes, lambda lane: str(lane.busiest_window)),
            bar=f"<= {CALLS_PER_S}",
            good=all(lane.busiest_window <= CALLS_PER_S for lane in (packed, adaptive)),
        ),
        Finding(
            "analyzed, of those sent",
            _each(lanes, lambda lane: f"{lane.done_count:,} of {lane.conversation_count:,}"),
            bar="all",
            good=all(lane.complete for lane in lanes),
        ),
        Finding(
            "cost that the service books, USD",
            _each(lanes, lambda lane: "" if lane.booked_usd is None else f"{lane.booked_usd:.4f}"),
            bar="xAI's bill",
            good=all(lane.bill_agrees for lane in lanes),
        ),
    ]


def judge_rate(run: RateRun, title: str, *, bar: float | None) -> list[Finding]:
    return [
        Finding(
            f"{title}: part of {CALLS_PER_S}/s used",
            (f"{run.share:.3f}", "", ""),
            bar="" if bar is None else f">= {bar:g}",
            good=None if bar is None else run.share >= bar,
        ),
        Finding(
            f"  calls in the busiest 1 s, of {run.call_count}",
            (str(run.busiest_window), "", ""),
            bar=f"<= {CALLS_PER_S}",
            good=run.busiest_window <= CALLS_PER_S,
        ),
        Finding(
            "  errors; conversations that failed",
            (f"{run.error_count}; {run.lost_count}", "", ""),
            bar="0 failed",
            good=run.lost_count == 0,
        ),
    ]


def attempt(report: Report, title: str, measure: Callable[[], T]) -> T | None:
    """One part; when it breaks its reason joins the report and the other parts still run."""
    console.print(f"{title} ...", markup=False)
    try:
        return measure()
    except (RuntimeError, OSError, LookupError, ValueError, TimeoutError) as exc:
        report.errors.append(f"{title}: {type(exc).__name__}: {exc}")
        console.print(f"  broke off: {exc}", style="red", markup=False)
        return None


def measure_all(place: Path, sizes: Sizes) -> Report:
    report = Report(f"{os.cpu_count()} CPUs, Python {platform.python_version()}")
    report.plain = attempt(report, "Plain design", lambda: run_plain(place / "plain", conversations=sizes.plain))
    report.packed = attempt(
        report,
        f"Service, packs of {PACK}",
        lambda: run_service(place / "packed", "packed", conversations=sizes.packed, GROK_PACK_SIZE=str(PACK)),
    )
    report.adaptive = attempt(
        report,
        "Service by default",
        lambda: run_service(place / "adaptive", "adaptive", conversations=sizes.adaptive),
    )
    report.full_rate = attempt(report, "Full rate", lambda: run_at_full_rate(place / "rate", seconds=sizes.rate_s))
    report.faults = attempt(
        report, "Full rate with errors and a kill", lambda: run_with_faults(place / "faults", seconds=sizes.rate_s)
    )
    return report


def show(report: Report) -> None:
    table = Table(title=f"{PLACES} calls in flight, {CALLS_PER_S} calls/s allowed, xAI answers after {LATENCY_S:g} s")
    table.add_column("measured")
    for name in (f"packs of {PACK}", "by default", "plain", "ratio", "bar"):
        table.add_column(name, justify="right")
    table.add_column("")
    for found in report.findings():
        verdict = "" if found.good is None else "[green]pass[/]" if found.good else "[red]FAIL[/]"
        table.add_row(found.measured, *found.values, found.ratio, found.bar, verdict)
    console.print(table)
    console.print(
        f"{report.machine}. Ratios: packs of {PACK} to the plain design. Calls and money are the fake's own count.\n"
        "By default, packs adapt, and 1 % of the conversations is asked again alone."
    )
    for error in report.errors:
        console.print(error, style="red", markup=False)


def _each(lanes: tuple[Lane, Lane, Lane], figure: Callable[[Lane], str]) -> tuple[str, str, str]:
    packed, adaptive, plain = map(figure, lanes)
    return packed, adaptive, plain


def main(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Short runs: a look, not a measurement.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Where the databases are made.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write every figure to this file too.")] = None,
) -> None:
    """Measure packs beside the plain design, and the rate used; exit 1 when a bar is missed."""
    with tempfile.TemporaryDirectory(prefix="insights-grok-bench-", dir=folder) as made:
        report = measure_all(Path(made), QUICK if quick else FULL)
    show(report)
    if json:
        json.write_bytes(orjson.dumps(asdict(report) | {"passed": report.passed}, option=orjson.OPT_INDENT_2))
    raise typer.Exit(0 if report.passed else 1)


if __name__ == "__main__":
    typer.run(main)
