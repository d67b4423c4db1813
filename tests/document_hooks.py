"""What the API's document cannot say of its parameters, for schemathesis: how to make one that is good.

It is loaded by the command, as `tests/schemathesis.toml` says.
"""

import itertools
import json
from typing import Any, TypeGuard

import schemathesis
from hypothesis import strategies as st

from parameters import Position

_POSITIONS = st.builds(Position, st.datetimes(timezones=st.timezones()), st.integers(0, 2**63 - 1))
_LETTERS = st.text("abc xyz", min_size=1, max_size=20).filter(str.strip)
_KEYS = itertools.count(1)
_LONGEST_KEY = 255
_LINES = st.lists(_LETTERS.map(lambda text: json.dumps({"text": text})), min_size=1, max_size=5)

schemathesis.openapi.format("cursor", _POSITIONS.map(Position.encode))
schemathesis.openapi.format("time-zone", st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu"]))
schemathesis.openapi.format("words", _LETTERS)
schemathesis.openapi.format("json-lines", _LINES.map("\n".join))


@schemathesis.serializer("application/x-ndjson")
def write_lines(_context: schemathesis.SerializationContext, value: object) -> bytes:
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


@schemathesis.hook  # pyright: ignore[reportUnknownMemberType] - its stubs
def filter_body(_context: schemathesis.HookContext, body: Any) -> bool:
    """`raw_data` may hold any JSON, but no NUL at any depth: no schema says that."""
    return "\\u0000" not in json.dumps(body.get("raw_data") if _is_object(body) else None)


@schemathesis.hook  # pyright: ignore[reportUnknownMemberType] - its stubs
def map_headers(_context: schemathesis.HookContext, headers: dict[str, Any] | None) -> dict[str, Any] | None:
    """Every good `Idempotency-Key` is a new one: the answer to an old one may name what was erased since."""
    key = (headers or {}).get("Idempotency-Key")
    if headers and isinstance(key, str) and 0 < len(key) <= _LONGEST_KEY:
        headers["Idempotency-Key"] = f"key {next(_KEYS)}"
    return headers


def _is_object(body: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(body, dict)
