"""Calls to xAI stay within every limit: the window, told waits and the breaker; by the fake's own journal."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from circuit_breaker import State
from errors import GrokError, GrokLaneShut, GrokThrottled, GrokUnavailable
from grok_client import GrokClient, PackAnswer
from main import Parts, build_client, build_http
from tests.clients import ClientMaker
from tests.fake_xai import FakeXai, FakeXaiServer, running_fake_xai
from tests.fake_xai_answers import Json, score_of
from tests.fake_xai_faults import Choice, Fault, fixture, say
from tests.harness import HandClock, ScriptedXai, break_off, make_settings
from xai import SENDING

DOWN = say("<html>", status=502)
TOO_MANY: Json = {"error": "Too many requests"}
ALMOST_1_S = 1 - 1e-9  # sums of a clock turned by hand round
REFUSAL = say({"error": "Content violates usage guidelines"}, status=403)


@pytest.fixture
async def make_client(clock: HandClock) -> AsyncGenerator[ClientMaker, None]:
    async with ClientMaker(clock) as maker:
        yield maker


async def fail(client: GrokClient) -> GrokError:
    with pytest.raises(GrokError) as caught:
        await client.analyze(["a text"])
    return caught.value


def is_good(answer: PackAnswer, text: str) -> bool:
    return [getattr(result, "sentiment_score", None) for result in answer.results] == [score_of(text)]


# Told waits, on a clock turned by hand


@pytest.mark.unit
@pytest.mark.parametrize(
    ("told", "wait_s"),
    [
        pytest.param(say(TOO_MANY, status=429, retry_after="30"), 30, id="digits"),
        pytest.param(say(TOO_MANY, status=429, retry_after="3600"), 120, id="an hour"),
        pytest.param(say(TOO_MANY, status=429, retry_after="Fri, 01 Jan 2100 00:00:00 GMT"), 120, id="a date far off"),
        pytest.param(say(TOO_MANY, status=429, retry_after="Thu, 01 Jan 1970 00:00:00 GMT"), 1, id="a date gone by"),
        pytest.param(say({"error": "Too many requests. Resets in: 44s"}, status=429), 44, id="in the text"),
        pytest.param(say(TOO_MANY, status=429), 2, id="nothing told"),
        pytest.param(say({"error": "try again"}, status=503, retry_after="9"), 9, id="of an outage"),
        pytest.param(say({"error": "Incorrect API key provided"}, status=400), 60, id="a wrong key"),
        pytest.param(say({"error": "any credits or licenses"}, status=403), 60, id="no credits"),
        pytest.param(say({"error": "Model not found: x"}, status=404), 60, id="a wrong model"),
        pytest.param(say("", status=526), 60, id="a bad certificate"),
    ],
)
async def test_the_lane_rests_for_as_long_as_was_told(
    make_client: ClientMaker, clock: HandClock, told: Fault, wait_s: float
) -> None:
    xai = ScriptedXai(told)
    client = make_client(xai)
    await fail(client)
    told_s = client.wait_s()

    clock.turn(wait_s - 0.01)
    within = [type(await fail(client)) for _ in range(5)]
    clock.turn(0.02)
    after = await client.analyze(["one"])

    assert (told_s, within, len(xai.calls)) == (wait_s, [GrokLaneShut] * 5, 2)
    assert is_good(after, "one")


@pytest.mark.unit
async def test_a_call_within_a_told_wait_says_how_long_it_still_is(make_client: ClientMaker, clock: HandClock) -> None:
    client = make_client(ScriptedXai(say(TOO_MANY, status=429, retry_after="30")))
    await fail(client)

    clock.turn(21)
    error = await fail(client)

    assert error.retry_after_s == 9


class TwoWaits(httpx2.AsyncBaseTransport):
    """Answers two calls at once, each with a wait of its own."""

    def __init__(self, *waits: str) -> None:
        self.waits = list(waits)
        self.release = asyncio.Event()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.extensions["trace"](SENDING, {})
        told = self.waits.pop(0)
        await self.release.wait()
        return httpx2.Response(429, headers={"retry-after": told}, json=TOO_MANY)


@pytest.mark.unit
async def test_a_shorter_told_wait_does_not_reopen_a_closed_lane(make_client: ClientMaker) -> None:
    xai = TwoWaits("100", "5")
    client = make_client(xai)
    both = asyncio.gather(client.analyze(["one"]), client.analyze(["two"]), return_exceptions=True)
    await asyncio.sleep(0.01)
    xai.release.set()
    await both

    assert client.wait_s() == pytest.approx(100)


@pytest.mark.unit
async def test_a_burst_of_refusals_halves_the_rate_once(make_client: ClientMaker, clock: HandClock) -> None:
    xai = ScriptedXai(*[say(TOO_MANY, status=429, retry_after="1")] * 8, latency_s=0.01)
    client = make_client(xai, calls_per_s=8)

    await asyncio.gather(*(client.analyze(["one"]) for _ in range(8)), return_exceptions=True)
    lowered = client.lane.window.current
    clock.turn(1 + 30)

    assert (len(xai.calls), lowered, client.lane.window.current) == (8, 4, 8)


@pytest.mark.unit
async def test_the_window_is_kept_over_retries(make_client: ClientMaker, clock: HandClock) -> None:
    xai = ScriptedXai(DOWN, DOWN, monotonic=clock.monotonic)
    client = make_client(xai, calls_per_s=5)

    await asyncio.gather(*(client.analyze([f"text {number}"]) for number in range(40)))

    assert len(xai.calls) == 42
    assert xai.fake.journal.calls_in_busiest_window(ALMOST_1_S) <= 5


@pytest.mark.unit
async def test_one_call_a_second_is_kept_too(make_client: ClientMaker, clock: HandClock) -> None:
    xai = ScriptedXai(DOWN, monotonic=clock.monotonic)
    client = make_client(xai, calls_per_s=1)

    await asyncio.gather(*(client.analyze(["one"]) for _ in range(6)))

    assert (len(xai.calls), xai.fake.journal.calls_in_busiest_window(ALMOST_1_S)) == (7, 1)


# The breaker


async def open_breaker(client: GrokClient, xai: ScriptedXai) -> None:
    xai.fake.script = [DOWN] * 5
    await fail(client)
    await fail(client)
    xai.calls.clear()


async def before_the_probe(make_client: ClientMaker, xai: ScriptedXai, clock: HandClock) -> GrokClient:
    """The breaker has opened, and its cooldown is over."""
    client = make_client(xai)
    await open_breaker(client, xai)
    clock.turn(10.01)
    return client


@pytest.mark.unit
async def test_an_open_breaker_costs_no_calls(make_client: ClientMaker, clock: HandClock) -> None:
    xai = ScriptedXai()
    client = make_client(xai)
    await open_breaker(client, xai)

    errors = [await fail(client) for _ in range(50)]

    assert xai.calls == []
    assert client.lane.breaker_state is State.OPEN
    assert client.wait_s() == pytest.approx(10)
    assert {error.retry_after_s for error in errors} == {10}


@pytest.mark.unit
async def test_after_the_cooldown_one_probe_goes_and_success_reopens(
    make_client: ClientMaker, clock: HandClock
) -> None:
    xai = ScriptedXai(latency_s=0.01)
    client = await before_the_probe(make_client, xai, clock)

    answers = await asyncio.gather(*(client.analyze(["one"]) for _ in range(6)), return_exceptions=True)

    assert len(xai.calls) == 1
    assert [isinstance(answer, PackAnswer) for answer in answers].count(True) == 1
    assert client.wait_s() == 0


@pytest.mark.unit
async def test_a_probe_that_fails_lengthens_the_rest(make_client: ClientMaker, clock: HandClock) -> None:
    xai = ScriptedXai()
    client = await before_the_probe(make_client, xai, clock)
    xai.fake.script = [DOWN]

    await fail(client)

    assert len(xai.calls) == 1
    assert client.wait_s() == pytest.approx(20)


@pytest.mark.unit
async def test_late_failures_of_an_outage_do_not_prolong_it(make_client: ClientMaker, clock: HandClock) -> None:
    client = make_client(ScriptedXai())
    admissions = [await client.lane.enter() for _ in range(8)]
    for admission in admissions[:5]:
        admission.failed()
    clock.turn(4)
    for admission in admissions[5:]:
        admission.failed()

    assert client.wait_s() == pytest.approx(6)


@pytest.mark.unit
async def test_a_late_success_does_not_end_an_outage(make_client: ClientMaker) -> None:
    client = make_client(ScriptedXai())
    admissions = [await client.lane.enter() for _ in range(6)]
    for admission in admissions[:5]:
        admission.failed()
    admissions[5].answered()

    assert client.lane.breaker_state is State.OPEN
    assert client.wait_s() == pytest.approx(10)


@pytest.mark.unit
async def test_refused_content_does_not_count_as_a_failure(make_client: ClientMaker) -> None:
    client = make_client(ScriptedXai(*[REFUSAL] * 30))

    for _ in range(30):
        await fail(client)

    assert client.wait_s() == 0


@pytest.mark.unit
@pytest.mark.parametrize(
    "end",
    [
        pytest.param(break_off(RuntimeError("a bug below")), id="an error nobody foresaw"),
        pytest.param(say(TOO_MANY, status=429, retry_after="1"), id="a told wait"),
        pytest.param(REFUSAL, id="a refusal"),
    ],
)
async def test_a_probe_that_ends_oddly_does_not_keep_the_lane_shut(
    make_client: ClientMaker, clock: HandClock, end: Any
) -> None:
    xai = ScriptedXai()
    client = await before_the_probe(make_client, xai, clock)
    xai.fake.script = [end]
    with pytest.raises((GrokError, RuntimeError)):
        await client.analyze(["one"])

    clock.turn(2)

    assert is_good(await client.analyze(["two"]), "two")


@pytest.mark.unit
async def test_what_a_probe_taught_counts_once_however_late_it_ends(make_client: ClientMaker, clock: HandClock) -> None:
    xai = ScriptedXai()
    client = await before_the_probe(make_client, xai, clock)
    first = await client.lane.enter()
    first.forgotten()
    await client.lane.enter()  # the next probe

    first.forgotten()  # it has been settled only now

    assert isinstance(await fail(client), GrokLaneShut)


@pytest.mark.unit
async def test_a_cancelled_probe_lets_another_go(make_client: ClientMaker, clock: HandClock) -> None:
    xai = ScriptedXai()
    client = await before_the_probe(make_client, xai, clock)
    xai.fake.latency_s = 30
    probe = asyncio.create_task(client.analyze(["one"]))
    await asyncio.sleep(0.01)
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)

    xai.fake.latency_s = 0

    assert is_good(await client.analyze(["two"]), "two")


# The client as the service builds it, on a socket and in real time


@asynccontextmanager
async def real_client(
    server: FakeXaiServer, folder: Path, *, places: int = 30, **values: Any
) -> AsyncGenerator[GrokClient, None]:
    """With its own connections and its own view of the database, as a process has it that was just started."""
    settings = make_settings(
        folder,
        grok_mode="real",
        grok_key="xai-test",
        grok_base_url=server.url,
        grok_max_concurrency=places,
        **{"grok_calls_per_second": 10, **values},
    )
    parts = Parts.of(settings)
    await parts.database.open()
    try:
        async with build_http(settings, parts) as http:
            yield build_client(settings, parts, http)
    finally:
        await parts.database.close()


async def analyze_all(client: GrokClient, count: int, *, tag: str = "text") -> Sequence[PackAnswer | BaseException]:
    calls = (client.analyze([f"{tag} {number}"]) for number in range(count))
    return await asyncio.gather(*calls, return_exceptions=True)


def busiest(server: FakeXaiServer) -> int:
    return server.journal.calls_in_busiest_window()


def tell(what: str, server: FakeXaiServer, seconds: float) -> None:
    arrived = sorted(call.arrived_at for call in server.journal.calls)
    sending_s = arrived[-1] - arrived[0]
    most = 10 * (1 + sending_s)  # ten at once, and ten a second after them
    print(
        f"{what}: {len(arrived)} calls in {seconds:.2f} s, sent within {sending_s:.2f} s, busiest second"
        f" {busiest(server)}, most in flight {server.fake.most_in_flight}, utilisation {len(arrived) / most:.0%}"
    )


@pytest.mark.integration
@pytest.mark.slow
async def test_slow_calls_use_the_rate_and_never_pass_it(tmp_path: Path) -> None:
    with running_fake_xai(FakeXai(latency_s=2)) as server:
        async with real_client(server, tmp_path) as client:
            started = time.monotonic()
            answers = await analyze_all(client, 30)
            tell("slow calls", server, time.monotonic() - started)

    assert [type(answer) for answer in answers] == [PackAnswer] * 30
    assert busiest(server) <= 10


@pytest.mark.integration
@pytest.mark.slow
async def test_retries_are_within_the_rate_too(tmp_path: Path) -> None:
    script: list[Choice] = ["internal", None, "empty_200", None, "unavailable", None, "reset", None]
    with running_fake_xai(FakeXai(script=script, latency_s=0.3)) as server:
        async with real_client(server, tmp_path) as client:
            started = time.monotonic()
            answers = await analyze_all(client, 30)
            tell("with failures", server, time.monotonic() - started)

    assert [type(answer) for answer in answers] == [PackAnswer] * 30
    assert len(server.journal.chats) == 34
    assert busiest(server) <= 10


@pytest.mark.integration
@pytest.mark.slow
async def test_a_service_that_was_just_restarted_stays_within_the_rate(tmp_path: Path) -> None:
    with running_fake_xai() as server:
        started = time.monotonic()
        for life in range(3):
            async with real_client(server, tmp_path) as client:
                await analyze_all(client, 10, tag=f"life {life}")
        tell("two restarts", server, time.monotonic() - started)

    assert len(server.journal.chats) == 30
    assert busiest(server) <= 10


@pytest.mark.integration
@pytest.mark.slow
async def test_two_replicas_know_of_each_others_calls(tmp_path: Path, database_url: str) -> None:
    with running_fake_xai(FakeXai(latency_s=0.05)) as server:
        async with (
            real_client(server, tmp_path, database_url=database_url) as one,
            real_client(server, tmp_path, database_url=database_url) as other,
        ):
            started = time.monotonic()
            await asyncio.gather(analyze_all(one, 15, tag="one"), analyze_all(other, 15, tag="other"))
            tell("two replicas", server, time.monotonic() - started)

    assert busiest(server) <= 10


_ON_THE_WAY_S = 0.1  # a call that passed the last check when nobody had read the answer yet


def note_waits(client: GrokClient, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When each 429 had been read, by the fake's clock."""
    read_at: list[float] = []
    send = vars(GrokClient)["_send"]

    async def note(*arguments: Any, **more: Any) -> Any:
        status, headers, body = await send(client, *arguments, **more)
        if status == 429:
            read_at.append(time.monotonic())
        return status, headers, body

    monkeypatch.setattr(client, "_send", note)
    return read_at


