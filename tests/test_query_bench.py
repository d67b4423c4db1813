"""The benchmark of queries asks what it says, compares what must be equal, and holds the answers to its bars."""

import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import closing
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from benchmarks import query_paths
from benchmarks.export_run import Export, measure_export
from benchmarks.finish_cost import BARE, COMPLETE, SIZES, UNCOUNTED, VARIANTS, Finish, FinishCost, finish, leave_out
from benchmarks.http_load import Address
from benchmarks.made_history import END, START, make_insights
from benchmarks.made_insights import made_database
from benchmarks.query_bench import Report, measure_all
from benchmarks.query_client import Asked, Timings, ask_in_turn, asking, until
from benchmarks.query_findings import Finding, judge_answers, judge_export, judge_finish
from benchmarks.query_runs import (
    BY_COUNT,
    BY_GROUP,
    BY_OFFSET,
    BY_OFFSET_OF_TOPIC,
    FAR_OF_TOPIC,
    FAR_PAGE,
    FILTERED,
    FIRST_PAGE,
    LARGE,
    PLAIN,
    SMALL,
    Amounts,
    Answers,
    gist,
    trends_kind,
)
from benchmarks.servers import Server
from database import Database
from parameters import InsightQuery, TrendsQuery

ROWS = 2_000
TINY = Amounts(filtered=20, repeats=2, trends=4, searches=3, plain=6, finishes=1, most_s=10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def made(folder: Path) -> Path:
    return made_database(folder, rows=ROWS)


def parameters_of(path: str, *, many: str = "") -> dict[str, object]:
    """As a server reads them: the one named `many` as a list."""
    found = parse_qs(urlsplit(path).query, strict_parsing=True)
    return {name: values if name == many else values[0] for name, values in found.items()}


@pytest.mark.integration
@pytest.mark.slow
def test_both_designs_say_the_same_of_made_insights(folder: Path) -> None:
    pytest.importorskip("aiosqlite", reason="the plain design needs the dependency group `bench`")

    report = measure_all(folder, TINY, rows=ROWS, small_rows=500, seed=1)

    assert (report.errors, report.answers.wrong) == ([], [])
    assert report.answers.compared >= 4 * TINY.plain
    assert {FILTERED, FAR_PAGE, FAR_OF_TOPIC, BY_COUNT, BY_GROUP, BY_OFFSET_OF_TOPIC} < report.answers.kinds.keys()
    assert report.finish is not None
    assert len(report.finish.finishes) == TINY.finishes * 2 * len(SIZES) * len(VARIANTS)


# Questions


@pytest.mark.unit
def test_questions_are_such_as_the_service_takes() -> None:
    queries = [
        InsightQuery.model_validate(parameters_of(path, many="topic"))
        for path in islice(query_paths.draw_insights(random.Random(3)), 500)
    ]

    assert all(query.limit == query_paths.PAGE_ROWS for query in queries)
    assert {len(query.topic) for query in queries} == {0, 1, 2, 3}
    assert {query.sentiment for query in queries} == {None, "positive", "neutral", "negative"}
    assert len({query.min_confidence for query in queries}) > 80
    assert any(query.start_time and query.start_time.minute for query in queries)


@pytest.mark.unit
def test_questions_for_trends_cover_the_90_days_with_and_without_a_topic() -> None:
    paths = islice(query_paths.draw_trends(random.Random(3), zone="Asia/Kolkata"), 20)

    queries = [TrendsQuery.model_validate(parameters_of(path)) for path in paths]

    assert [query.topic is None for query in queries] == [True, False] * 10
    assert all(query.start_time == START and query.end_time and query.end_time <= END for query in queries)
    assert {query.tz.key for query in queries} == {"Asia/Kolkata"}


@pytest.mark.unit
def test_questions_end_when_their_time_is_over_but_never_before_the_first() -> None:
    assert list(until([1, 2, 3], most_s=0)) == [1]
    assert list(until([1, 2, 3], most_s=60)) == [1, 2, 3]


class ExportServer(BaseHTTPRequestHandler):
    """Hangs up after each answer; it has three insights, and no export as parquet."""

    def do_GET(self) -> None:
        if "parquet" in self.path:
            self.send_error(400)
            return
        self.send_response(200)
        self.send_header("X-Total-Count", "3")
        self.send_header("Content-Length", "20")
        self.end_headers()
        self.wfile.write(b"names\nfirst\n2nd\n3rd\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's signature
        pass


@pytest.fixture
def exporting(tmp_path: Path) -> Generator[Server]:
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), ExportServer) as server,
        subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process,
    ):
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield Server("export", Address("127.0.0.1", server.server_port), tmp_path, process)
        server.shutdown()
        serving.join()


