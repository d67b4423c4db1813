"""Bodies are read within a size and a time, and parsed strictly."""

import asyncio
from collections.abc import AsyncIterator

import pytest

import bodies
from bodies import JSON_TYPE, NDJSON_TYPE, check_media_type, parse_json, read_body, split_ndjson
from errors import BodyTooLarge, InvalidSchema, SlowRequest, UnsupportedMediaType

pytestmark = pytest.mark.unit


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def drip() -> AsyncIterator[bytes]:
    while True:
        await asyncio.sleep(0.01)
        yield b" "


@pytest.mark.parametrize("announced", [None, "6", "1", "", "-1", "abc", "\u00b2", "1e3", " 6"])
async def test_a_body_within_the_limit_is_read_whatever_its_length_was_said_to_be(announced: str | None) -> None:
    body = await read_body(chunks(b"abc", b"", b"def"), announced_bytes=announced, limit_bytes=6)

    assert body == b"abcdef"


async def test_a_body_that_outgrows_the_limit_is_refused_however_short_it_was_said_to_be() -> None:
    with pytest.raises(BodyTooLarge):
        await read_body(chunks(b"abc", b"defg"), announced_bytes="3", limit_bytes=6)


@pytest.mark.parametrize("announced", ["7", "9" * 30])
async def test_a_body_announced_as_too_large_is_refused_unread(announced: str) -> None:
    async def unread() -> AsyncIterator[bytes]:
        raise AssertionError("it was read")
        yield b""

    with pytest.raises(BodyTooLarge):
        await read_body(unread(), announced_bytes=announced, limit_bytes=6)


async def test_a_body_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_DEADLINE_S", 0.05)

    with pytest.raises(SlowRequest):
        await read_body(drip(), announced_bytes=None, limit_bytes=1000)


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"'],
)
def test_json_in_utf8_is_taken(content_type: str) -> None:
    assert check_media_type(content_type, JSON_TYPE, NDJSON_TYPE) == JSON_TYPE


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        ";",
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "application/json, text/html",
        "application/xml",
        "multipart/form-data; boundary=x",
    ],
)
def test_anything_else_is_answered_with_the_remedy(content_type: str | None) -> None:
    with pytest.raises(UnsupportedMediaType, match="Content-Type: application/json"):
        check_media_type(content_type, JSON_TYPE)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"NaN", id="NaN"),
        pytest.param(b"-Infinity", id="infinity"),
        pytest.param(b"1e999", id="a number without end"),
        pytest.param(b'"\\ud800"', id="a lone surrogate"),
        pytest.param(b'"\\udc00\\ud800"', id="surrogates the wrong way round"),
        pytest.param(b"\xef\xbb\xbf{}", id="a byte order mark"),
        pytest.param('{"text": "x"}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b'"\xff"', id="no UTF-8"),
        pytest.param(b'"\xed\xa0\x80"', id="an encoded surrogate"),
        pytest.param(b"[" * 5000 + b"]" * 5000, id="nested 5,000 deep"),
        pytest.param(b'{"a": 1,}', id="a comma too many"),
        pytest.param(b"{'a': 1}", id="single quotes"),
        pytest.param(b'{"a": 1} {"b": 2}', id="two documents"),
        pytest.param(b'{"a": 1} // no', id="a comment"),
        pytest.param(b'"a\nb"', id="a bare line break"),
        pytest.param(b"01", id="a leading zero"),
    ],
)
def test_what_is_not_strict_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidSchema):
        parse_json(body)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b'{"a": 1}\n{"b": 2}', [b'{"a": 1}', b'{"b": 2}'], id="without a last line break"),
        pytest.param(b'\n {"a": 1} \n\n', [b' {"a": 1} '], id="with blank lines"),
        pytest.param(b'{"a": 1}\r\n{"b": 2}\r\n', [b'{"a": 1}\r', b'{"b": 2}\r'], id="with carriage returns"),
    ],
)
def test_lines_are_told_apart(body: bytes, expected: list[bytes]) -> None:
    assert split_ndjson(body) == expected
