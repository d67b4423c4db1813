"""One exchange with xAI at a time, within every limit, and each way it may end."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, Protocol

import httpx2
import jsonschema
import pytest

from circuit_breaker import CircuitBreaker
from errors import (
    GrokAuth,
    GrokBilling,
    GrokError,
    GrokRefused,
    GrokReplyInvalid,
    GrokRequestRejected,
    GrokThrottled,
    GrokTooLarge,
    GrokUnavailable,
)
from grok_client import CallLimits, GrokClient
from prompts import Prompt
from rate_limiter import SlidingWindow
from schemas import Analysis
from tests.harness import (
    XAI,
    HandClock,
    ScriptedXai,
    break_off,
    completion,
    items_of,
    result_for,
    say,
    say_well,
    score_of,
    texts_of,
)

pytestmark = pytest.mark.unit

PROMPT = Prompt({"delivery_problems": "Late or lost.", "other": "Anything else."})
WHITELIST = {"model", "temperature", "max_completion_tokens", "messages", "response_format", "reasoning_effort"}
DOWN = say("<html>", status=502)


class MakeClient(Protocol):
    def __call__(
        self,
        transport: httpx2.AsyncBaseTransport,
        *,
        calls_per_s: int = 1000,
        max_concurrency: int = 10,
        deadline_s: float = 5,
        threshold: int = 5,
    ) -> GrokClient: ...


@pytest.fixture
def hand() -> HandClock:
    return HandClock()


@pytest.fixture
async def make_client(hand: HandClock) -> AsyncGenerator[MakeClient, None]:
    opened: list[httpx2.AsyncClient] = []

    def make(
        transport: httpx2.AsyncBaseTransport,
        *,
        calls_per_s: int = 1000,
        max_concurrency: int = 10,
        deadline_s: float = 5,
        threshold: int = 5,
    ) -> GrokClient:
        http = httpx2.AsyncClient(base_url="http://127.0.0.1/v1/", transport=transport, trust_env=False)
        opened.append(http)
        return GrokClient(
            http,
            model="grok-4.3",
            prompt=PROMPT,
            window=SlidingWindow(calls_per_s, window_s=1, monotonic=hand.monotonic),
            breaker=CircuitBreaker(threshold=threshold, cooldown_s=10, monotonic=hand.monotonic),
            limits=CallLimits(max_concurrency, deadline_s, monotonic=hand.monotonic, sleep=hand.sleep),
        )

    yield make
    for http in opened:
        await http.aclose()


def scores(results: Sequence[Analysis | GrokReplyInvalid]) -> list[float | None]:
    return [result.sentiment_score if isinstance(result, Analysis) else None for result in results]


async def fail(client: GrokClient, *texts: str) -> GrokError:
    with pytest.raises(GrokError) as caught:
        await client.analyze(texts or ("a text",))
    return caught.value


# What is sent


async def test_a_request_is_one_that_xai_documents(make_client: MakeClient) -> None:
    xai = ScriptedXai()
    schema = json.loads((XAI / "chat_request.schema.json").read_text())

    await make_client(xai).analyze(["one", "two"])

    jsonschema.validate(xai.calls[0].payload, schema)


async def test_only_fields_of_a_short_list_are_sent(make_client: MakeClient) -> None:
    xai = ScriptedXai()

    await make_client(xai).analyze(["one"])

    assert set(xai.calls[0].payload) == WHITELIST


async def test_reasoning_is_switched_off_explicitly(make_client: MakeClient) -> None:
    xai = ScriptedXai()

    await make_client(xai).analyze(["one"])

    assert xai.calls[0].payload["reasoning_effort"] == "none"
    assert xai.calls[0].payload["temperature"] == 0.3


async def test_the_answer_schema_is_valid_and_strict(make_client: MakeClient) -> None:
    xai = ScriptedXai()

    await make_client(xai).analyze(["one"])

    response_format = xai.calls[0].payload["response_format"]["json_schema"]
    jsonschema.Draft202012Validator.check_schema(response_format["schema"])
    assert response_format["strict"] is True


async def test_what_the_cache_needs_is_the_same_bytes_in_every_call(make_client: MakeClient) -> None:
    xai = ScriptedXai()
    client = make_client(xai)

    await client.analyze(["one"])
    await client.analyze(["two", "three"])

    first, second = (call.payload for call in xai.calls)
    assert first["messages"][0] == second["messages"][0]
    assert json.dumps(first["response_format"]) == json.dumps(second["response_format"])


async def test_the_conversation_header_is_constant_for_a_prompt(make_client: MakeClient) -> None:
    xai = ScriptedXai()

    await make_client(xai).analyze(["one"])
    await make_client(xai).analyze(["two"])

    assert len({call.headers["x-grok-conv-id"] for call in xai.calls}) == 1


async def test_ids_and_nonce_differ_in_every_call(make_client: MakeClient) -> None:
    xai = ScriptedXai()
    client = make_client(xai)

    await client.analyze(["same"] * 20)
    await client.analyze(["same"] * 20)

    documents = [json.loads(call.payload["messages"][-1]["content"]) for call in xai.calls]
    assert len({document["nonce"] for document in documents}) == 2
    assert [item["id"] for item in documents[0]["items"]] != [item["id"] for item in documents[1]["items"]]


async def test_a_larger_pack_may_be_answered_at_more_length(make_client: MakeClient) -> None:
    xai = ScriptedXai()
    client = make_client(xai)

    await client.analyze(["one"])
    await client.analyze(["one"] * 50)

    small, large = (call.payload["max_completion_tokens"] for call in xai.calls)
    assert large > 20 * small


# What comes back


async def test_every_text_gets_its_own_result_in_the_order_sent(make_client: MakeClient) -> None:
    texts = [f"text {number}" for number in range(50)]

    answer = await make_client(ScriptedXai()).analyze(texts)

    assert scores(answer.results) == [score_of(text) for text in texts]
    assert answer.model == "grok-4.3"


async def test_a_shuffled_answer_is_sorted_out_by_ids(make_client: MakeClient) -> None:
    def shuffled(payload: dict[str, Any]) -> httpx2.Response:
        results = [result_for(item) for item in reversed(items_of(payload))]
        return httpx2.Response(200, json=completion(json.dumps({"results": results})))

    answer = await make_client(ScriptedXai(shuffled)).analyze(["one", "two", "three"])

    assert scores(answer.results) == [score_of("one"), score_of("two"), score_of("three")]


async def test_a_missing_result_is_that_texts_problem_alone(make_client: MakeClient) -> None:
    def without_first(payload: dict[str, Any]) -> httpx2.Response:
        results = [result_for(item) for item in items_of(payload)[1:]]
        return httpx2.Response(200, json=completion(json.dumps({"results": results})))

    answer = await make_client(ScriptedXai(without_first)).analyze(["one", "two"])

    assert scores(answer.results) == [None, score_of("two")]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        pytest.param(completion("not JSON"), GrokReplyInvalid, id="prose"),
        pytest.param("<html>", GrokUnavailable, id="a page of something on the way"),
        pytest.param({"choices": []}, GrokReplyInvalid, id="no choice"),
        pytest.param([], GrokReplyInvalid, id="a list"),
        pytest.param(completion("{}", finish_reason="length"), GrokTooLarge, id="cut off at the limit"),
        pytest.param(completion(None, finish_reason="content_filter"), GrokRefused, id="filtered"),
        pytest.param(
            completion(None, choices=[{"message": {"role": "assistant", "refusal": "No."}}]), GrokRefused, id="refused"
        ),
        pytest.param(completion(""), GrokRefused, id="an empty content"),
        pytest.param(completion(None), GrokRefused, id="no content"),
        pytest.param("", GrokUnavailable, id="an empty body"),
        pytest.param(" \n", GrokUnavailable, id="a blank body"),
    ],
)
async def test_an_answer_without_a_value_has_its_class(
    make_client: MakeClient, body: Any, kind: type[GrokError]
) -> None:
    error = await fail(make_client(ScriptedXai(*[say(body)] * 3)))

    assert type(error) is kind


async def test_an_unusable_answer_is_kept_redacted_and_short(make_client: MakeClient) -> None:
    said = "key xai-abcdefghijklmnop of 00000000-0000-0000-0000-000000000000 " + "x" * 5000

    error = await fail(make_client(ScriptedXai(say(completion(said)))))

    assert isinstance(error, GrokReplyInvalid)
    assert "abcdefghijklmnop" not in (error.raw_answer or "")
    assert 1000 < len(error.raw_answer or "") <= 2000


@pytest.mark.parametrize("finish_reason", ["stop", "end_turn", "", None, "something_new"])
async def test_an_unknown_finish_reason_does_not_spoil_a_good_answer(
    make_client: MakeClient, finish_reason: str | None
) -> None:
    def finished(payload: dict[str, Any]) -> httpx2.Response:
        results = [result_for(item) for item in items_of(payload)]
        return httpx2.Response(200, json=completion(json.dumps({"results": results}), finish_reason=finish_reason))

    answer = await make_client(ScriptedXai(finished)).analyze(["one"])

    assert scores(answer.results) == [score_of("one")]


async def test_an_answer_that_grows_without_end_is_given_up(make_client: MakeClient) -> None:
    error = await fail(make_client(ScriptedXai(*[say("x" * (2**21 + 1))] * 3)))

    assert "2 MB" in error.details


# Retries


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(DOWN, id="a bad gateway"),
        pytest.param(say("", status=529), id="an overloaded edge"),
        pytest.param(say({"error": "The model is currently at capacity"}, status=429), id="at capacity"),
        pytest.param(break_off(httpx2.ConnectError("refused")), id="nobody listens"),
        pytest.param(break_off(httpx2.ReadError("reset")), id="a reset"),
        pytest.param(break_off(httpx2.ReadTimeout("slow")), id="a time-out"),
        pytest.param(break_off(httpx2.RemoteProtocolError("cut")), id="a cut"),
        pytest.param(break_off(httpx2.DecodingError("gzip")), id="a broken encoding"),
        pytest.param(say(""), id="an empty body"),
    ],
)
async def test_what_passes_by_itself_is_tried_again_after_a_rest(
    make_client: MakeClient, hand: HandClock, step: Any
) -> None:
    xai = ScriptedXai(step, step)

    answer = await make_client(xai).analyze(["one"])

    assert scores(answer.results) == [score_of("one")]
    assert 1 <= hand.slept_s[0] <= 2 <= hand.slept_s[1] <= 4


async def test_three_tries_are_all(make_client: MakeClient) -> None:
    xai = ScriptedXai(*[DOWN] * 9)

    error = await fail(make_client(xai))

    assert isinstance(error, GrokUnavailable)
    assert len(xai.calls) == 3


async def test_every_try_has_ids_of_its_own(make_client: MakeClient) -> None:
    xai = ScriptedXai(DOWN)

    await make_client(xai).analyze(["same"] * 10)

    tried = [[item["id"] for item in items_of(call.payload)] for call in xai.calls]
    assert tried[0] != tried[1]


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        pytest.param(400, "Failed to parse the request body", GrokRequestRejected, id="our bug"),
        pytest.param(401, "No credentials presented.", GrokAuth, id="no key"),
        pytest.param(429, "used all available credits", GrokBilling, id="no credits"),
        pytest.param(429, "Too many requests", GrokThrottled, id="too many"),
        pytest.param(403, "Content violates usage guidelines", GrokRefused, id="refused"),
        pytest.param(413, "length limit exceeded", GrokTooLarge, id="too large"),
    ],
)
async def test_what_does_not_pass_by_itself_is_not_tried_again(
    make_client: MakeClient, status: int, message: str, kind: type[GrokError]
) -> None:
    xai = ScriptedXai(say({"error": message}, status=status))

    error = await fail(make_client(xai))

    assert type(error) is kind
    assert len(xai.calls) == 1


async def test_a_told_wait_before_the_next_try_is_kept(make_client: MakeClient, hand: HandClock) -> None:
    xai = ScriptedXai(say("", status=503, retry_after="9"))

    await make_client(xai).analyze(["one"])

    assert hand.slept_s == [9.0]


# The lane


async def test_a_told_wait_closes_the_lane_for_everybody(make_client: MakeClient, hand: HandClock) -> None:
    xai = ScriptedXai(say({"error": "Too many requests"}, status=429, retry_after="30"))
    client = make_client(xai)
    await fail(client)

    hand.turn(29)
    error = await fail(client)

    assert (len(xai.calls), error.retry_after_s) == (1, 1)
    assert client.wait_s() == 1


async def test_the_lane_opens_when_the_told_wait_is_over(make_client: MakeClient, hand: HandClock) -> None:
    client = make_client(ScriptedXai(say({"error": "Too many requests"}, status=429, retry_after="30")))
    await fail(client)

    hand.turn(30.01)
    answer = await client.analyze(["one"])

    assert scores(answer.results) == [score_of("one")]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        pytest.param(400, "Incorrect API key provided", id="a wrong key"),
        pytest.param(403, "any credits or licenses", id="no credits"),
        pytest.param(404, "Model not found: x", id="a wrong model"),
        pytest.param(526, "", id="a bad certificate"),
    ],
)
async def test_what_an_operator_must_mend_closes_the_lane_for_a_minute(
    make_client: MakeClient, status: int, message: str
) -> None:
    client = make_client(ScriptedXai(say({"error": message}, status=status)))

    await fail(client)

    assert client.wait_s() == 60


async def test_a_shorter_told_wait_does_not_reopen_a_closed_lane(make_client: MakeClient, hand: HandClock) -> None:
    release = asyncio.Event()

    class Two(httpx2.AsyncBaseTransport):
        waits: list[str]

        def __init__(self) -> None:
            self.waits = ["100", "5"]

        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:  # noqa: ARG002
            told = self.waits.pop(0)
            await release.wait()
            return httpx2.Response(429, headers={"retry-after": told}, json={"error": "Too many requests"})

    client = make_client(Two())
    both = asyncio.gather(client.analyze(["one"]), client.analyze(["two"]), return_exceptions=True)
    await asyncio.sleep(0.01)
    release.set()
    await both

    assert client.wait_s() == 100


# A refused parameter


async def test_a_refused_parameter_is_dropped_and_the_request_sent_again(make_client: MakeClient) -> None:
    xai = ScriptedXai(say({"error": "Model x does not support parameter reasoningEffort."}, status=400))

    answer = await make_client(xai).analyze(["one"])

    assert scores(answer.results) == [score_of("one")]
    assert [("reasoning_effort" in call.payload) for call in xai.calls] == [True, False]


async def test_a_dropped_parameter_stays_dropped(make_client: MakeClient) -> None:
    xai = ScriptedXai(say({"error": "This model does not support `reasoning_effort` value `none`."}, status=400))
    client = make_client(xai)
    await client.analyze(["one"])

    await client.analyze(["two"])

    assert set(xai.calls[-1].payload) == WHITELIST - {"reasoning_effort"}


async def test_refusing_parameters_for_ever_ends(make_client: MakeClient) -> None:
    xai = ScriptedXai(*[say({"error": "does not support parameter temperature"}, status=400)] * 9)

    error = await fail(make_client(xai))

    assert isinstance(error, GrokUnavailable)
    assert len(xai.calls) <= 3


# Limits


class Dripping(httpx2.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.01)


class DrippingXai(httpx2.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:  # noqa: ARG002
        return httpx2.Response(200, stream=Dripping())


async def test_the_deadline_beats_a_server_that_drips(make_client: MakeClient) -> None:
    started = asyncio.get_running_loop().time()

    error = await fail(make_client(DrippingXai(), deadline_s=0.05))

    assert "within 0.05 s" in error.details
    assert asyncio.get_running_loop().time() - started < 2


async def test_the_window_of_calls_is_never_exceeded(make_client: MakeClient, hand: HandClock) -> None:
    xai = ScriptedXai(DOWN, DOWN, monotonic=hand.monotonic)
    client = make_client(xai, calls_per_s=5)

    await asyncio.gather(*(client.analyze([f"text {number}"]) for number in range(40)))

    at_s = [call.at_s for call in xai.calls]
    assert len(at_s) == 42
    assert max(sum(start <= one < start + 1 for one in at_s) for start in at_s) <= 5


async def test_the_calls_in_flight_are_never_more_than_allowed(make_client: MakeClient) -> None:
    xai = ScriptedXai(latency_s=0.005)
    client = make_client(xai, max_concurrency=3)

    await asyncio.gather(*(client.analyze([f"text {number}"]) for number in range(20)))

    assert xai.most_in_flight == 3


async def test_a_thousand_cancelled_calls_leave_every_place_free(make_client: MakeClient) -> None:
    xai = ScriptedXai(latency_s=30)
    client = make_client(xai, max_concurrency=4, calls_per_s=1_000_000)
    for _ in range(100):
        calls = [asyncio.create_task(client.analyze(["one"])) for _ in range(10)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    xai.latency_s = None
    answers = await asyncio.gather(*(client.analyze(["one"]) for _ in range(8)))

    assert len(answers) == 8
    assert client.wait_s() == 0


# The breaker


async def open_breaker(client: GrokClient, xai: ScriptedXai) -> None:
    xai.script = [DOWN] * 5
    await fail(client)
    await fail(client)
    xai.calls.clear()


async def test_five_failures_in_a_row_stop_the_calls(make_client: MakeClient) -> None:
    xai = ScriptedXai()
    client = make_client(xai)
    await open_breaker(client, xai)

    error = await fail(client)

    assert not xai.calls
    assert client.wait_s() == pytest.approx(10)
    assert (error.retry_after_s or 0) >= 1


async def test_after_the_cooldown_one_probe_goes_and_success_reopens(make_client: MakeClient, hand: HandClock) -> None:
    xai = ScriptedXai(latency_s=0.01)
    client = make_client(xai)
    await open_breaker(client, xai)
    hand.turn(10.01)

    answers = await asyncio.gather(*(client.analyze(["one"]) for _ in range(6)), return_exceptions=True)

    assert len(xai.calls) == 1
    assert [type(answer).__name__ for answer in answers].count("PackAnswer") == 1
    assert client.wait_s() == 0


async def test_a_probe_that_fails_lengthens_the_rest(make_client: MakeClient, hand: HandClock) -> None:
    xai = ScriptedXai()
    client = make_client(xai)
    await open_breaker(client, xai)
    hand.turn(10.01)
    xai.script = [DOWN]

    await fail(client)

    assert len(xai.calls) == 1
    assert client.wait_s() == pytest.approx(20)


async def test_refused_content_does_not_count_as_a_failure(make_client: MakeClient) -> None:
    refusal = say({"error": "Content violates usage guidelines"}, status=403)
    client = make_client(ScriptedXai(*[refusal] * 30))

    for _ in range(30):
        await fail(client)

    assert client.wait_s() == 0


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(break_off(RuntimeError("a bug below")), id="an error nobody foresaw"),
        pytest.param(say({"error": "Too many requests"}, status=429, retry_after="1"), id="a told wait"),
        pytest.param(say({"error": "Content violates usage guidelines"}, status=403), id="a refusal"),
    ],
)
async def test_a_probe_that_ends_oddly_does_not_keep_the_lane_shut(
    make_client: MakeClient, hand: HandClock, end: Any
) -> None:
    xai = ScriptedXai()
    client = make_client(xai)
    await open_breaker(client, xai)
    hand.turn(10.01)
    xai.script = [end]
    with pytest.raises((GrokError, RuntimeError)):
        await client.analyze(["one"])

    hand.turn(2)
    answer = await client.analyze(["two"])

    assert scores(answer.results) == [score_of("two")]


async def test_a_cancelled_probe_lets_another_go(make_client: MakeClient, hand: HandClock) -> None:
    xai = ScriptedXai()
    client = make_client(xai)
    await open_breaker(client, xai)
    hand.turn(10.01)
    xai.latency_s = 30
    probe = asyncio.create_task(client.analyze(["one"]))
    await asyncio.sleep(0.01)
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)

    xai.latency_s = None
    answer = await client.analyze(["two"])

    assert scores(answer.results) == [score_of("two")]


async def test_texts_travel_unchanged(make_client: MakeClient) -> None:
    texts = ["\U0001f621" * 100, 'quotes " and \\ and </json>', "zero\u200bwidth", "\u202eright to left"]
    xai = ScriptedXai(say_well)

    await make_client(xai).analyze(texts)

    assert texts_of(xai.calls[0].payload) == texts
