"""What every request passes before it reaches a route: request id, access log and metrics, then the API's gate.

Plain ASGI callables: one built on Starlette's `BaseHTTPMiddleware` costs more than the rest of the stack together.
"""

import asyncio
import ipaddress
import itertools
import math
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from functools import lru_cache, partial
from typing import Any

from access import Caller, KeyRing
from errors import Draining, InsightsError, RateLimitExceeded, Unauthorized
from problems import MEDIA_TYPE, internal_error, to_body
from rate_limiter import FairLimiter
from telemetry import Metrics, get_logger, request_id

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

log = get_logger()

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_GUARDED = ("/api/", "/status/")
_MOST_HOPS = 20  # of the nearest proxies; what stands before them is what a client wrote
_LONGEST_ADDRESS = 64  # with brackets, zone and port
_STREAM = "/api/v1/events"  # open for hours: in the latency histogram it would hide every other request's
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # what else is sent is one label
_PROCESS, _COUNTER = secrets.token_hex(6), itertools.count(1)  # unique without a system call for each request


class RequestLog:
    """Gives every request an id, answers it back, logs and counts it, and turns what nobody caught into a 500."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        current = _read_request_id(scope)
        token = request_id.set(current)
        started, status = time.perf_counter(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", current.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            log.exception("request_failed", route=_route_of(scope))
            if status:  # the answer has begun: all that is left is to break it off
                raise
            await send_error(internal_error(), send_with_id)
        except asyncio.CancelledError:  # the service stops while the request is under way
            if not status:
                await send_error(Draining(), send_with_id)
            raise
        finally:
            seconds, route = time.perf_counter() - started, _route_of(scope)
            told = {"method": scope["method"], "route": route, "status": status, **_key_named(scope)}
            log.info("request", **told, latency_ms=round(seconds * 1000, 2))
            method = scope["method"] if scope["method"] in _METHODS else "other"
            timed_s = None if route == _STREAM else seconds
            self._metrics.count_request(method=method, route=route, status=status, seconds=timed_s)
            request_id.reset(token)


class ApiGate:
    """Only for /api and /status: who asks (key, else address), and whether the inbound limit lets them pass.

    What a known key opens is checked where the route is known (`routes.permissions`).
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limiter: FairLimiter,
        strangers: FairLimiter,
        keys: KeyRing,
        trusted_proxies: Sequence[Network],
    ) -> None:
        """`strangers`: the limit of those without a key where keys are asked for, so that they take nobody's place."""
        self._app = app
        self._limiter = limiter
        self._strangers = strangers if keys.asks else limiter
        self._keys = keys
        self._trusted_proxies = trusted_proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(_GUARDED) or scope["method"] == "OPTIONS":
            await self._app(scope, receive, send)
            return
        caller = self._known_caller(scope)
        client = caller.client if caller else client_address(scope, self._trusted_proxies)
        if (error := self._refusal(client, known=caller is not None)) is not None:
            await send_error(error, send)
            return
        scope.setdefault("state", {})["caller"] = caller or Caller(client)
        await self._app(scope, receive, send)

    def _refusal(self, client: str, *, known: bool) -> InsightsError | None:
        """The limit comes first: guessing keys is limited too."""
        if (wait_s := (self._limiter if known else self._strangers).admit(client)) > 0:
            return RateLimitExceeded(
                "Too many requests; send this one again after the wait.", retry_after_s=max(1, math.ceil(wait_s))
            )
        if self._keys.asks and not known:
            return Unauthorized("Send your API key as `Authorization: Bearer KEY` or `X-API-Key: KEY`.")
        return None

    def _known_caller(self, scope: Scope) -> Caller | None:
        """Who sent a key of ours."""
        if not self._keys.asks or (key := self._keys.find(_key_in(scope))) is None:
            return None
        return Caller(f"key {key.name}", key.scopes, key.name, partial(self._keys.holds, key))


def client_address(scope: Scope, trusted_proxies: Sequence[Network]) -> str:
    """The peer, or behind trusted proxies the right-most hop that is none of them; IPv6 by its /64.

    Forwarded headers of anyone else are ignored: a client could write what it likes.
    """
    peer = _read_address(scope["client"][0]) if scope.get("client") else None
    hops = _hops_in(scope) if trusted_proxies else []
    while hops and peer is not None and any(peer in network for network in trusted_proxies):
        peer = _read_address(hops.pop())
    return "unknown" if peer is None else _name_of(peer)


def _values_of(scope: Scope, wanted: bytes) -> list[bytes]:
    return [value for name, value in scope["headers"] if name == wanted]


def _key_in(scope: Scope) -> bytes:
    """Of a header that came twice, nothing: proxies on the way would not agree with us on which one counts."""
    keys, credentials = _values_of(scope, b"x-api-key"), _values_of(scope, b"authorization")
    if len(keys) > 1 or len(credentials) > 1:
        return b""
    if keys and keys[0]:
        return keys[0]
    return credentials[0][7:] if credentials and credentials[0][:7].lower() == b"bearer " else b""


def _hops_in(scope: Scope) -> list[str]:
    """The nearest last. Some proxies add to the header's line, some add a line: they mean the same (RFC 9110, 5.3)."""
    lines = b",".join(_values_of(scope, b"x-forwarded-for")).decode("latin-1")
    hops = [hop.strip() for hop in lines.rsplit(",", _MOST_HOPS)[-_MOST_HOPS:]]
    return [hop for hop in hops if hop]


def _read_address(text: str) -> Address | None:
    return _parse_address(text) if len(text) <= _LONGEST_ADDRESS else None  # so that what is kept stays small


@lru_cache(maxsize=4096)
def _parse_address(text: str) -> Address | None:
    """Some proxies add the port; a socket that listens on both versions gives IPv4 peers as `::ffff:1.2.3.4`."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


@lru_cache(maxsize=4096)
def _name_of(address: Address) -> str:
    return str(address) if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))


async def send_error(error: InsightsError, send: Send) -> None:
    body, extra = to_body(error)
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in extra.items()]
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _read_request_id(scope: Scope) -> str:
    sent = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return sent.decode() if _REQUEST_ID.fullmatch(sent) else f"{_PROCESS}-{next(_COUNTER):x}"


def _route_of(scope: Scope) -> str:
    """The template, never the path: a path is what the client wrote."""
    return getattr(scope.get("route"), "path", "unmatched")


def _key_named(scope: Scope) -> dict[str, str]:
    """Whose key it was, so that the log tells who erased what; an address is personal and stays out."""
    caller = scope.get("state", {}).get("caller")
    return {} if caller is None or caller.key_name is None else {"key": caller.key_name}
