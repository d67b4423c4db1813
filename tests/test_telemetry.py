"""One line a happening, no id or key in any, and metrics whose names and labels are known beforehand."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import errors
from errors import GrokError
from telemetry import Measurement, Metrics, redact, unquoted

ROOT = Path(__file__).parent.parent
TEAM = "5f0b1b52-7c1e-4a53-9e0b-0d3b6f0e2a11"


def log_lines(statements: str, *, level: str = "INFO") -> list[dict[str, Any]]:
    """What a process of its own writes: the setup of logs is global and for good."""
    setup = (
        "import logging, datetime\n"
        "from telemetry import configure_logging, get_logger, request_id\n"
        f"configure_logging({level!r}, environment='test')\n"
        "log = get_logger()\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", setup + statements], capture_output=True, check=True, cwd=ROOT
    )
    assert run.stdout == b""
    return [json.loads(line) for line in run.stderr.split(b"\n") if line]


@pytest.mark.integration
def test_a_line_is_an_object_that_says_what_when_and_where() -> None:
    [line] = log_lines("log.info('started', port=8000)")

    assert (line["event"], line["level"], line["environment"], line["port"]) == ("started", "info", "test", 8000)
    assert line["time"].endswith("Z")


@pytest.mark.integration
@pytest.mark.parametrize(
    ("value", "written"),
    [
        pytest.param("'\\ud800'", "\ud800", id="a lone surrogate"),
        pytest.param("'one\\ntwo\\r\\n\\x1b[31m'", "one\ntwo\r\n\x1b[31m", id="line breaks and control characters"),
        pytest.param("'\\u2028\\x85'", "\u2028\x85", id="line breaks of Unicode"),
        pytest.param("2**70", 2**70, id="an integer of more than 64 bits"),
        pytest.param("float('nan')", None, id="a number that is none"),
        pytest.param("{1: 'a', None: 'b'}", {"1": "a", "null": "b"}, id="keys that are no strings"),
        pytest.param("ValueError('no')", "ValueError('no')", id="an object"),
        pytest.param("b'bytes'", "b'bytes'", id="bytes"),
        pytest.param(
            "datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)", "2026-03-01T00:00:00Z", id="a moment in UTC"
        ),
    ],
)
def test_any_value_makes_one_line_and_survives(value: str, written: object) -> None:
    first, last = log_lines(f"log.info('first', value={value})\nlog.info('last')")

    assert first["value"] == written
    assert last["event"] == "last"


@pytest.mark.integration
def test_a_value_that_holds_itself_does_not_break_the_log() -> None:
    lines = log_lines("loop = {}\nloop['loop'] = loop\nlog.info('first', value=loop)\nlog.info('last')")

    assert [line["event"] for line in lines] == ["first", "last"]


@pytest.mark.integration
def test_libraries_write_the_same_lines() -> None:
    [line] = log_lines("logging.getLogger('uvicorn.error').warning('broken %s', 'pipe\\nagain')")

    assert (line["event"], line["level"], line["logger"]) == ("broken pipe\nagain", "warning", "uvicorn.error")
    assert line["environment"] == "test"


@pytest.mark.integration
def test_a_traceback_stays_in_its_line() -> None:
    ours, theirs = log_lines(
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n"
        "    log.exception('failed')\n    logging.getLogger('library').exception('failed')"
    )

    assert "ZeroDivisionError" in ours["exception"]
    assert "ZeroDivisionError" in theirs["exception"]


@pytest.mark.integration
def test_a_line_names_the_request_it_belongs_to() -> None:
    lines = log_lines("log.info('outside')\nrequest_id.set('abc')\nlog.info('inside')\nlogging.warning('library')")

    assert [line.get("request_id") for line in lines] == [None, "abc", "abc"]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("level", "events"),
    [("DEBUG", ["debug", "info", "warning"]), ("INFO", ["info", "warning"]), ("WARNING", ["warning"])],
)
def test_what_is_below_the_level_is_not_written(level: str, events: list[str]) -> None:
    lines = log_lines("log.debug('debug')\nlog.info('info')\nlog.warning('warning')", level=level)

    assert [line["event"] for line in lines] == events


@pytest.mark.integration
def test_a_conversation_with_xai_is_not_logged_by_its_library() -> None:
    quiet = ("httpx2", "httpcore2", "alembic", "uvicorn.access")

    assert log_lines("\n".join(f"logging.getLogger({name!r}).info('GET /')" for name in quiet), level="DEBUG") == []


@pytest.mark.unit
@pytest.mark.parametrize(
    ("said", "secret"),
    [
        pytest.param(f"Team {TEAM} has no credits", TEAM, id="a team's id"),
        pytest.param(f"Team {TEAM.upper()} has no credits", TEAM.upper(), id="a team's id in capitals"),
        pytest.param("Incorrect API key: xai-abcdefgh12345678", "abcdefgh12345678", id="a key"),
        pytest.param("Incorrect API key: xa***2k", "xa***2k", id="a masked key"),
        pytest.param("Incorrect API key: xai-AB****wxyz.", "wxyz", id="a key masked in the middle"),
        pytest.param("see team-123456", "team-123456", id="a team's number"),
        pytest.param(f"{TEAM} and {TEAM}", TEAM, id="twice"),
    ],
)
def test_ids_and_keys_are_taken_out_of_what_xai_said(said: str, secret: str) -> None:
    assert secret not in redact(said)
    assert "[redacted]" in redact(said)


@pytest.mark.unit
@pytest.mark.parametrize(
    "said", ["", "The model grok-4.3 does not exist", "xai is slow", "2026-03-01T12:00:00Z", "5 ** 2"]
)
def test_what_is_no_secret_stays(said: str) -> None:
    assert redact(said) == said


# Metrics

DEPTH = Measurement.of("insights_processing_queue_depth", "Conversations that wait or are being analyzed.", 7)
SPECIFIED = (
    *("requests_total", "request_latency_seconds", "grok_calls_total", "grok_call_errors_total"),
    *("grok_call_latency_seconds", "analysis_cache_hits_total", "prefilter_skips_total", "estimated_tokens_total"),
    *("estimated_cost_usd_total", "processing_queue_depth"),
)


def samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample by its name and the values of its labels."""
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        (sample.name, tuple(sample.labels.values())): sample.value for family in families for sample in family.samples
    }


