"""Who a client is, and what every request passes."""

import ipaddress
from types import SimpleNamespace
from typing import Any

import pytest

from errors import InvalidSchema
from middleware import Message, RequestLog, Scope, client_address, send_error
from telemetry import Metrics

pytestmark = pytest.mark.unit

PROXIES = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]


def address(peer: str | None, forwarded: str = "") -> str:
    headers = [(b"x-forwarded-for", line.encode("latin-1")) for line in forwarded.split("\n") if line]
    scope: Scope = {"client": (peer, 1) if peer is not None else None, "headers": headers}
    return client_address(scope, PROXIES)


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        pytest.param("203.0.113.9", "", "203.0.113.9", id="a peer is itself"),
        pytest.param("203.0.113.9", "198.51.100.1", "203.0.113.9", id="a stranger may say what it likes"),
        pytest.param("10.1.1.1", "198.51.100.1", "198.51.100.1", id="a proxy is believed"),
        pytest.param("10.1.1.1", "1.2.3.4, 198.51.100.1", "198.51.100.1", id="only the last hop is"),
        pytest.param("10.1.1.1", "1.2.3.4, 198.51.100.1, 10.2.2.2", "198.51.100.1", id="through two proxies"),
        pytest.param("10.1.1.1", "", "10.1.1.1", id="a proxy that says nothing is itself"),
        pytest.param("10.1.1.1", "10.9.9.9", "10.9.9.9", id="proxies alone are the first of them"),
        pytest.param("10.1.1.1", "<script>", "unknown", id="a hop that is no address"),
        pytest.param("10.1.1.1", " , ,", "10.1.1.1", id="hops that are blank"),
        pytest.param("2001:db8::1", "", "2001:db8::/64", id="version 6 by its network"),
        pytest.param("2001:db8::ffff", "", "2001:db8::/64", id="another address of that network"),
        pytest.param("fd00::1", "2001:db8:0:1::7", "2001:db8:0:1::/64", id="a proxy of version 6"),
        pytest.param("10.1.1.1", "1.2.3.4\n198.51.100.1", "198.51.100.1", id="a header line for each hop"),
        pytest.param("10.1.1.1", "198.51.100.1\n10.2.2.2, 10.3.3.3", "198.51.100.1", id="lines and lists mixed"),
        pytest.param("10.1.1.1", "198.51.100.1:4711", "198.51.100.1", id="a hop with its port"),
        pytest.param("10.1.1.1", "[2001:db8::7]:443", "2001:db8::/64", id="version 6 with a port"),
        pytest.param("10.1.1.1", "198.51.100.1, 10.2.2.2:80", "198.51.100.1", id="a proxy with its port"),
        pytest.param("::ffff:203.0.113.9", "", "203.0.113.9", id="version 4 in the clothes of 6"),
        pytest.param("::ffff:10.1.1.1", "198.51.100.1", "198.51.100.1", id="a proxy in the clothes of 6"),
        pytest.param("10.1.1.1", "::ffff:198.51.100.1", "198.51.100.1", id="a hop in the clothes of 6"),
        pytest.param("10.1.1.1", "1.2.3.4, unknown", "unknown", id="a hop that hides ends the search"),
        pytest.param("10.1.1.1", "1.2.3.4, 10.9.9.9" + "9" * 70_000, "unknown", id="a hop of 70 KB"),
        pytest.param("10.1.1.1", "1.2.3.4," + "10.9.9.9," * 5000, "10.9.9.9", id="more hops than are looked at"),
        pytest.param("fe80::1%eth0", "", "fe80::/64", id="a link's own address"),
        pytest.param(None, "", "unknown", id="no peer"),
        pytest.param("/run/socket", "", "unknown", id="a socket file"),
    ],
)
def test_a_client_is_the_peer_or_what_a_trusted_proxy_says(peer: str | None, forwarded: str, expected: str) -> None:
    assert address(peer, forwarded) == expected


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


async def run(app: Any, scope: Scope, *, metrics: Metrics | None = None) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    await RequestLog(app, metrics=metrics or Metrics())(scope, receive, send)
    return sent


HTTP: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}


async def test_what_nobody_caught_becomes_a_500() -> None:
    async def broken(_scope: Scope, _receive: Any, _send: Any) -> None:
        raise RuntimeError("a bug of ours")

    start, body = await run(broken, HTTP)

    assert start["status"] == 500
    assert b"a bug of ours" not in body["body"]


async def test_an_answer_already_begun_is_broken_off() -> None:
    async def broken(_scope: Scope, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("a bug of ours")

    with pytest.raises(RuntimeError):
        await run(broken, HTTP)


async def test_what_is_not_http_passes_untouched() -> None:
    seen: list[str] = []

    async def app(scope: Scope, _receive: Any, _send: Any) -> None:
        seen.append(scope["type"])

    await run(app, {"type": "lifespan"})

    assert seen == ["lifespan"]


async def test_a_request_id_with_a_line_break_never_comes_back() -> None:
    async def app(_scope: Scope, _receive: Any, send: Any) -> None:
        await send_error(InvalidSchema("no"), send)

    [start, _] = await run(app, {**HTTP, "headers": [(b"x-request-id", b"a\r\nset-cookie: x")]})

    values = [value for name, value in start["headers"] if name == b"x-request-id"]
    assert len(values) == 1
    assert b"\r" not in values[0]


async def refuse(_scope: Scope, _receive: Any, send: Any) -> None:
    await send_error(InvalidSchema("no"), send)


def requests_counted(metrics: Metrics) -> list[str]:
    lines = metrics.render().decode().splitlines()
    return [line.removeprefix("insights_requests_total") for line in lines if line.startswith(REQUESTS)]


REQUESTS = "insights_requests_total{"


async def test_every_request_is_counted_by_its_route(metrics: Metrics) -> None:
    route = SimpleNamespace(path="/api/v1/conversations/{conversation_id}")

    for one in ("conv_1", "conv_2"):
        await run(refuse, {**HTTP, "path": f"/api/v1/conversations/{one}", "route": route}, metrics=metrics)

    assert requests_counted(metrics) == [
        '{method="GET",route="/api/v1/conversations/{conversation_id}",status="400"} 2.0'
    ]


@pytest.mark.parametrize(
    ("method", "label"), [("GET", "GET"), ("HEAD", "HEAD"), ("BREW", "other"), ("get", "other"), ("X" * 999, "other")]
)
async def test_a_method_that_nobody_knows_is_counted_as_one_of_many(metrics: Metrics, method: str, label: str) -> None:
    await run(refuse, {**HTTP, "method": method, "path": "/nothing"}, metrics=metrics)

    assert requests_counted(metrics) == [f'{{method="{label}",route="unmatched",status="400"}} 1.0']


async def test_what_nobody_caught_is_counted_too(metrics: Metrics) -> None:
    async def broken(_scope: Scope, _receive: Any, _send: Any) -> None:
        raise RuntimeError("a bug of ours")

    await run(broken, HTTP, metrics=metrics)

    assert requests_counted(metrics) == ['{method="GET",route="unmatched",status="500"} 1.0']
