"""What the answers of `query_bench.py` are held to: a row of the table each, and whether it is good enough."""

from dataclasses import dataclass, replace

from benchmarks.export_run import MOST_GROWTH_MB, Export
from benchmarks.finish_cost import BARE, COMPLETE, HISTORY, LIVE, SIZES, UNCOUNTED, FinishCost
from benchmarks.query_runs import (
    AUTHOR_FACET,
    BY_COUNT,
    BY_GROUP,
    BY_OFFSET,
    BY_OFFSET_OF_TOPIC,
    FAR_OF_TOPIC,
    FAR_PAGE,
    FILTERED,
    FIRST_OF_TOPIC,
    FIRST_PAGE,
    FLOOR,
    LARGE,
    PLAIN,
    SMALL,
    Answers,
    trends_kind,
)

P99_BARS_MS = {FILTERED: 10.0, trends_kind("UTC"): 5.0}
GROWTH_BAR = 2.0  # of the same on the small database, at most so many times
FAR_BAR = 1.25  # page 1,000 to page 1: as fast, but for the noise of a median
PLAIN_BAR = 50.0  # times faster than the plain design, at least
PLAIN_BAR_FROM_ROWS = 1_000_000  # with fewer the plain design has less to read
BESIDE_PLAIN = (BY_COUNT, BY_GROUP, BY_OFFSET, BY_OFFSET_OF_TOPIC)
# An OFFSET without a filter only steps over entries of an index: 100 rows and HTTP cost more than it does.
NO_PLAIN_BAR = BY_OFFSET
# Read row by row, so they grow with the database: every author, and the half hours that a zone cuts off every hour.
COSTS_WHAT_IT_READS = {AUTHOR_FACET, trends_kind("Asia/Kolkata")}


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the table; `good` is None where nothing was promised."""

    measured: str
    service: str
    beside: str = ""
    ratio: str = ""
    bar: str = ""
    good: bool | None = None


def judge_answers(answers: Answers, *, rows: int) -> list[Finding]:
    """`rows` are those of the large database."""
    found: list[Finding] = []
    for kind, servers in answers.kinds.items():
        if kind not in BESIDE_PLAIN and {LARGE, SMALL} <= servers.keys():
            found += _judge_growth(answers, kind)
    for near, far in ((FIRST_PAGE, FAR_PAGE), (FIRST_OF_TOPIC, FAR_OF_TOPIC)):
        if far in answers.kinds:
            found.append(_judge_far_page(answers, near, far))
    found += [_judge_beside_plain(answers, kind, rows=rows) for kind in BESIDE_PLAIN if kind in answers.kinds]
    found += [Finding(kind, "not there") for kind in answers.not_there]
    agreed = answers.compared - len(answers.wrong)
    right = not answers.wrong and answers.compared > 0
    return [*found, Finding("answers equal to a recount", f"{agreed:,} of {answers.compared:,}", "", "", "all", right)]


def _judge_growth(answers: Answers, kind: str) -> list[Finding]:
    """On the large database, beside the small one; what was asked less often is held to its median.

    A p99 of few answers is their worst, and says more of the machine than of the service.
    """
    large, small = answers.kinds[kind][LARGE], answers.kinds[kind][SMALL]
    middle = _beside(f"{kind}, p50 ms", large.ms(50), small.ms(50))
    if kind in COSTS_WHAT_IT_READS:
        return [middle]
    if kind != FLOOR and kind not in P99_BARS_MS:
        return [_hold(middle, large.ms(50), small.ms(50))]
    tail = _beside("  p99 ms", large.ms(99), small.ms(99))
    if kind in P99_BARS_MS:
        tail = _hold(tail, large.ms(99), small.ms(99), most_ms=P99_BARS_MS[kind])
    worst = _beside("  worst ms", large.ms(100), small.ms(100))
    # without the waits for a CPU that others had
    cpu = _beside("  p99 of the server's CPU, ms", large.cpu_ms(99), small.cpu_ms(99))
    return [middle, tail, worst, cpu]


def _beside(title: str, ours: float | None, theirs: float | None) -> Finding:
    if not ours or not theirs:
        return Finding(title, "unknown")
    return Finding(title, f"{ours:.2f}", f"{theirs:.2f}", f"{ours / theirs:.2f}x")


def _hold(row: Finding, ours: float, theirs: float, *, most_ms: float | None = None) -> Finding:
    bar = "" if most_ms is None else f"<= {most_ms:g} ms, "
    good = ours <= GROWTH_BAR * theirs and (most_ms is None or ours <= most_ms)
    return replace(row, bar=f"{bar}<= {GROWTH_BAR:g}x", good=good)


def _judge_far_page(answers: Answers, near: str, far: str) -> Finding:
    """The beside is page 1 of the same database."""
    ours, theirs = answers.kinds[far][LARGE].ms(50), answers.kinds[near][LARGE].ms(50)
    row = _beside(f"{far}, beside page 1", ours, theirs)
    return replace(row, bar=f"<= {FAR_BAR:g}x", good=ours <= FAR_BAR * theirs)


def _judge_beside_plain(answers: Answers, kind: str, *, rows: int) -> Finding:
    """By the mean, which is how long all the questions took: they are of many sorts, and few."""
    ours, plain = answers.kinds[kind][LARGE].mean_ms(), answers.kinds[kind][PLAIN].mean_ms()
    ratio = plain / ours
    found = Finding(f"{kind}, mean ms", f"{ours:.2f}", f"{plain:,.1f}", f"{ratio:,.0f}x")
    if kind == NO_PLAIN_BAR or rows < PLAIN_BAR_FROM_ROWS:
        return found
    return replace(found, bar=f">= {PLAIN_BAR:g}x", good=ratio >= PLAIN_BAR)


def judge_export(export: Export, *, rows: int) -> list[Finding]:
    complete = export.row_count == export.announced_count == rows
    growth = export.growth_mb
    return [
        Finding(f"export as {export.format}, rows/s", f"{export.rows_per_s:,.0f}"),
        Finding(
            "  rows, and those announced",
            f"{export.row_count:,}",
            f"{export.announced_count:,}",
            bar=f"{rows:,}",
            good=complete,
        ),
        Finding(
            "  growth of the process, MB",
            "unknown" if growth is None else f"{growth:.1f}",
            bar=f"<= {MOST_GROWTH_MB:g} MB",
            good=None if growth is None else growth <= MOST_GROWTH_MB,
        ),
    ]


def judge_finish(cost: FinishCost) -> list[Finding]:
    """Nothing was promised; the ratio is how many times the insights/s of the complete finish the others reach."""
    found: list[Finding] = []
    for times in (LIVE, HISTORY):
        for size in SIZES:
            ours = cost.per_s(times, size, COMPLETE)
            for variant in (UNCOUNTED, BARE):
                other = cost.per_s(times, size, variant)
                title = f"finish of {size} {times}, insights/s" if variant == UNCOUNTED else f"  {variant}"
                shown = f"{ours:,.0f}" if variant == UNCOUNTED else ""
                found.append(Finding(title, shown, f"{other:,.0f}", f"{ours / other:.2f}x"))
    return found
