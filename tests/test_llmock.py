"""An independent judge, LLMock, plays xAI and finds no fault with how the client and the service take failures."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from llmock.journal import RequestRecord, fingerprint
from llmock.ratelimit import LimitSettings
from llmock.scenarios import Delay, Fail, Match, Plan, Reply
from llmock.testing import LLMockServer
from llmock.verdict import Verdict, judge
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

import main
from errors import (
    GrokAuth,
    GrokConfig,
    GrokError,
    GrokOutage,
    GrokReplyInvalid,
    GrokRequestRejected,
    GrokTooLarge,
)
from grok_client import CallTemplate, GrokClient, PackAnswer
from prompts import Prompt
from schemas import Analysis
from settings import Settings
from tests.fake_xai_answers import Json, derived, items_of
from tests.harness import make_settings, running_app

pytestmark = [pytest.mark.integration, pytest.mark.slow]

JSON = {"content-type": "application/json"}
CHAT = Match(path="*/chat/completions")
FORBIDDEN = {"retry_storm", "retry_after_ignored", "retried_non_retryable", "no_backoff"}
TEXTS = ("My parcel is three weeks late.", "The app crashes on login.")
QUICK: Json = {"grok_pack_size": 1, "canary_share": 0, "poll_interval_seconds": 0.05}


class AnswersAsAsked:
    """Within LLMock: it answers by the schema alone, and knows no ids; this says of each item what `derived` says."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state: dict[str, Any] = scope.get("state", {})
        plan, payload = state.get("llmock_plan", Plan()), state.get("llmock_body")
        if payload and plan.reply is None:
            results = [{"id": item["id"], **derived(item["text"])} for item in items_of(payload)]
            state["llmock_plan"] = replace(plan, reply=Reply(text=json.dumps({"results": results})))
        await self._app(scope, receive, send)


class Judge:
    """LLMock in a thread of this process, and what it makes of the calls it saw."""

    def __init__(self, server: LLMockServer) -> None:
        self._server = server

    @property
    def settings(self) -> Json:
        return {"grok_mode": "real", "grok_key": "test-key", "grok_base_url": self._server.base_url("xai")}

    def script(self, *behaviors: Fail | Delay | Reply) -> None:
        self._server.state.scenarios.add(*(replace(one, match=CHAT) for one in behaviors))

    def limit(self, *, requests_per_minute: int) -> None:
        self._server.state.limiter.configure(LimitSettings(rpm=requests_per_minute))

    def calls(self) -> list[RequestRecord]:
        """To chat completions, in order of arrival; a call is the same when it differs in ids and nonce alone."""
        records = self._server.state.journal.records(wait=5)
        return [
            replace(record, fingerprint=fingerprint(record.method, record.path, _asked(record.body)))
            for record in records
            if record.path.endswith("/chat/completions")
        ]

    def verdict(self) -> Verdict:
        return judge(self.calls())

    def complaints(self) -> set[str]:
        return {finding.code for finding in self.verdict().findings} & FORBIDDEN


def _asked(payload: Json) -> Json:
    system, user = payload["messages"]
    texts = [item["text"] for item in orjson.loads(user["content"])["items"]]
    return {**payload, "messages": [system, texts]}


@pytest.fixture
def xai() -> Generator[Judge]:
    chance = random.getstate()
    random.seed(1)  # waits of 1 to 2 s and of 2 to 4 s may be nearly alike by chance, which looks like no backoff
    server = LLMockServer()
    server.app.user_middleware.append(Middleware(AnswersAsAsked))
    with server:
        yield Judge(server)
    random.setstate(chance)


@asynccontextmanager
async def real_client(folder: Path, xai: Judge, **values: object) -> AsyncGenerator[GrokClient]:
    """The client as the service builds it, with its account in a database."""
    settings: Settings = make_settings(folder, **xai.settings, **values)
    parts = main.Parts.of(settings)
    await parts.database.open()
    async with main.build_http(settings, parts) as http:
        yield main.build_client(settings, parts, http)
    await parts.database.close()


async def ask_until_answered(client: GrokClient, texts: Sequence[str] = TEXTS) -> PackAnswer:
    """As the processor does: while the lane is closed, nobody asks."""
    while True:
        await asyncio.sleep(client.wait_s())
        try:
            return await client.analyze(texts)
        except GrokOutage:
            assert client.wait_s() > 0


async def test_the_judge_sees_through_new_ids_and_nonces(xai: Judge) -> None:
    xai.script(Fail(429, retry_after=1), Fail(400), Fail(500, times=10))
    template = CallTemplate("grok-4.3", Prompt({"other": "the rest"}), effort="none")

    async with httpx2.AsyncClient(base_url=xai.settings["grok_base_url"], trust_env=False) as impatient:
        for number in range(12):
            request = template.fill({100_000 + number: TEXTS[0]}, nonce=f"nonce {number}", effort="none")
            await impatient.post("/chat/completions", content=request.encode(), headers=JSON)

    assert xai.complaints() == {"retry_after_ignored", "retried_non_retryable", "retry_storm", "no_backoff"}


