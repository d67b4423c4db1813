"""What the API's document cannot say of its parameters, for schemathesis: how to make one that is good.

It is loaded by the command, as `tests/schemathesis.toml` says.
"""

import json

import schemathesis
from hypothesis import strategies as st

from parameters import Position

_POSITIONS = st.builds(Position, st.datetimes(timezones=st.timezones()), st.integers(0, 2**63 - 1))
_LETTERS = st.text("abc xyz", min_size=1, max_size=20).filter(str.strip)
_LINES = st.lists(_LETTERS.map(lambda text: json.dumps({"text": text})), min_size=1, max_size=5)

schemathesis.openapi.format("cursor", _POSITIONS.map(Position.encode))
schemathesis.openapi.format("time-zone", st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu"]))
schemathesis.openapi.format("words", _LETTERS)
schemathesis.openapi.format("json-lines", _LINES.map("\n".join))


@schemathesis.serializer("application/x-ndjson")
def write_lines(_context: schemathesis.SerializationContext, value: object) -> bytes:
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()
