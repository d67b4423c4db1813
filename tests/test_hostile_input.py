"""A corpus of hostile requests, kept by hand: each is refused in our envelope, or stored and readable for ever.

A refusal never repeats what was sent: every entry that can carries a canary.
"""

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from tests.harness import Json, Service, running_app, wait_until
from tests.hostile_requests import (
    BODIES,
    BULK,
    BULK_BODIES,
    CANARY,
    HEADERS,
    IDS,
    INSIGHTS,
    JSON,
    LINES,
    MEGABYTE,
    ONE,
    QUERIES,
    latin,
    text_with,
)

pytestmark = pytest.mark.integration

REFUSED = range(400, 500)


@dataclass
class Acknowledged:
    """What the service has said it stored."""

    ids: list[str] = field(default_factory=list[str])

    def note(self, answer: httpx2.Response) -> None:
        body = answer.json()
        if "conversation_id" in body:
            self.ids.append(body["conversation_id"])
        for item in body.get("results", []):
            if item["status"] == "accepted":
                self.ids.append(item["conversation_id"])


@pytest.fixture(scope="module")
def acknowledged() -> Acknowledged:
    return Acknowledged()


def assert_refused(answer: httpx2.Response) -> None:
    body = answer.json()
    assert answer.status_code in REFUSED
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["error"]
    assert body["detail"] == body["details"]
    assert CANARY not in answer.text
    assert CANARY not in str(answer.headers)


@pytest.mark.parametrize(("body", "fates", "headers"), BODIES)
def test_a_hostile_body_is_refused_or_stored(
    client: httpx2.Client, acknowledged: Acknowledged, body: bytes, fates: set[str], headers: dict[str, str]
) -> None:
    answer = client.post(ONE, content=body, headers=headers)

    if answer.status_code == 202:
        acknowledged.note(answer)
    else:
        assert_refused(answer)
    assert ("stored" if answer.status_code == 202 else "refused") in fates


@pytest.mark.parametrize(
    ("body", "fates", "headers"),
    [one for one in BODIES if one.values[2] == JSON and len(one.values[0]) < MEGABYTE],
)
def test_a_hostile_item_never_stops_its_neighbours(
    client: httpx2.Client, acknowledged: Acknowledged, body: bytes, fates: set[str], headers: dict[str, str]
) -> None:
    item = body.replace(b"\n", b" ").replace(b"\r", b" ")

    answer = client.post(BULK, content=b'{"text": "one late"}\n' + item + b'\n{"text": "last late"}', headers=LINES)

    acknowledged.note(answer)
    assert answer.status_code == 202
    assert [answer.json()["results"][place]["status"] for place in (0, -1)] == ["accepted", "accepted"]
    assert CANARY not in answer.text


@pytest.mark.parametrize(("body", "fates", "headers"), BULK_BODIES)
def test_a_hostile_bulk_body_is_refused_or_stored(
    client: httpx2.Client, acknowledged: Acknowledged, body: bytes, fates: set[str], headers: dict[str, str]
) -> None:
    answer = client.post(BULK, content=body, headers=headers)

    if answer.status_code == 202:
        acknowledged.note(answer)
    else:
        assert_refused(answer)
    assert ("stored" if answer.status_code == 202 else "refused") in fates


@pytest.mark.parametrize("url", [pytest.param(url, id=url[:70]) for url in QUERIES])
def test_a_hostile_query_is_refused(client: httpx2.Client, url: str) -> None:
    assert_refused(client.get(url))


@pytest.mark.parametrize(
    "query",
    [
        "author=%25", "author=_", "author=%27%20OR%201%3D1%20--", "author=a%22%20NEAR%20b", "author=%F0%9F%98%A1",
        "author=%ff",
        "author=%", "author=%zz", "author=a%0d%0ab", "topic=%27", "topic=*", "topic=a&topic=a", "limit=1&limit=2",
        "limit=2&limit=2",
        "start_time=2025-01-01T00:00:00+09:00", "start_time=2025-01-01T00:00:00%2B09:00", "start_time=0001-01-01",
        "end_time=9999-12-31",
        "start_time=2025-01-01&end_time=2025-01-01", "sentiment=neutral&min_confidence=1", "min_confidence=1e-400",
        "&&&", "=", "?",
    ],
)  # fmt: skip
def test_an_odd_query_is_answered(client: httpx2.Client, query: str) -> None:
    answer = client.get(f"{INSIGHTS}?{query}")

    if answer.status_code != 200:
        assert_refused(answer)