def calls_within_waits(server: FakeXaiServer, read_at: Sequence[float], wait_s: float) -> int:
    """Calls that arrived while a wait was on, and that for certain."""
    return sum(
        any(moment + _ON_THE_WAY_S < server.earliest(call.arrived_at) < moment + wait_s for moment in read_at)
        for call in server.journal.chats
    )


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.parametrize("told", [{"retry_after": "1"}, {}], ids=["told by a header", "not told"])
async def test_nothing_is_sent_while_the_lane_rests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, str]
) -> None:
    rest_s = 1.0 if told else 2.0

    async def insist(client: GrokClient, until: float) -> None:
        while time.monotonic() < until:
            try:
                await client.analyze(["a text"])
            except GrokThrottled:
                continue
            except GrokUnavailable:
                await asyncio.sleep(0.05)

    script: list[Choice] = [*[None] * 6, fixture("rate_limit", **told)]
    with running_fake_xai(FakeXai(script=script, latency_s=0.05)) as server:
        async with real_client(server, tmp_path, places=3) as client:
            read_at = note_waits(client, monkeypatch)
            until = time.monotonic() + rest_s + 1.2
            await asyncio.gather(*(insist(client, until) for _ in range(3)))

    assert (len(read_at), calls_within_waits(server, read_at, rest_s)) == (1, 0)
    assert len(server.journal.chats) > 8
