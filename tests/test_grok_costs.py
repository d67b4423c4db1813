"""What whoever pays is asked and told about every call, and what is counted of it."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import orjson
import pytest

from errors import GrokBudgetReached, GrokError, GrokLaneShut, GrokThrottled, Overloaded
from grok_client import Cost, GrokClient, PlannedCall
from prompts import Prompt
from telemetry import Metrics
from tests.clients import ClientMaker, NotedAccount, Terms, make_grok_client, open_http
from tests.fake_xai_faults import delay, fixture, say
from tests.harness import HandClock, ScriptedXai, break_off
from xai import SENDING, SENT, Usage

pytestmark = pytest.mark.unit

DOWN = say("<html>", status=502)


@pytest.fixture
async def make_client(clock: HandClock) -> AsyncGenerator[ClientMaker, None]:
    async with ClientMaker(clock) as maker:
        yield maker


async def fail(client: GrokClient) -> GrokError:
    with pytest.raises(GrokError) as caught:
        await client.analyze(["a text"])
    return caught.value


# What is told to whoever pays


async def test_a_call_is_settled_with_what_xai_says_it_used(make_client: ClientMaker) -> None:
    xai = ScriptedXai()

    await make_client(xai).analyze(["one"])

    [cost], [call] = make_client.account.costs, xai.fake.journal.chats
    assert isinstance(cost, Usage)
    assert (cost.prompt_tokens, cost.cost_in_usd_ticks) == (call.prompt_tokens, call.cost_ticks)


async def test_a_call_is_planned_as_large_as_it_may_become(make_client: ClientMaker) -> None:
    xai = ScriptedXai()

    await make_client(xai).analyze(["one", "two"])

    sent = len(orjson.dumps(xai.calls[0].payload))
    assert make_client.account.planned == [
        PlannedCall("grok-4.3", prompt_bytes=sent, output_tokens=480, conversations=2)
    ]


@pytest.mark.parametrize("effort", ["low", None])
async def test_a_call_that_may_reason_is_planned_with_room_for_it(make_client: ClientMaker, effort: str | None) -> None:
    await make_client(ScriptedXai(), effort=effort).analyze(["one"])

    assert make_client.account.planned[0].output_tokens == 320 + 4096 + 1024


@pytest.mark.parametrize(
    ("step", "cost"),
    [
        pytest.param("usage_null", "unknown", id="no word of its usage"),
        pytest.param(say(""), "unknown", id="nothing"),
        pytest.param(say({"choices": []}), "unknown", id="no completion"),
        pytest.param(break_off(httpx2.ReadError("reset")), "unknown", id="lost on its way back"),
        pytest.param(DOWN, "free", id="an error"),
        pytest.param(say({"code": "busy", "error": "Service temporarily unavailable."}), "free", id="one inside a 200"),
    ],
)
async def test_a_call_without_usage_is_settled_by_what_is_known(make_client: ClientMaker, step: Any, cost: str) -> None:
    await asyncio.gather(make_client(ScriptedXai(step)).analyze(["one"]), return_exceptions=True)

    assert make_client.account.costs[0] == cost


@pytest.mark.parametrize("step", ["refusal", "null_content", "finish_length", "truncated_json", "missing_id"])
async def test_an_answer_that_is_of_no_use_is_paid_for(make_client: ClientMaker, step: str) -> None:
    await asyncio.gather(make_client(ScriptedXai(step)).analyze(["one"]), return_exceptions=True)

    assert isinstance(make_client.account.costs[0], Usage)


async def test_reasoning_that_nobody_asked_for_is_paid_for(make_client: ClientMaker) -> None:
    await make_client(ScriptedXai("reasoning_tokens")).analyze(["one"])

    [cost] = make_client.account.costs
    assert isinstance(cost, Usage)
    assert (cost.reasoning_tokens, cost.cost_in_usd_ticks) == (500, None)


class BreaksOff(httpx2.AsyncBaseTransport):
    """Tells of these events, then fails."""

    def __init__(self, *told: str) -> None:
        self.told = told

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        for event in self.told:
            await request.extensions["trace"](event, {})
        raise httpx2.ConnectError("refused", request=request)


@pytest.mark.parametrize(
    ("told", "costs"),
    [
        pytest.param([], [], id="no connection, no entry"),
        pytest.param([SENDING], ["free"] * 3, id="not sent whole"),
        pytest.param([SENDING, SENT], ["unknown"] * 3, id="sent"),
    ],
)
async def test_a_call_is_entered_when_its_connection_stands_and_free_until_it_is_sent(
    make_client: ClientMaker, told: list[str], costs: list[Cost]
) -> None:
    await fail(make_client(BreaksOff(*told)))

    assert make_client.account.costs == costs


class Silent(httpx2.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, request=request, json={})


async def test_a_transport_that_passes_by_the_account_is_found_out(make_client: ClientMaker) -> None:
    with pytest.raises(AssertionError, match="account"):
        await make_client(Silent()).analyze(["one"])


class SlowAccount(NotedAccount):
    """Whatever it is asked takes until `go`."""

    def __init__(self, *slow: str) -> None:
        super().__init__()
        self.slow = slow
        self.go = asyncio.Event()

    async def reserve(self, call: PlannedCall) -> int:
        if "reserve" in self.slow:
            await self.go.wait()
        return await super().reserve(call)

    async def settle(self, number: int, call: PlannedCall, cost: Cost) -> None:
        if "settle" in self.slow:
            await self.go.wait()
        await super().settle(number, call, cost)


async def test_a_told_wait_holds_before_the_call_is_settled(clock: HandClock) -> None:
    xai, account = ScriptedXai(fixture("rate_limit", retry_after="30")), SlowAccount("settle")
    async with open_http(xai) as http:
        client = make_grok_client(http, clock, account=account)
        call = asyncio.create_task(client.analyze(["one"]))
        await asyncio.sleep(0.01)
        wait_s = client.wait_s()
        account.go.set()
        await asyncio.gather(call, return_exceptions=True)

    assert wait_s == 30
    assert account.costs == ["free"]


async def test_a_call_that_the_account_kept_waiting_does_not_go_within_a_told_wait(clock: HandClock) -> None:
    xai, account = ScriptedXai(), SlowAccount("reserve")
    async with open_http(xai) as http:
        client = make_grok_client(http, clock, account=account)
        call = asyncio.create_task(client.analyze(["one"]))
        await asyncio.sleep(0.01)
        client.lane.close(GrokThrottled("wait", retry_after_s=30))
        account.go.set()
        [error] = await asyncio.gather(call, return_exceptions=True)

    assert isinstance(error, GrokLaneShut)
    assert (xai.calls, account.costs) == ([], ["free"])


async def test_the_deadline_of_a_call_is_not_used_up_by_the_account(clock: HandClock) -> None:
    account = SlowAccount("reserve")
    async with open_http(ScriptedXai()) as http:
        client = make_grok_client(http, clock, account=account, terms=Terms(deadline_s=0.05))
        call = asyncio.create_task(client.analyze(["one"]))
        await asyncio.sleep(0.2)
        account.go.set()

        assert len((await call).results) == 1


async def test_a_call_cancelled_on_its_way_is_settled_all_the_same(make_client: ClientMaker) -> None:
    call = asyncio.create_task(make_client(ScriptedXai(latency_s=30)).analyze(["one"]))
    await asyncio.sleep(0.01)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)

    assert make_client.account.costs == ["unknown"]


async def test_a_call_that_takes_too_long_may_have_cost_all(make_client: ClientMaker) -> None:
    await fail(make_client(ScriptedXai(*[delay(30)] * 3), deadline_s=0.02))

    assert make_client.account.costs == ["unknown"] * 3


class Penniless(NotedAccount):
    async def reserve(self, call: PlannedCall) -> int:  # noqa: ARG002 - as the protocol has it
        raise GrokBudgetReached("spent", retry_after_s=4000)


class Unreachable(NotedAccount):
    async def reserve(self, call: PlannedCall) -> int:  # noqa: ARG002 - as the protocol has it
        raise Overloaded("The database does not answer.")


async def test_without_money_no_call_is_made_until_there_is_some(clock: HandClock) -> None:
    xai, metrics = ScriptedXai(), Metrics()
    async with open_http(xai) as http:
        client = make_grok_client(http, clock, account=Penniless(), metrics=metrics)

        error = await fail(client)

    assert isinstance(error, GrokBudgetReached)
    assert (client.wait_s(), client.lane.budget_wait_s, client.lane.outage) == (4000, 4000, None)
    assert xai.calls == []
    assert metrics.render().decode().count("budget_reached") == 0  # that was no failed call


async def test_an_account_that_cannot_be_asked_leaves_the_lane_as_it_was(clock: HandClock) -> None:
    xai = ScriptedXai()
    async with open_http(xai) as http:
        client = make_grok_client(http, clock, account=Unreachable())
        with pytest.raises(Overloaded):
            await client.analyze(["one"])

    assert (client.wait_s(), xai.calls) == (0, [])


# What is counted


async def test_an_answer_by_another_model_is_counted(make_client: ClientMaker) -> None:
    answer = await make_client(ScriptedXai("other_model")).analyze(["one"])

    assert (answer.model, make_client.metrics.model_mismatches()) == ("grok-4.5", 1)


async def test_a_retired_name_is_found_out(make_client: ClientMaker) -> None:
    answer = await make_client(ScriptedXai(), model="grok-3").analyze(["one"])

    assert (answer.model, make_client.metrics.model_mismatches()) == ("grok-4.3", 1)


async def test_an_answer_by_the_model_asked_for_is_no_mismatch(make_client: ClientMaker) -> None:
    await make_client(ScriptedXai()).analyze(["one"])

    assert make_client.metrics.model_mismatches() == 0


async def test_every_try_is_counted_and_every_failure_by_its_class(make_client: ClientMaker) -> None:
    await make_client(ScriptedXai(DOWN, DOWN)).analyze(["one"])

    lines = make_client.metrics.render().decode().splitlines()
    assert "insights_grok_calls_total 3.0" in lines
    assert 'insights_grok_call_errors_total{error="grok_unavailable"} 2.0' in lines


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("prose", "reply_invalid"),
        ("truncated_json", "reply_invalid"),
        ("finish_length", "too_large"),
        ("refusal", "content_filtered"),
    ],
)
async def test_an_answer_that_cannot_be_used_is_a_failed_call_too(
    make_client: ClientMaker, fault: str, code: str
) -> None:
    await fail(make_client(ScriptedXai(fault)))

    lines = make_client.metrics.render().decode().splitlines()
    assert "insights_grok_calls_total 1.0" in lines
    assert f'insights_grok_call_errors_total{{error="{code}"}} 1.0' in lines


async def test_a_call_that_the_account_refuses_was_none(clock: HandClock) -> None:
    metrics = Metrics()
    async with open_http(ScriptedXai()) as http:
        await fail(make_grok_client(http, clock, account=Penniless(), metrics=metrics))

    lines = metrics.render().decode().splitlines()
    assert "insights_grok_calls_total 0.0" in lines
    assert "insights_grok_call_latency_seconds_count 0.0" in lines


async def test_who_waits_for_the_account_is_not_on_the_wire(clock: HandClock) -> None:
    account = SlowAccount("reserve")
    async with open_http(ScriptedXai(latency_s=0.1)) as http:
        client = make_grok_client(http, clock, account=account)
        call = asyncio.create_task(client.analyze(["one"]))
        await asyncio.sleep(0.01)
        waiting = client.on_the_wire
        account.go.set()
        await asyncio.sleep(0.01)
        sent = client.on_the_wire
        await call

    assert (waiting, sent, client.on_the_wire) == (0, 1, 0)


def test_the_fingerprint_names_model_and_prompt(make_client: ClientMaker) -> None:
    prints = {
        make_client(ScriptedXai()).fingerprint,
        make_client(ScriptedXai(), model="grok-4.5").fingerprint,
        make_client(ScriptedXai(), prompt=Prompt({"other": "Anything."})).fingerprint,
    }

    assert len(prints) == 3
