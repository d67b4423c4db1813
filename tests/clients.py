"""The Grok client over any transport and on a clock turned by hand, and an account that keeps what it was told."""

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Self

import httpx2

from circuit_breaker import CircuitBreaker
from grok_client import Account, CallLimits, CallTemplate, Cost, GrokClient, PlannedCall
from lane import Lane
from prompts import Prompt
from rate_limiter import CallWindow
from telemetry import Metrics
from tests.fake_xai_answers import GOOD_KEY
from tests.harness import HandClock

PROMPT = Prompt({"delivery_problems": "Late or lost.", "other": "Anything else."})


@dataclass
class NotedAccount:
    """Grants every call; `costs` has what each was settled with, None while it is open."""

    planned: list[PlannedCall] = field(default_factory=list[PlannedCall])
    costs: list[Cost | None] = field(default_factory=list[Cost | None])

    async def reserve(self, call: PlannedCall) -> int:
        self.planned.append(call)
        self.costs.append(None)
        return len(self.costs) - 1

    async def settle(self, number: int, call: PlannedCall, cost: Cost) -> None:
        assert self.costs[number] is None, "a call is settled once"
        assert self.planned[number] == call
        self.costs[number] = cost


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a test's client goes by."""

    model: str = "grok-4.3"
    effort: str | None = "none"
    prompt: Prompt = PROMPT
    calls_per_s: int = 1000
    max_concurrency: int = 10
    deadline_s: float = 5
    threshold: int = 5


def open_http(
    transport: httpx2.AsyncBaseTransport | None = None,
    *,
    url: str = "http://127.0.0.1/v1",
    key: str = GOOD_KEY,
) -> httpx2.AsyncClient:
    """Over a socket unless another transport is named."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx2.AsyncClient(base_url=f"{url}/", headers=headers, transport=transport, timeout=10, trust_env=False)


def make_grok_client(
    http: httpx2.AsyncClient,
    clock: HandClock,
    *,
    terms: Terms | None = None,
    account: Account | None = None,
    metrics: Metrics | None = None,
) -> GrokClient:
    terms = terms or Terms()
    limits = CallLimits(terms.max_concurrency, terms.deadline_s, monotonic=clock.monotonic, sleep=clock.sleep)
    window = CallWindow(terms.calls_per_s, window_s=1, monotonic=clock.monotonic)
    breaker = CircuitBreaker(threshold=terms.threshold, cooldown_s=10, monotonic=clock.monotonic)
    return GrokClient(
        http,
        template=CallTemplate(terms.model, terms.prompt, terms.effort),
        lane=Lane(window, breaker, monotonic=limits.monotonic, sleep=limits.sleep),
        account=account or NotedAccount(),
        limits=limits,
        metrics=metrics or Metrics(),
    )


class ClientMaker:
    """Makes clients that share a clock, an account and metrics; closes their connections at the end."""

    def __init__(self, clock: HandClock) -> None:
        self.account = NotedAccount()
        self.metrics = Metrics()
        self._clock = clock
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._opened.aclose()

    def __call__(self, transport: httpx2.AsyncBaseTransport, **terms: Any) -> GrokClient:
        http = open_http(transport)
        self._opened.push_async_callback(http.aclose)
        return make_grok_client(http, self._clock, terms=Terms(**terms), account=self.account, metrics=self.metrics)
