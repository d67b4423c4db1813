"""One exchange with xAI at a time: what is sent, each way it may end, and what is told to whoever pays."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import httpx2
import pytest

from errors import (
    GrokAuth,
    GrokBilling,
    GrokConfig,
    GrokError,
    GrokRefused,
    GrokReplyInvalid,
    GrokRequestRejected,
    GrokThrottled,
    GrokTooLarge,
    GrokUnavailable,
)
from grok_client import GrokClient
from prompts import Prompt
from schemas import Analysis
from tests.clients import ClientMaker
from tests.fake_xai_answers import MODELS, Answer, Draft, completion, items_of, score_of, texts_of
from tests.fake_xai_faults import missing_id, say, shuffled
from tests.harness import HandClock, ScriptedXai, break_off
from xai import SENDING, PriceList

pytestmark = pytest.mark.unit

DOWN = say("<html>", status=502)


@pytest.fixture
async def make_client(clock: HandClock) -> AsyncGenerator[ClientMaker, None]:
    async with ClientMaker(clock) as maker:
        yield maker


def scores(results: Sequence[Analysis | GrokReplyInvalid]) -> list[float | None]:
    return [result.sentiment_score if isinstance(result, Analysis) else None for result in results]


async def fail(client: GrokClient, *texts: str) -> GrokError:
    with pytest.raises(GrokError) as caught:
        await client.analyze(texts or ("a text",))
    return caught.value


# What is sent


@pytest.mark.parametrize("model", [*MODELS, "grok-4.8-of-next-year"])
async def test_every_model_is_asked_in_a_way_that_it_understands(make_client: ClientMaker, model: str) -> None:
    xai = ScriptedXai()
    xai.fake.models = {**MODELS, "grok-4.8-of-next-year": MODELS["grok-4.7"]}
    client = make_client(xai, model=model, effort=PriceList.load().least_effort(model))

    await client.analyze(["one"])
    await client.analyze(["two"])

    statuses = [call.status for call in xai.fake.journal.chats]
    assert statuses == ([200, 200] if model in MODELS else [400, 200, 200])  # what is not listed is learned once
    assert [call.problem for call in xai.fake.journal.chats if call.problem] == []


async def test_a_retired_model_is_asked_for_by_its_name(make_client: ClientMaker) -> None:
    xai = ScriptedXai()

    await make_client(xai, model="grok-3").analyze(["one"])

    assert xai.calls[0].payload["model"] == "grok-3"


async def test_what_the_cache_needs_is_the_same_bytes_in_every_call(make_client: ClientMaker) -> None:
    xai = ScriptedXai()
    client = make_client(xai)

    await client.analyze(["one"])
    await client.analyze(["two", "three"])

    first, second = (call.payload for call in xai.calls)
    assert json.dumps(first["messages"][0]) == json.dumps(second["messages"][0])
    assert json.dumps(first["response_format"]) == json.dumps(second["response_format"])


async def test_nearly_all_of_the_prompt_is_cached_from_the_second_call_on(make_client: ClientMaker) -> None:
    xai = ScriptedXai()
    client = make_client(xai)

    for number in range(5):
        await client.analyze([f"text {number}"])

    shares = [call.cached_tokens / call.prompt_tokens for call in xai.fake.journal.chats]
    assert shares[0] == 0
    assert min(shares[1:]) > 0.9


async def test_the_conversation_header_is_constant_for_a_prompt(make_client: ClientMaker) -> None:
    xai = ScriptedXai()

    await make_client(xai).analyze(["one"])
    await make_client(xai).analyze(["two"])

    assert len({call.headers["x-grok-conv-id"] for call in xai.calls}) == 1


async def test_another_prompt_is_another_conversation(make_client: ClientMaker) -> None:
    xai = ScriptedXai()

    await make_client(xai).analyze(["one"])
    await make_client(xai, prompt=Prompt({"other": "Anything."})).analyze(["one"])

    assert len({call.headers["x-grok-conv-id"] for call in xai.calls}) == 2


async def test_ids_and_nonce_differ_in_every_call(make_client: ClientMaker) -> None:
    xai = ScriptedXai()
    client = make_client(xai)

    await client.analyze(["same"] * 20)
    await client.analyze(["same"] * 20)

    documents = [json.loads(call.payload["messages"][-1]["content"]) for call in xai.calls]
    assert len({document["nonce"] for document in documents}) == 2
    assert [item["id"] for item in documents[0]["items"]] != [item["id"] for item in documents[1]["items"]]


# What comes back


async def test_every_text_gets_its_own_result_in_the_order_sent(make_client: ClientMaker) -> None:
    texts = [f"text {number}" for number in range(50)]

    answer = await make_client(ScriptedXai()).analyze(texts)

    assert scores(answer.results) == [score_of(text) for text in texts]
    assert answer.model == "grok-4.3"


async def test_a_shuffled_answer_is_sorted_out_by_ids(make_client: ClientMaker) -> None:
    answer = await make_client(ScriptedXai(shuffled)).analyze(["one", "two", "three"])

    assert scores(answer.results) == [score_of("one"), score_of("two"), score_of("three")]


async def test_a_missing_result_is_that_texts_problem_alone(make_client: ClientMaker) -> None:
    answer = await make_client(ScriptedXai(missing_id)).analyze(["one", "two"])

    assert scores(answer.results) == [None, score_of("two")]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        pytest.param(completion("not JSON"), GrokReplyInvalid, id="prose"),
        pytest.param("<html>", GrokUnavailable, id="a page of something on the way"),
        pytest.param({"choices": []}, GrokReplyInvalid, id="no choice"),
        pytest.param([], GrokUnavailable, id="a list"),
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
    make_client: ClientMaker, body: Any, kind: type[GrokError]
) -> None:
    error = await fail(make_client(ScriptedXai(*[say(body)] * 3)))

    assert type(error) is kind


async def test_an_unusable_answer_is_kept_redacted_and_short(make_client: ClientMaker) -> None:
    said = "key xai-abcdefghijklmnop of 00000000-0000-0000-0000-000000000000 " + "x" * 5000

    error = await fail(make_client(ScriptedXai(say(completion(said)))))

    assert isinstance(error, GrokReplyInvalid)
    assert "abcdefghijklmnop" not in (error.raw_answer or "")
    assert 1000 < len(error.raw_answer or "") <= 2000


@pytest.mark.parametrize("finish_reason", ["stop", "end_turn", "", None, "something_new"])
async def test_an_unknown_finish_reason_does_not_spoil_a_good_answer(
    make_client: ClientMaker, finish_reason: str | None
) -> None:
    def finished(draft: Draft) -> Answer:
        return draft.saying(draft.content, finish_reason=finish_reason)

    answer = await make_client(ScriptedXai(finished)).analyze(["one"])

    assert scores(answer.results) == [score_of("one")]


async def test_an_answer_that_grows_without_end_is_given_up(make_client: ClientMaker) -> None:
    error = await fail(make_client(ScriptedXai(*[say("x" * (2**21 + 1))] * 3)))

    assert "2 MB" in error.details


# Retries


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(DOWN, id="a bad gateway"),
        pytest.param(say("", status=529), id="an overloaded edge"),
        pytest.param(break_off(httpx2.ConnectError("refused")), id="nobody listens"),
        pytest.param(break_off(httpx2.ReadError("reset")), id="a reset"),
        pytest.param(break_off(httpx2.ReadTimeout("slow")), id="a time-out"),
        pytest.param(break_off(httpx2.RemoteProtocolError("cut")), id="a cut"),
        pytest.param(break_off(httpx2.DecodingError("gzip")), id="a broken encoding"),
        pytest.param(say(""), id="an empty body"),
    ],
)
async def test_what_passes_by_itself_is_tried_again_after_a_rest(
    make_client: ClientMaker, clock: HandClock, step: Any
) -> None:
    xai = ScriptedXai(step, step)

    answer = await make_client(xai).analyze(["one"])

    assert scores(answer.results) == [score_of("one")]
    assert 1 <= clock.slept_s[0] <= 2 <= clock.slept_s[1] <= 4


async def test_a_model_at_capacity_is_given_more_time(make_client: ClientMaker, clock: HandClock) -> None:
    busy = say({"error": "The model is currently at capacity"}, status=429)

    answer = await make_client(ScriptedXai(busy, busy)).analyze(["one"])

    assert scores(answer.results) == [score_of("one")]
    assert 5 <= clock.slept_s[0] <= 10 <= clock.slept_s[1] <= 20


async def test_three_tries_are_all(make_client: ClientMaker) -> None:
    xai = ScriptedXai(*[DOWN] * 9)

    error = await fail(make_client(xai))

    assert isinstance(error, GrokUnavailable)
    assert len(xai.calls) == 3


async def test_every_try_has_ids_of_its_own(make_client: ClientMaker) -> None:
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
    make_client: ClientMaker, status: int, message: str, kind: type[GrokError]
) -> None:
    xai = ScriptedXai(say({"error": message}, status=status))

    error = await fail(make_client(xai))

    assert type(error) is kind
    assert len(xai.calls) == 1


# A refused parameter


async def test_a_refused_parameter_is_dropped_and_the_request_sent_again(make_client: ClientMaker) -> None:
    xai = ScriptedXai(say({"error": "Model x does not support parameter reasoningEffort."}, status=400))

    answer = await make_client(xai).analyze(["one"])

    assert scores(answer.results) == [score_of("one")]
    assert [("reasoning_effort" in call.payload) for call in xai.calls] == [True, False]


async def test_a_dropped_parameter_stays_dropped(make_client: ClientMaker) -> None:
    xai = ScriptedXai(say({"error": "This model does not support `reasoning_effort` value `none`."}, status=400))
    client = make_client(xai)
    await client.analyze(["one"])

    await client.analyze(["two"])

    assert [("reasoning_effort" in call.payload) for call in xai.calls] == [True, False, False]


async def test_calls_that_are_refused_together_are_each_sent_again_once(make_client: ClientMaker) -> None:
    refuse = say({"error": "Model x does not support parameter reasoningEffort."}, status=400)
    xai = ScriptedXai(*[refuse] * 5, latency_s=0.01)
    client = make_client(xai)

    answers = await asyncio.gather(*(client.analyze([f"text {number}"]) for number in range(5)))

    assert [scores(answer.results) for answer in answers] == [[score_of(f"text {number}")] for number in range(5)]
    assert len(xai.calls) == 10


async def test_a_model_that_refuses_more_than_the_effort_is_one_to_configure(make_client: ClientMaker) -> None:
    xai = ScriptedXai(*[say({"error": "does not support parameter temperature"}, status=400)] * 9)

    error = await fail(make_client(xai))

    assert isinstance(error, GrokConfig)
    assert len(xai.calls) == 1


# Limits


class Dripping(httpx2.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.01)


class DrippingXai(httpx2.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.extensions["trace"](SENDING, {})
        return httpx2.Response(200, stream=Dripping())


async def test_the_deadline_beats_a_server_that_drips(make_client: ClientMaker) -> None:
    started = asyncio.get_running_loop().time()

    error = await fail(make_client(DrippingXai(), deadline_s=0.05))

    assert "within 0.05 s" in error.details
    assert asyncio.get_running_loop().time() - started < 2


async def test_the_window_of_calls_is_never_exceeded(make_client: ClientMaker, clock: HandClock) -> None:
    xai = ScriptedXai(DOWN, DOWN, monotonic=clock.monotonic)
    client = make_client(xai, calls_per_s=5)

    await asyncio.gather(*(client.analyze([f"text {number}"]) for number in range(40)))

    at_s = [call.at_s for call in xai.calls]
    assert len(at_s) == 42
    assert max(sum(start <= one < start + 1 for one in at_s) for start in at_s) <= 5


async def test_the_calls_in_flight_are_never_more_than_allowed(make_client: ClientMaker) -> None:
    xai = ScriptedXai(latency_s=0.005)
    client = make_client(xai, max_concurrency=3)

    await asyncio.gather(*(client.analyze([f"text {number}"]) for number in range(20)))

    assert xai.fake.most_in_flight == 3


async def test_a_thousand_cancelled_calls_leave_every_place_free(make_client: ClientMaker) -> None:
    xai = ScriptedXai(latency_s=30)
    client = make_client(xai, max_concurrency=4, calls_per_s=1_000_000)
    for _ in range(100):
        calls = [asyncio.create_task(client.analyze(["one"])) for _ in range(10)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    xai.fake.latency_s = 0
    answers = await asyncio.gather(*(client.analyze(["one"]) for _ in range(8)))

    assert len(answers) == 8
    assert client.wait_s() == 0


async def test_texts_travel_unchanged(make_client: ClientMaker) -> None:
    texts = ["\U0001f621" * 100, 'quotes " and \\ and </json>', "zero\u200bwidth", "\u202eright to left"]
    xai = ScriptedXai()

    await make_client(xai).analyze(texts)

    assert texts_of(xai.calls[0].payload) == texts