@pytest.mark.parametrize("path", IDS)
@pytest.mark.parametrize("suffix", ["", "/retry"])
def test_a_hostile_id_is_refused(client: httpx2.Client, path: str, suffix: str) -> None:
    answer = client.request("POST" if suffix else "GET", f"{ONE}/{path}{suffix}")

    assert_refused(answer)


@pytest.mark.parametrize("headers", HEADERS)
def test_hostile_headers_change_nothing(client: httpx2.Client, headers: dict[str, str]) -> None:
    answer = client.get(INSIGHTS, headers=latin(headers))

    assert answer.status_code == 200
    assert len(answer.headers["x-request-id"]) <= 64


@pytest.mark.parametrize("key", ["", "x" * 256, "\u00ff" * 256])
def test_a_hostile_idempotency_key_is_refused(client: httpx2.Client, key: str) -> None:
    assert_refused(client.post(ONE, content=text_with(), headers=latin({**JSON, "idempotency-key": key})))


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "PROPFIND"])
@pytest.mark.parametrize("path", [ONE, BULK, INSIGHTS, "/health"])
def test_a_method_nobody_serves_is_refused(client: httpx2.Client, method: str, path: str) -> None:
    answer = client.request(method, path, headers={"x-canary": CANARY})

    if method == "DELETE" and path in {ONE, BULK}:  # erasing lives there: without an author, and of no such id
        assert answer.status_code in {400, 404}
    else:
        assert answer.status_code == 405
    assert_refused(answer)


# Below HTTP: what no client library sends


