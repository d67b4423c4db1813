"""Errors as clients see them: RFC 9457 problem details that carry the contract's `error` and `details`."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from pydantic_core import ErrorDetails

from answers import Problem
from errors import InsightsError, InvalidSchema
from telemetry import request_id

MEDIA_TYPE = "application/problem+json"
_INTERNAL = "An error of ours; report the request id. Trying again may help."
_TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}  # RFC 9110; Python has them since 3.13
_RULES = {
    "string_too_short": "must not be empty",
    "dict_type": "must be an object",
    "string_pattern_mismatch": "does not have the form that it has here; take it from an answer of this service",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
}


def to_problem(error: InsightsError) -> tuple[Problem, dict[str, str]]:
    """The body and the headers that go with it."""
    problem: Problem = {
        "type": "about:blank",
        "title": title_of(error.status),
        "status": error.status,
        "detail": error.details,
        "error": error.code,
        "details": error.details,
    }
    if (current := request_id.get()) is not None:
        problem["request_id"] = current
    headers: dict[str, str] = {}
    if error.retry_after_s is not None:
        problem["retry_after"] = error.retry_after_s
        headers["Retry-After"] = str(error.retry_after_s)
    return problem, headers


def title_of(status: int) -> str:
    return _TITLES.get(status) or HTTPStatus(status).phrase


def to_body(error: InsightsError, extensions: Mapping[str, Any] | None = None) -> tuple[bytes, dict[str, str]]:
    problem, headers = to_problem(error)
    return orjson.dumps({**problem, **(extensions or {})}), headers


def internal_error() -> InsightsError:
    """What a client hears of a bug: the request id, nothing else."""
    return InsightsError(_INTERNAL)


def describe(errors: Sequence[ErrorDetails] | Sequence[Any], *, place: str = "field") -> str:
    """What is wrong and what is wanted, by name; never the value that was sent, nor a name that is not ours."""
    return "; ".join(dict.fromkeys(_describe_one(error, place) for error in errors[:5]))


def invalid_schema(errors: Sequence[Any], *, place: str = "field") -> InvalidSchema:
    return InvalidSchema(describe(errors, place=place))


def _describe_one(error: Mapping[str, Any], place: str) -> str:
    location = [part for part in error["loc"] if part not in {"query", "body", "path"}]
    name = ".".join(str(part) for part in location)
    match error["type"]:
        case "missing":
            return f"Missing required {place}: {name}"
        case "extra_forbidden":
            return f"Unknown {place}; see /docs for those there are"
        case kind:
            rule = _RULES.get(kind) or str(error["msg"]).removeprefix("Value error, ")
            return f"Invalid {place} {name}: {rule}" if name else f"Invalid {place}s: {rule}"