@pytest.mark.integration
def test_an_export_is_counted_by_its_lines(exporting: Server) -> None:
    export = measure_export(exporting, format="csv")

    assert export is not None
    assert (export.row_count, export.announced_count, export.megabytes) == (3, 3, 20 / 1e6)
    assert measure_export(exporting, format="parquet") is None


@pytest.mark.integration
async def test_a_server_that_hung_up_meanwhile_is_asked_again(exporting: Server) -> None:
    async with asking([("one", exporting)]) as askers:
        timings = await ask_in_turn(askers, ["/a", "/b", "/c"])

    assert [one.path for one in timings["one"].asked] == ["/a", "/b", "/c"]


@pytest.mark.unit
def test_both_designs_answers_come_down_to_the_same_gist() -> None:
    rows = [{"conversation_id": "conv_1"}, {"conversation_id": "conv_2"}]

    assert gist({"insights": rows, "metadata": {"total_count": 7}}) == gist({"insights": rows, "total_count": 7})
    assert gist({"buckets": [{"count": 3}, {"count": 0}, {"count": 2}]}) == [3, 2]


# Bars


def timings(*latencies_ms: float) -> Timings:
    return Timings([Asked(latency_ms, latency_ms / 2, f"/{number}") for number, latency_ms in enumerate(latencies_ms)])


def judged(answers: Answers) -> dict[str, bool | None]:
    return {found.measured.strip(): found.good for found in judge_answers(answers, rows=1_000_000)}


@pytest.mark.unit
@pytest.mark.parametrize(
    ("large_ms", "small_ms", "good"),
    [
        pytest.param(9.9, 5.0, True, id="fast enough, and hardly slower than among few"),
        pytest.param(10.1, 9.0, False, id="too slow"),
        pytest.param(8.0, 3.9, False, id="it grows with the database"),
    ],
)
def test_filters_are_held_to_their_p99_and_to_twice_the_small_database(
    large_ms: float,
    small_ms: float,
    good: bool,  # noqa: FBT001
) -> None:
    answers = Answers({FILTERED: {LARGE: timings(1.0, large_ms), SMALL: timings(1.0, small_ms)}})

    assert judged(answers)["p99 ms"] is good


@pytest.mark.unit
@pytest.mark.parametrize(("far_ms", "good"), [(1.2, True), (1.3, False)])
def test_page_1000_is_as_fast_as_page_1(far_ms: float, good: bool) -> None:  # noqa: FBT001
    answers = Answers({FIRST_PAGE: {LARGE: timings(1.0)}, FAR_PAGE: {LARGE: timings(far_ms)}})

    assert judged(answers)[f"{FAR_PAGE}, beside page 1"] is good


@pytest.mark.unit
@pytest.mark.parametrize("kind", [BY_COUNT, BY_OFFSET_OF_TOPIC, BY_GROUP])
@pytest.mark.parametrize(("plain_ms", "good"), [(50.0, True), (49.0, False)])
def test_the_service_is_held_to_fifty_times_the_plain_design(kind: str, plain_ms: float, good: bool) -> None:  # noqa: FBT001
    answers = Answers({kind: {LARGE: timings(1.0), PLAIN: timings(plain_ms)}})

    assert judged(answers)[f"{kind}, mean ms"] is good