def exchange(service: Service, *parts: bytes) -> bytes:
    """Send bytes as they are; what comes back until the other side closes or falls silent."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=2) as connection:
        for part in parts:
            connection.sendall(part)
        return b"".join(_receive(connection))


def _receive(connection: socket.socket) -> Iterator[bytes]:
    received = b""
    while not re.search(rb"\r\n\r\n.*[}.]\s*$", received, re.DOTALL):
        try:
            chunk = connection.recv(65_536)
        except (TimeoutError, ConnectionResetError):
            return
        if not chunk:
            return
        received += chunk
        yield chunk


def head(*lines: str) -> bytes:
    return "\r\n".join((f"POST {ONE} HTTP/1.1", "Host: x", *lines, "", "")).encode("latin-1")


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(b"GARBAGE canary4711\r\n\r\n", id="no HTTP at all"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100, id="the first bytes of TLS"),
        pytest.param(head("Content-Type: application/json", "Content-Length: abc") + b"{}", id="a length in letters"),
        pytest.param(head("Content-Type: application/json", "Content-Length: -1") + b"{}", id="a negative length"),
        pytest.param(head("Content-Length: 2", "Content-Length: 3") + b"{}", id="two lengths"),
        pytest.param(head("Transfer-Encoding: chunked") + b"zz\r\n{}\r\n0\r\n\r\n", id="a chunk size in letters"),
        pytest.param(head("X-A: a\rb"), id="a bare carriage return in a header"),
        pytest.param(head("X-A: a\x00b"), id="NUL in a header"),
        pytest.param(head("Content-Type: application/json", "Content-Length: 99999999999999999999") + b"{}",
             id="a length of 20 digits"),
        pytest.param(head("Content-Type: application/json", f"Content-Length: {300 * MEGABYTE}") + b"{}",
             id="a length of 300 MB"),
        pytest.param(head("Content-Type: application/json") + text_with(), id="no length"),
    ],
)  # fmt: skip
def test_bytes_that_are_no_request_are_refused(service: Service, client: httpx2.Client, request_bytes: bytes) -> None:
    answer = exchange(service, request_bytes)

    assert answer[:12] == b"" or re.match(rb"HTTP/1.1 4\d\d", answer)
    assert CANARY.encode() not in answer
    assert client.get("/health").json()["status"] == "ok"


def test_a_chunked_body_without_a_length_is_stored(service: Service) -> None:
    body = text_with()
    chunks = b"".join(b"%x\r\n%c\r\n" % (1, byte) for byte in body) + b"0\r\n\r\n"

    answer = exchange(service, head("Content-Type: application/json", "Transfer-Encoding: chunked") + chunks)

    assert answer.startswith(b"HTTP/1.1 202")


def test_an_endless_chunked_body_is_refused(service: Service) -> None:
    chunk = b"100000\r\n" + b" " * MEGABYTE + b"\r\n"
    request = head("Content-Type: application/json", "Transfer-Encoding: chunked")

    answer = exchange(service, request, chunk, chunk)

    assert answer.startswith(b"HTTP/1.1 413")


def test_a_client_that_hangs_up_is_harmless(service: Service, client: httpx2.Client) -> None:
    request = head("Content-Type: application/json", "Content-Length: 1000")
    for kept in (5, 40, len(request), len(request) + 3):
        for _ in range(25):
            with socket.create_connection(("127.0.0.1", service.port), timeout=2) as connection:
                connection.sendall((request + b'{"text": "')[:kept])

    assert client.get("/health").json()["status"] == "ok"
    assert client.post(ONE, content=b'{"text": "late"}', headers=JSON).status_code == 202


# Afterwards


def test_everything_acknowledged_is_readable_through_every_door(
    service: Service, client: httpx2.Client, acknowledged: Acknowledged
) -> None:
    wait_until(lambda: client.get("/health").json()["queue_size"] == 0, within_s=60)

    read = [client.get(f"{ONE}/{one}") for one in acknowledged.ids]

    assert len(acknowledged.ids) > 100
    assert {answer.status_code for answer in read} == {200}
    assert {answer.json()["status"] for answer in read} <= {"completed", "skipped"}


def test_every_page_that_returns_hostile_rows_can_be_read(client: httpx2.Client, acknowledged: Acknowledged) -> None:
    listed = {one["conversation_id"]: one for one in pages(client, ONE, "conversations")}
    insights = {one["conversation_id"]: one for one in pages(client, INSIGHTS, "insights")}

    assert set(acknowledged.ids) <= set(listed)
    assert set(insights) == {one["conversation_id"] for one in listed.values() if one["status"] == "completed"}


def pages(client: httpx2.Client, path: str, member: str) -> Iterator[Json]:
    cursor: str | None = None
    while True:
        answer = client.get(path, params={"limit": 7, **({"cursor": cursor} if cursor else {})})
        assert answer.status_code == 200, answer.text
        yield from answer.json()[member]
        cursor = answer.json()["metadata"]["next_cursor"]
        if cursor is None:
            return


def test_the_service_is_well_after_all_of_it(service: Service, client: httpx2.Client) -> None:
    assert client.get("/health").json()["status"] == "ok"
    assert client.get("/ready").status_code == 200
    assert service.query("PRAGMA integrity_check") == [("ok",)]


def test_the_log_tells_of_no_bug_and_repeats_no_input(service: Service) -> None:
    assert [line for line in service.log_lines() if line["level"] in {"error", "critical"}] == []
    assert CANARY not in service.log.read_text()


# The same on PostgreSQL


async def test_postgresql_refuses_and_stores_the_same(tmp_path: Path, postgresql_url: str) -> None:
    acknowledged = Acknowledged()
    async with running_app(tmp_path, database_url=postgresql_url) as client:
        for one in BODIES:
            body, fates, headers = one.values
            answer = await client.post(ONE, content=body, headers=headers)
            assert ("stored" if answer.status_code == 202 else "refused") in fates, one.id
            assert answer.status_code < 500, one.id
            if answer.status_code == 202:
                acknowledged.note(answer)
        read = [await client.get(f"{ONE}/{one}") for one in acknowledged.ids]
        listed = [await client.get(f"{path}?limit=1000") for path in (ONE, INSIGHTS)]

    assert {answer.status_code for answer in [*read, *listed]} == {200}


@pytest.mark.parametrize(
    "url", [f"{ONE}/conv_%00", f"{ONE}/%ed%a0%80", f"{INSIGHTS}?author=%ff", f"{INSIGHTS}?topic=%27"]
)
async def test_postgresql_is_not_asked_what_it_cannot_hold(tmp_path: Path, postgresql_url: str, url: str) -> None:
    async with running_app(tmp_path, database_url=postgresql_url) as client:
        answers = [
            await client.get(url),
            await client.post(url.replace("?", "/retry?") if "?" in url else f"{url}/retry"),
        ]

    assert all(answer.status_code < 500 for answer in answers)
