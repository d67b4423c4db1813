"""What is sent to xAI is what it documents, and each part of its answer is read as what it is."""

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import GrokError, GrokRefused, GrokReplyInvalid, GrokTooLarge, GrokUnavailable
from prompts import Prompt
from tests.fake_xai_answers import XAI, Json, completion
from xai import WireRequest, read_completion

pytestmark = pytest.mark.unit

PROMPT = Prompt({"delivery_problems": "Late or lost.", "other": "Anything else."})
SCHEMA: Json = json.loads((XAI / "chat_request.schema.json").read_text())
WHITELIST = {"model", "temperature", "max_completion_tokens", "messages", "response_format", "reasoning_effort"}


def request_for(*texts: str, effort: str | None = "none", nonce: str = "n") -> WireRequest:
    messages = PROMPT.messages(dict(enumerate(texts, start=100_000)), nonce=nonce)
    return WireRequest("grok-4.3", messages, PROMPT.response_format, results=len(texts), effort=effort)


def sent(request: WireRequest) -> Json:
    payload: Json = json.loads(request.encode())
    return payload


# Requests


@pytest.mark.parametrize("effort", ["none", "low", None])
@pytest.mark.parametrize("texts", [["one"], ["one", "two"] * 25])
def test_a_request_is_one_that_xai_documents(texts: list[str], effort: str | None) -> None:
    jsonschema.validate(sent(request_for(*texts, effort=effort)), SCHEMA)


def test_only_fields_of_a_short_list_are_sent() -> None:
    assert set(sent(request_for("one"))) == WHITELIST


def test_an_effort_that_the_model_does_not_take_is_left_out() -> None:
    assert set(sent(request_for("one", effort=None))) == WHITELIST - {"reasoning_effort"}


def test_temperature_and_effort_are_said_explicitly() -> None:
    payload = sent(request_for("one"))

    assert (payload["temperature"], payload["reasoning_effort"]) == (0.3, "none")


@pytest.mark.parametrize(("texts", "tokens"), [(1, 320), (10, 1760), (50, 8160)])
def test_every_result_has_room_for_its_words(texts: int, tokens: int) -> None:
    request = request_for(*["a text"] * texts)

    assert sent(request)["max_completion_tokens"] == request.max_output_tokens == tokens


def test_the_answer_schema_is_valid_and_strict() -> None:
    response_format = sent(request_for("one"))["response_format"]["json_schema"]

    jsonschema.Draft202012Validator.check_schema(response_format["schema"])
    assert response_format["strict"] is True


def test_all_bytes_before_the_first_difference_are_the_prompts_and_the_schemas() -> None:
    one, two = request_for("a text", nonce="first"), request_for("quite another", "two", nonce="second")

    first, second = sent(one), sent(two)

    assert json.dumps(first["messages"][0]) == json.dumps(second["messages"][0])
    assert json.dumps(first["response_format"]) == json.dumps(second["response_format"])
    assert first["messages"][0]["role"] == "system"


@given(st.text(max_size=300))
def test_no_text_changes_the_form_of_a_request(text: str) -> None:
    payload = sent(request_for(text.encode("utf-8", "replace").decode()))

    assert set(payload) == WHITELIST
    assert [message["role"] for message in payload["messages"]] == ["system", "user"]


# Answers


def body_of(**changed: Any) -> str:
    return json.dumps(completion("words", **changed))


def saying(content: str | None, **message: object) -> str:
    return body_of(choices=[{"message": {"role": "assistant", "content": content, **message}}])


@pytest.mark.parametrize("finish_reason", ["stop", "end_turn", "", None, "something_new", "tool_calls"])
def test_a_finish_reason_nobody_knows_spoils_nothing(finish_reason: str | None) -> None:
    assert read_completion(json.dumps(completion("words", finish_reason=finish_reason))).content() == "words"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        pytest.param(json.dumps(completion("wor", finish_reason="length")), GrokTooLarge, id="cut off"),
        pytest.param(json.dumps(completion(None, finish_reason="length")), GrokTooLarge, id="cut off before a word"),
        pytest.param(json.dumps(completion("w", finish_reason="content_filter")), GrokRefused, id="filtered"),
        pytest.param(saying(None, refusal="No."), GrokRefused, id="refused"),
        pytest.param(saying("words", refusal="No."), GrokRefused, id="refused with words"),
        pytest.param(saying(None), GrokRefused, id="null"),
        pytest.param(saying(""), GrokRefused, id="empty"),
        pytest.param(body_of(choices=[{"message": {"role": "assistant"}}]), GrokRefused, id="no content at all"),
    ],
)
def test_a_completion_without_words_has_its_class(body: str, kind: type[GrokError]) -> None:
    completion_read = read_completion(body)

    with pytest.raises(kind):
        completion_read.content()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        pytest.param("", GrokUnavailable, id="nothing"),
        pytest.param(" \r\n", GrokUnavailable, id="a blank"),
        pytest.param("<html>Sign in</html>", GrokUnavailable, id="a page of something on the way"),
        pytest.param('{"choices": [', GrokUnavailable, id="half an answer"),
        pytest.param("null", GrokUnavailable, id="null"),
        pytest.param("[]", GrokUnavailable, id="a list"),
        pytest.param("{}", GrokReplyInvalid, id="an empty object"),
        pytest.param(body_of(choices=[]), GrokReplyInvalid, id="no choice"),
        pytest.param(body_of(choices=[Json()]), GrokReplyInvalid, id="a choice without a message"),
        pytest.param(saying(3), GrokReplyInvalid, id="a number for words"),  # type: ignore[arg-type]
        pytest.param(body_of(model="m" * 201), GrokReplyInvalid, id="a model without end"),
        pytest.param('{"error": "inside a 200"}', GrokReplyInvalid, id="an error inside a 200"),
    ],
)
def test_what_is_no_completion_has_its_class(body: str, kind: type[GrokError]) -> None:
    with pytest.raises(kind) as caught:
        read_completion(body)

    assert type(caught.value) is kind


def test_what_is_kept_of_an_answer_that_is_none_is_short_and_without_ids() -> None:
    team = "5f0b1b52-7c1e-4a53-9e0b-0d3b6f0e2a11"
    with pytest.raises(GrokReplyInvalid) as caught:
        read_completion(json.dumps({"team": team, "padding": "x" * 5000}))

    assert team not in (caught.value.raw_answer or "")
    assert 1000 < len(caught.value.raw_answer or "") <= 2000


def test_a_refusal_says_all_the_same_what_it_used() -> None:
    used = {"prompt_tokens": 1000, "completion_tokens": 3, "total_tokens": 1003}
    answer = read_completion(json.dumps(completion(None, usage=used)))

    assert answer.usage is not None
    assert (answer.usage.uncached_tokens, answer.usage.completion_tokens) == (1000, 3)


@pytest.mark.parametrize(
    "used", [None, {}, "x", {"prompt_tokens": -1, "completion_tokens": 1}, {"prompt_tokens": 1e30}]
)
def test_usage_that_cannot_be_read_leaves_the_words_as_they_are(used: Any) -> None:
    answer = read_completion(body_of(usage=used))

    assert (answer.usage, answer.content()) == (None, "words")


def test_an_answer_that_does_not_name_its_model_is_by_an_unknown_one() -> None:
    body = completion("words")
    del body["model"]

    assert read_completion(json.dumps(body)).model == "unknown"
