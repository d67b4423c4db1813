"""What every request passes before it reaches a route: request id, access log and metrics, then the API's gate.

Plain ASGI callables: one built on Starlette's `BaseHTTPMiddleware` costs more than the rest of the stack together.
"""

import asyncio
import hashlib
import ipaddress
import itertools
import math
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from functools import lru_cache
from typing import Any

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

log = get_logger()

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_GUARDED = ("/api/", "/status/")
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
            log.info("request", method=scope["method"], route=route, status=status, latency_ms=round(seconds * 1000, 2))
            method = scope["method"] if scope["method"] in _METHODS else "other"
            timed_s = None if route == _STREAM else seconds
            self._metrics.count_request(method=method, route=route, status=status, seconds=timed_s)
            request_id.reset(token)


class ApiGate:
    """Only for /api and /status: who asks (key, else address), and whether the inbound limit lets them pass."""

    def __init__(
        self, app: ASGIApp, *, limiter: FairLimiter, api_keys: Iterable[str], trusted_proxies: Sequence[Network]
    ) -> None:
        self._app = app
        self._limiter = limiter
        self._key_hashes = [_hash(key) for key in api_keys]
        self._trusted_proxies = trusted_proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(_GUARDED) or scope["method"] == "OPTIONS":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        key = self._known_key(headers)
        client = key or client_address(scope, headers, self._trusted_proxies)
        if (error := self._refusal(client, known=key is not None)) is not None:
            await send_error(error, send)
            return
        scope.setdefault("state", {})["client"] = client
        await self._app(scope, receive, send)

    def _refusal(self, client: str, *, known: bool) -> InsightsError | None:
        """The limit comes first: guessing keys is limited too."""
        if (wait_s := self._limiter.admit(client)) > 0:
            return RateLimitExceeded(
                "Too many requests; send this one again after the wait.", retry_after_s=max(1, math.ceil(wait_s))
            )
        if self._key_hashes and not known:
            return Unauthorized("Send your API key as `Authorization: Bearer KEY` or `X-API-Key: KEY`.")
        return None

    def _known_key(self, headers: dict[bytes, bytes]) -> str | None:
        """The hash of the key that was sent, if it is one of ours."""
        if not self._key_hashes:
            return None
        bearer = headers.get(b"authorization", b"")
        key = headers.get(b"x-api-key") or (bearer[7:] if bearer[:7].lower() == b"bearer " else b"")
        digest = _hash(key.decode("latin-1"))
        return digest if any(secrets.compare_digest(digest, known) for known in self._key_hashes) else None


def client_address(scope: Scope, headers: dict[bytes, bytes], trusted_proxies: Sequence[Network]) -> str:
    """The peer, or behind trusted proxies the right-most hop that is none of them; IPv6 by its /64.

    Forwarded headers of anyone else are ignored: a client could write what it likes.
    """
    peer = scope["client"][0] if scope.get("client") else "unknown"
    if trusted_proxies:
        forwarded = headers.get(b"x-forwarded-for", b"").decode("latin-1").split(",")
        hops = [hop.strip() for hop in forwarded if hop.strip()]
        while hops and _is_trusted(peer, trusted_proxies):
            peer = hops.pop()
    return _normalise(peer)


@lru_cache(maxsize=4096)
def _normalise(peer: str) -> str:
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return "unknown"
    return str(address) if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))


async def send_error(error: InsightsError, send: Send) -> None:
    body, extra = to_body(error)
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in extra.items()]
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _is_trusted(peer: str, trusted_proxies: Sequence[Network]) -> bool:
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    return any(address in network for network in trusted_proxies)


def _read_request_id(scope: Scope) -> str:
    sent = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return sent.decode() if _REQUEST_ID.fullmatch(sent) else f"{_PROCESS}-{next(_COUNTER):x}"


def _route_of(scope: Scope) -> str:
    """The template, never the path: a path is what the client wrote."""
    return getattr(scope.get("route"), "path", "unmatched")


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
