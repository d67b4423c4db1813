"""Every answer xAI is known to give lands in its class, and carries no id of a team or a key."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from errors import (
    GrokAtCapacity,
    GrokAuth,
    GrokBilling,
    GrokConfig,
    GrokError,
    GrokParameterRefused,
    GrokRefused,
    GrokRequestRejected,
    GrokThrottled,
    GrokTooLarge,
    GrokUnavailable,
)
from tests.fake_xai_answers import XAI
from xai import classify, told_wait_s

pytestmark = pytest.mark.unit

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
FIXTURES: list[dict[str, Any]] = json.loads((XAI / "error_bodies.json").read_text())
CLASSES: dict[str, type[GrokError]] = {
    "auth": GrokAuth,
    "billing": GrokBilling,
    "capacity": GrokAtCapacity,
    "config": GrokConfig,
    "content_filter_bisect": GrokRefused,
    "drop_param_retry": GrokParameterRefused,
    "fatal_config": GrokConfig,
    "fatal_request": GrokRequestRejected,
    "rate_limit": GrokThrottled,
    "split_pack": GrokTooLarge,
    "transient": GrokUnavailable,
}


def read(status: int, body: object, **headers: str) -> GrokError:
    text = body if isinstance(body, str) else json.dumps(body)
    return classify(status, text, headers, now=NOW)


def test_there_are_27_known_answers() -> None:
    assert len(FIXTURES) == 27


@pytest.mark.parametrize("known", [pytest.param(known, id=known["name"]) for known in FIXTURES])
def test_a_known_answer_lands_in_its_class(known: dict[str, Any]) -> None:
    error = read(known["status"], known["body"])

    assert type(error) is CLASSES[known["client_class"]]


@pytest.mark.parametrize("known", [pytest.param(known, id=known["name"]) for known in FIXTURES])
@pytest.mark.parametrize(
    "secret",
    ["00000000-0000-0000-0000-000000000000", "11111111-1111-1111-1111-111111111111", "xa***VY", "team-1 "],
)
def test_no_id_of_a_team_or_a_key_survives(known: dict[str, Any], secret: str) -> None:
    error = read(known["status"], known["body"])

    assert secret not in error.details + (error.raw_answer or "")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        pytest.param(404, GrokConfig, id="a path that is not there is a wrong address"),
        pytest.param(407, GrokConfig, id="a proxy on the way"),
        pytest.param(408, GrokUnavailable, id="too slow for it"),
        pytest.param(418, GrokRequestRejected, id="a status nobody knows"),
        pytest.param(302, GrokConfig, id="a redirect is a wrong address"),
        pytest.param(525, GrokConfig, id="a bad certificate"),
        pytest.param(529, GrokUnavailable, id="an overloaded edge"),
        pytest.param(505, GrokUnavailable, id="a server error not in the table"),
        pytest.param(403, GrokAuth, id="a refusal without words"),
        pytest.param(429, GrokThrottled, id="too many requests without words"),
    ],
)
@pytest.mark.parametrize("body", ["", "{}", "[]", "null", "\x00", '{"error": {"message": 3}}', "<html>"])
def test_a_status_alone_is_enough(status: int, kind: type[GrokError], body: str) -> None:
    assert type(read(status, body)) is kind


def test_what_is_kept_of_a_huge_body_is_short() -> None:
    error = read(500, "x" * 1_000_000)

    assert len(error.details) < 400
    assert len(error.raw_answer or "") == 2000


@pytest.mark.parametrize(
    ("header", "message", "expected"),
    [
        pytest.param("7", "", 7, id="digits"),
        pytest.param(" 7 ", "", 7, id="digits with blanks"),
        pytest.param("0", "", 1, id="zero is at least a second"),
        pytest.param("3600", "", 120, id="an hour is cut to two minutes"),
        pytest.param("9" * 400, "", 120, id="a number without end"),
        pytest.param("Sun, 01 Mar 2026 12:00:30 GMT", "", 30, id="a date"),
        pytest.param("Sun, 01 Mar 2026 13:00:30 +0100", "", 30, id="a date of another zone"),
        pytest.param("Sun, 01 Mar 2026 11:00:00 GMT", "", 1, id="a date gone by"),
        pytest.param("Fri, 01 Jan 2100 00:00:00 GMT", "", 120, id="a date far off"),
        pytest.param("soon", "", None, id="a word"),
        pytest.param("-5", "", None, id="a negative number"),
        pytest.param("1.5", "", None, id="a fraction"),
        pytest.param("\u00b2", "", None, id="a digit that is not ASCII"),
        pytest.param("", "Resets in: 3m 4s", 120, id="minutes in the text"),
        pytest.param("", "limit hit. Resets in: 44s", 44, id="seconds in the text"),
        pytest.param("", "Resets in: 1m 5s.", 65, id="a minute and seconds in the text"),
        pytest.param("", "Resets in: 1h", 120, id="an hour in the text"),
        pytest.param("9", "Resets in: 44s", 9, id="the header goes before the text"),
        pytest.param("", "Please retry your request.", None, id="nothing told"),
        pytest.param("", "Resets in: a while", None, id="no time in the text"),
    ],
)
def test_a_told_wait_is_understood(header: str, message: str, expected: int | None) -> None:
    headers = {"retry-after": header} if header else {}

    assert told_wait_s(message, headers, now=NOW) == expected


def test_the_told_wait_comes_with_the_error() -> None:
    error = read(429, {"error": "Too many requests. Resets in: 12s"})

    assert error.retry_after_s == 12


@pytest.mark.parametrize(
    "value",
    [
        "Fri, 31 Dec 9999999999999999999 23:59:59 GMT",
        "Fri, 31 Dec 2026 23:59:59 +99999999999999999999",
        "Fri, 9999999999999 Dec 2026 23:59:59 GMT",
        "9" * 5000,
        "-1",
        "",
    ],
)
def test_a_wait_that_no_calendar_has_is_never_an_error(value: str) -> None:
    error = classify(429, '{"error": "Too many requests"}', {"retry-after": value}, now=NOW)

    assert type(error) is GrokThrottled


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("Resets in: 3m 4s", 120),
        ("Resets in: 45.5s", 46),
        ("Resets in: 500ms", 1),
        ("Resets in: 1d 2h", 120),
        (f"Resets in: {'9' * 5000}s", None),
        ("Resets in: soon", None),
    ],
)
def test_a_wait_is_read_from_the_text_in_any_unit(words: str, seconds: int | None) -> None:
    assert told_wait_s(words, {}, now=NOW) == seconds