@pytest.mark.parametrize(
    ("faults", "attempts"),
    [
        pytest.param([Fail(429, retry_after=1)], 2, id="a rate limit with the wait it asks for"),
        pytest.param([Fail(500)], 2, id="an internal error, without a word about waiting"),
        pytest.param([Fail(503, retry_after=0.4), Fail(503, retry_after=1)], 3, id="unavailable twice, with waits"),
        pytest.param([Delay(1.6)], 2, id="no answer within the deadline"),
    ],
)
async def test_what_passes_is_tried_again_with_patience(
    xai: Judge, tmp_path: Path, faults: list[Fail | Delay], attempts: int
) -> None:
    xai.script(*faults)

    async with real_client(tmp_path, xai, grok_timeout_seconds=1) as client:
        answer = await ask_until_answered(client)

    assert all(isinstance(result, Analysis) for result in answer.results)
    assert (len(xai.calls()), xai.verdict().findings) == (attempts, ())


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param(Fail(400), GrokRequestRejected, id="a bad request"),
        pytest.param(Fail(401), GrokAuth, id="a wrong key"),
        pytest.param(Fail(403), GrokAuth, id="a forbidden one"),
        pytest.param(Fail(404), GrokConfig, id="nothing there"),
        pytest.param(Fail(422), GrokRequestRejected, id="a request that cannot be processed"),
        pytest.param(Fail(400, message="maximum context length is 8 tokens"), GrokTooLarge, id="too much text"),
    ],
)
async def test_what_cannot_get_better_is_asked_once(
    xai: Judge, tmp_path: Path, fault: Fail, error: type[GrokError]
) -> None:
    xai.script(fault)

    async with real_client(tmp_path, xai) as client:
        with pytest.raises(error):
            await client.analyze(TEXTS)

    assert (len(xai.calls()), xai.verdict().findings) == (1, ())


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("I think that both are unhappy.", id="prose"),
        pytest.param('{"results": [{"id": 1', id="half of it"),
        pytest.param('{"results": []}', id="nothing of what was asked"),
    ],
)
async def test_an_answer_that_cannot_be_used_is_not_asked_for_in_the_same_breath(
    xai: Judge, tmp_path: Path, content: str
) -> None:
    xai.script(Reply(text=content))

    async with real_client(tmp_path, xai) as client:
        results = await _results_or_error(client)

    assert {type(result) for result in results} == {GrokReplyInvalid}
    assert (len(xai.calls()), xai.verdict().findings) == (1, ())


async def test_the_service_comes_through_a_storm_of_errors(xai: Judge, tmp_path: Path) -> None:
    xai.script(
        *(Fail(429, retry_after=1), Fail(500), Reply(text="no JSON"), Fail(503, retry_after=1), Fail(502)),
        *(Reply(text='{"results": []}'), Fail(429, retry_after=0.5), Fail(500)),
    )

    counts = await _serve(tmp_path, xai, rows=12, until=lambda counts: counts["completed"] == 12)

    assert (counts["failed"], Counter(call.status for call in xai.calls())) == (
        0,
        {200: 12 + 2, 429: 2, 500: 2, 502: 1, 503: 1},
    )
    assert xai.complaints() == set()


async def test_an_outage_is_waited_out_and_not_hammered(xai: Judge, tmp_path: Path) -> None:
    xai.script(Fail(500, times=7))
    quick_breaker = {"error_threshold": 3, "circuit_breaker_cooldown_seconds": 0.5}

    counts = await _serve(tmp_path, xai, rows=8, until=lambda counts: counts["completed"] == 8, **quick_breaker)

    assert (counts["failed"], len(xai.calls())) == (0, 8 + 7)
    assert xai.complaints() == set()


async def test_a_quota_below_our_own_limit_is_kept_to(xai: Judge, tmp_path: Path) -> None:
    xai.limit(requests_per_minute=60)

    counts = await _serve(
        tmp_path, xai, rows=62, until=lambda counts: counts["completed"] == 62, grok_calls_per_second=200
    )

    assert (counts["failed"], {call.status for call in xai.calls()}) == (0, {200, 429})
    assert xai.complaints() == set()


async def test_a_refused_key_stops_the_service_from_asking(xai: Judge, tmp_path: Path) -> None:
    xai.script(Fail(401, times=None))

    counts = await _serve(
        tmp_path,
        xai,
        rows=20,
        until=lambda counts: bool(xai.calls()) and not counts["processing"],
        grok_max_concurrency=2,
    )

    assert counts["pending"] == 20
    assert len(xai.calls()) <= 2
    assert xai.complaints() == set()


async def _results_or_error(client: GrokClient) -> Sequence[object]:
    try:
        return (await client.analyze(TEXTS)).results
    except GrokReplyInvalid as error:
        return [error]


async def _serve(
    folder: Path, xai: Judge, *, rows: int, until: Callable[[dict[str, int]], bool], **values: float
) -> dict[str, int]:
    """The whole service with so many conversations; how many there are of each status in the end."""
    settings: Json = {**QUICK, **xai.settings, **values}
    async with running_app(folder, **settings) as client, asyncio.timeout(20):
        items = [{"text": f"{TEXTS[0]} Order {number}."} for number in range(rows)]
        await client.post("/api/v1/conversations/bulk", json={"conversations": items})
        while True:
            counts = await _counts(client)
            if until(counts):
                return counts
            await asyncio.sleep(0.05)


async def _counts(client: httpx2.AsyncClient) -> dict[str, int]:
    counts: dict[str, int] = (await client.get("/status/summary")).json()["queue"]["counts"]
    return counts