def used_metrics() -> Metrics:
    metrics = Metrics()
    metrics.count_request(method="GET", route="/api/v1/insights", status=200, seconds=0.2)
    metrics.record_call(seconds=0.3)
    metrics.count_call_error("grok_throttled")
    metrics.count_cache_hit()
    metrics.count_skip("only_links")
    metrics.count_finished("completed")
    metrics.count_tokens("cached", 900)
    metrics.count_cost(0.0037756)
    return metrics


@pytest.mark.unit
@pytest.mark.parametrize("name", SPECIFIED)
def test_a_metric_that_operators_were_promised_is_there(name: str) -> None:
    rendered = used_metrics().render([DEPTH]).decode()

    assert f"\ninsights_{name}" in rendered.replace("_seconds_bucket", "_seconds")


@pytest.mark.unit
def test_every_metric_carries_the_services_name() -> None:
    assert {name for name, _ in samples(used_metrics()) if not name.startswith("insights_")} == set()


@pytest.mark.unit
def test_what_was_counted_is_what_is_read() -> None:
    read = samples(used_metrics())

    assert read["insights_estimated_tokens_total", ("cached",)] == 900
    assert read["insights_estimated_cost_usd_total", ()] == pytest.approx(0.0037756)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("measurement", "written"),
    [
        pytest.param(DEPTH, ["# TYPE insights_processing_queue_depth gauge", f"{DEPTH.name} 7.0"], id="a number"),
        pytest.param(Measurement.of("insights_a", "A.", None), ["# TYPE insights_a gauge"], id="nobody can tell"),
        pytest.param(
            Measurement.by("insights_a", "A.", {"x": 1, "y": 0}, label="b"),
            ["# TYPE insights_a gauge", 'insights_a{b="x"} 1.0', 'insights_a{b="y"} 0.0'],
            id="by a label",
        ),
        pytest.param(
            Measurement.by("insights_a_total", "A.", {"x": 3}, label="b"),
            ["# TYPE insights_a_total counter", 'insights_a_total{b="x"} 3.0'],
            id="a counter kept elsewhere",
        ),
        pytest.param(
            Measurement("insights_a", "A.", ("b", "c"), {("x", '"\n\\'): 1}),
            ["# TYPE insights_a gauge", 'insights_a{b="x",c="\\"\\n\\\\"} 1.0'],
            id="labels of any text",
        ),
    ],
)
def test_what_is_looked_up_is_told_after_what_was_counted(measurement: Measurement, written: list[str]) -> None:
    told = Metrics().render([measurement]).decode()

    lines = [line for line in told.splitlines() if re.search(rf"\b{measurement.name}\b", line)]
    assert [line for line in lines if not line.startswith("# HELP")] == written


@pytest.mark.unit
def test_a_commit_is_told_by_its_units_and_its_time() -> None:
    metrics = Metrics()
    for units in (1, 30):
        metrics.observe_commit(units, 0.002)

    read = samples(metrics)

    assert (read["insights_database_commit_units_sum", ()], read["insights_database_commit_units_count", ()]) == (31, 2)
    assert read["insights_database_commit_seconds_bucket", ("0.0025",)] == 2


@pytest.mark.unit
def test_answers_of_another_model_are_counted() -> None:
    metrics = Metrics()
    metrics.count_model_mismatch()
    metrics.count_model_mismatch()

    assert metrics.model_mismatches() == 2


@pytest.mark.unit
def test_two_sets_of_metrics_do_not_share_a_count() -> None:
    used_metrics()

    assert samples(Metrics())["insights_grok_calls_total", ()] == 0


def grok_errors(kind: type[GrokError] = GrokError) -> Iterator[type[GrokError]]:
    for one in kind.__subclasses__():
        yield from (one, *grok_errors(one))


@pytest.mark.unit
def test_the_label_of_a_failed_call_is_one_of_few_words() -> None:
    codes = [kind.code for kind in grok_errors()]

    assert len(codes) == len(set(codes)) <= 20
    assert all(code.replace("_", "").isalpha() for code in codes)
    assert errors.GrokThrottled.code in codes


@pytest.mark.unit
@pytest.mark.parametrize(
    ("reason", "told"),
    [
        pytest.param("xAI answered 422: cannot read 'my parcel:\nlate'", "xAI answered 422", id="words of xAI"),
        pytest.param(
            "The answer cannot be used: not JSON.", "The answer cannot be used: not JSON.", id="words of ours"
        ),
    ],
)
def test_the_log_has_the_status_of_an_error_and_not_what_xai_quotes(reason: str, told: str) -> None:
    assert unquoted(reason) == told
