"""What an HTTP answer of xAI means: one table from status and body text to the class of error.

The body decides, not the status: a wrong key answers 400, content safety and missing credits both answer 403, and
exhausted credits answer 403 or 429. Nothing here is documented as stable by xAI; the phrases are those of its messages.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import cast

import orjson

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
from telemetry import excerpt, redact

_LONGEST_TOLD_WAIT_S = 120
_TRANSIENT = {*range(500, 505), *range(520, 525), 529, 530}
_BAD_CERTIFICATE = {525, 526}

# First match wins: (statuses, phrase in the body, class).
_TABLE: tuple[tuple[frozenset[int], str, type[GrokError]], ...] = (
    (frozenset({400, 401, 403}), r"incorrect api key|no credentials|invalid api key", GrokAuth),
    (frozenset({402}), r"", GrokBilling),
    (frozenset({403, 429}), r"credits|spending limit|licenses", GrokBilling),
    (frozenset({403}), r"violates usage guidelines|SAFETY_CHECK_TYPE_", GrokRefused),
    (frozenset({401, 403}), r"", GrokAuth),
    (frozenset({400, 404}), r"model not found|does not exist or your team", GrokConfig),
    (frozenset({400}), r"reasoning_?effort", GrokParameterRefused),
    (frozenset({400}), r"does not support parameter", GrokConfig),  # not one that can be left out
    (frozenset({400}), r"maximum prompt length|context length|too large|too long", GrokTooLarge),
    (frozenset({413}), r"", GrokTooLarge),
    (frozenset({404, 405, 407}), r"", GrokConfig),  # that is no xAI: a mistyped address, a proxy
    (frozenset({408}), r"", GrokUnavailable),
    (frozenset({429}), r"at capacity", GrokAtCapacity),
    (frozenset({429}), r"", GrokThrottled),
    (frozenset(_BAD_CERTIFICATE), r"", GrokConfig),
    (frozenset(_TRANSIENT), r"", GrokUnavailable),
)  # fmt: skip
_RESETS_IN = re.compile(r"Resets in:\s*((?:[0-9]{1,6}(?:\.[0-9]{1,6})?(?:ms|[dhms])\s*)+)", re.IGNORECASE)
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[dhms])")
_SECONDS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def classify(status: int, body: str, headers: Mapping[str, str], *, now: datetime) -> GrokError:
    """The error that an answer other than 200 stands for, with the wait that xAI asked for, if any (at most 120 s)."""
    message = _message(body)
    told = told_wait_s(message, headers, now=now)
    kept = excerpt(body)
    for statuses, phrase, kind in _TABLE:
        if status in statuses and re.search(phrase, message, re.IGNORECASE):
            return kind(f"xAI answered {status}: {redact(message)[:300]}", retry_after_s=told, raw_answer=kept)
    kind = GrokUnavailable if status >= 500 else GrokRequestRejected if status >= 400 else GrokConfig  # a redirect
    return kind(f"xAI answered {status}: {redact(message)[:300]}", retry_after_s=told, raw_answer=kept)


def told_wait_s(message: str, headers: Mapping[str, str], *, now: datetime) -> int | None:
    """Seconds to wait, from `Retry-After` (digits or a date) or "Resets in: 3m 4s"; 1 to 120, None when not told."""
    value = headers.get("retry-after", "").strip()
    seconds: float | None = None
    if value.isascii() and value.isdigit():
        seconds = int(value[:9])
    elif value:
        seconds = _seconds_until(value, now=now)
    elif (found := _RESETS_IN.search(message)) is not None:
        parts = _PART.findall(found[1].lower())
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    return None if seconds is None else max(1, min(_LONGEST_TOLD_WAIT_S, round(seconds)))


def _seconds_until(value: str, *, now: datetime) -> float | None:
    try:
        moment = parsedate_to_datetime(value)
        return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now).total_seconds()
    except (ValueError, OverflowError, TypeError):  # a year, a day or a zone that no calendar has
        return None


def _message(body: str) -> str:
    """The sentence in an error body: `{"error": "..."}`, `{"error": {"message": "..."}}`, or the text itself."""
    try:
        document: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body
    error = cast("dict[str, object]", document).get("error") if isinstance(document, dict) else None
    if isinstance(error, dict):
        error = cast("dict[str, object]", error).get("message")
    return error if isinstance(error, str) else body
