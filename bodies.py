"""Request bodies: read within a size and a time, parsed strictly, before anything believes them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson

from errors import BodyTooLarge, InvalidSchema, SlowRequest, UnsupportedMediaType
from schemas import MAX_BULK_ITEMS

SINGLE_LIMIT_BYTES = 1024 * 1024
BULK_LIMIT_BYTES = 8 * 1024 * 1024
JSON_TYPE, NDJSON_TYPE = "application/json", "application/x-ndjson"
_DEADLINE_S = 15


async def read_body(chunks: AsyncIterator[bytes], *, announced_bytes: str | None, limit_bytes: int) -> bytes:
    """The whole body. Raises: BodyTooLarge past `limit_bytes`, announced or sent; SlowRequest after 15 s."""
    announced = announced_bytes or ""
    if announced.isascii() and announced.isdigit() and int(announced[:18]) > limit_bytes:
        raise _too_large(limit_bytes)
    try:
        async with asyncio.timeout(_DEADLINE_S):
            return await _gather(chunks, limit_bytes=limit_bytes)
    except TimeoutError:
        raise SlowRequest(f"The body did not arrive within {_DEADLINE_S} s; send it again.") from None


async def _gather(chunks: AsyncIterator[bytes], *, limit_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > limit_bytes:
            raise _too_large(limit_bytes)
    return bytes(body)


def check_media_type(content_type: str | None, *allowed: str) -> str:
    """The media type, one of `allowed`. Raises: UnsupportedMediaType with the remedy."""
    media_type, _, parameters = (content_type or "").partition(";")
    media_type = media_type.strip().lower()
    charset = parameters.lower().partition("charset=")[2].partition(";")[0].strip(' "')
    if media_type not in allowed or charset not in {"", "utf-8", "utf8"}:
        raise UnsupportedMediaType(
            f"Send the header `Content-Type: {allowed[0]}` and UTF-8; with curl: -H 'Content-Type: {allowed[0]}'."
        )
    return media_type


def parse_json(body: bytes) -> Any:
    """Any JSON value. Raises: InvalidSchema for what is not strict JSON (NaN, lone surrogates, depth over 1,000)."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidSchema(
            "The body is not valid JSON in UTF-8 (NaN, Infinity and lone surrogates are not JSON either)."
        ) from None


def split_ndjson(body: bytes) -> list[bytes]:
    """The lines that hold something. Raises: InvalidSchema for none or for more than 500."""
    lines = [line for line in body.split(b"\n") if line.strip()]
    if not 1 <= len(lines) <= MAX_BULK_ITEMS:
        raise InvalidSchema(f"Send 1 to {MAX_BULK_ITEMS} conversations, one JSON object a line.")
    return lines


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body may have at most {limit_bytes // 1024 // 1024} MB; send less at a time.")