@pytest.mark.unit
def test_an_offset_without_a_filter_is_shown_and_held_to_nothing() -> None:
    answers = Answers({BY_OFFSET: {LARGE: timings(2.0), PLAIN: timings(14.0)}})

    assert Finding(f"{BY_OFFSET}, mean ms", "2.00", "14.0", "7x") in judge_answers(answers, rows=1_000_000)


@pytest.mark.unit
def test_among_few_insights_the_plain_design_is_only_shown() -> None:
    answers = Answers({BY_COUNT: {LARGE: timings(2.0), PLAIN: timings(14.0)}})

    assert Finding(f"{BY_COUNT}, mean ms", "2.00", "14.0", "7x") in judge_answers(answers, rows=50_000)


@pytest.mark.unit
def test_an_answer_that_a_recount_denies_is_a_failure_whatever_its_speed() -> None:
    answers = Answers()
    answers.compare("/a", 5, 5)
    answers.compare("/b", 5, 6)

    assert judged(answers)["answers equal to a recount"] is False


@pytest.mark.unit
@pytest.mark.parametrize(
    ("rows", "growth_mb", "goods"),
    [
        pytest.param(100, 19.9, [None, True, True], id="all rows, flat"),
        pytest.param(99, 19.9, [None, False, True], id="a row is missing"),
        pytest.param(100, 20.1, [None, True, False], id="it grew"),
        pytest.param(100, None, [None, True, None], id="nobody knows"),
    ],
)
def test_an_export_is_complete_and_flat(rows: int, growth_mb: float | None, goods: list[bool | None]) -> None:
    export = Export("csv", rows, announced_count=100, seconds=1.0, megabytes=1.0, growth_mb=growth_mb)

    assert [found.good for found in judge_export(export, rows=100)] == goods


@pytest.mark.unit
def test_a_run_without_answers_or_with_an_error_is_no_success() -> None:
    answered = Answers({trends_kind("UTC"): {LARGE: timings(1.0), SMALL: timings(1.0)}}, compared=1)

    assert Report("a machine", 2, 1, answered).passed
    assert not Report("a machine", 2, 1).passed
    assert not Report("a machine", 2, 1, answered, errors=["broke off"]).passed


# Finishes


@pytest.mark.unit
def test_what_counting_costs_is_a_ratio_of_medians() -> None:
    slow = [Finish(times, size, COMPLETE, size / 100) for times in ("live", "over 90 days") for size in SIZES]
    rest = [
        Finish(one.times, one.size, variant, seconds)
        for one in slow
        for variant in (UNCOUNTED, BARE)
        for seconds in (one.seconds / 2, one.seconds / 2, 9.0)
    ]

    found = judge_finish(FinishCost(slow + rest))

    assert found[0] == Finding("finish of 10 live, insights/s", "100", "200", "0.50x")
    assert [one.ratio for one in found] == ["0.50x"] * 8


@pytest.mark.integration
@pytest.mark.parametrize(("variant", "counted"), [(COMPLETE, 20), (UNCOUNTED, 0), (BARE, 0)])
async def test_a_finish_leaves_out_just_what_it_should(tmp_path: Path, made: Path, variant: str, counted: int) -> None:
    path = tmp_path / "copy.db"
    shutil.copyfile(made, path)
    database = Database.connect(f"sqlite:///{path}")
    await database.open()

    await database.write(partial(leave_out, variant=variant))
    await finish(database, list(make_insights(0, 20, rows=20, seed=5)))
    await database.close()

    with closing(sqlite3.connect(path)) as connection:
        [(insights,)] = connection.execute("SELECT count(*) FROM insights")
        [(total,)] = connection.execute(
            "SELECT sum(positive + neutral + negative) FROM insight_counts WHERE span = 'hour' AND topic = '*'"
        )
        [(indexes,)] = connection.execute(
            "SELECT count(*) FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name = 'insights'"
        )
    assert (insights, total) == (ROWS + 20, ROWS + counted)
    assert (indexes == 0) == (variant == BARE)
