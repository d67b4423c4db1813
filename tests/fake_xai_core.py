"""The fake xAI without a socket: takes a request, decides on an answer or a fault, and writes the journal of it."""

import asyncio
import functools
import itertools
import json
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2
import jsonschema
import orjson

from tests.fake_xai_answers import (
    MODELS,
    REASONING_TOKENS,
    XAI,
    Answer,
    Draft,
    Json,
    Judge,
    Model,
    Usage,
    api_key_body,
    completion,
    derived,
    items_of,
    language_models_body,
    resolve_model,
    tokens_of,
)
from tests.fake_xai_faults import FAULTS, Choice, Fault, Plan, fixture, no_faults
from tests.fake_xai_journal import Call, Journal
from xai import SENDING, SENT

_UNCACHED_TOKENS = 4  # of a known prefix, its end is read again
_LIMIT_HEADERS = {  # those of the lowest tier
    "x-ratelimit-limit-requests": "1800",
    "x-ratelimit-remaining-requests": "1799",
    "x-ratelimit-limit-tokens": "10000000",
    "x-ratelimit-remaining-tokens": "9990000",
}


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came; names of headers in lower case, moments on the fake's clock."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    arrived_at: float  # its first bytes
    complete_at: float


@dataclass(kw_only=True)
class FakeXai:
    """xAI's manners. Every member may be changed while it runs: a key withdrawn, a plan swapped, a wait made longer."""

    keys: Collection[str] | None = None  # None: any key is good
    models: Mapping[str, Model] = field(default_factory=lambda: MODELS)
    judge: Judge = derived
    script: list[Choice] = field(default_factory=list[Choice])  # for the next chat calls; None is a good answer
    plan: Plan = no_faults  # asked once the script is at its end
    check_script: list[Choice] = field(default_factory=list[Choice])  # for the next calls to the other two paths
    calls_per_s: int | None = None
    retry_after: str | None = None  # told when `calls_per_s` is exceeded
    latency_s: float = 0.0
    ticks: bool = True
    account: Json = field(default_factory=dict[str, Any])  # what /v1/api-key says otherwise: {"team_blocked": True}
    journal: Journal = field(default_factory=Journal)
    keeps_payloads: bool = True
    monotonic: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.in_flight = self.most_in_flight = 0
        self._numbers = itertools.count(1)
        self._admitted = deque[float]()
        self._known_prefixes: set[tuple[str, bytes]] = set()

    def receive(self, request: Request) -> tuple[Call, Answer]:
        """The answer to a whole request; who sends it says `finish` afterwards, however that went."""
        call = self._enter(request)
        try:
            answer = self._decide(request, call)
            call.status, call.cost_ticks = answer.status, answer.usage.cost_ticks
            call.prompt_tokens, call.cached_tokens = answer.usage.prompt, answer.usage.cached
        finally:
            self.journal.write(call)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        headers = {**answer.headers, "x-request-id": str(uuid.uuid4())}
        return call, replace(answer, headers=headers, delay_s=answer.delay_s + self.latency_s)

    def finish(self, call: Call, *, answered: bool) -> None:
        self.in_flight -= 1
        if answered:
            call.answered_at = self.monotonic()
            self.journal.write_answered(call)

    def _enter(self, request: Request) -> Call:
        call = Call(
            number=next(self._numbers),
            arrived_at=request.arrived_at,
            complete_at=request.complete_at,
            path=request.path.partition("?")[0],
            key_end=_key_of(request)[-4:],
            conversation=request.headers.get("x-grok-conv-id"),
            in_flight=self.in_flight + 1,
        )
        self.journal.calls.append(call)
        return call

    def _decide(self, request: Request, call: Call) -> Answer:
        key = _key_of(request)
        if not key:
            return _refuse(call, fixture("no_key"), name="no_key")
        if self.keys is not None and key not in self.keys:
            return _refuse(call, fixture("bad_key"), name="bad_key")
        match request.method, call.path:
            case "POST", "/v1/chat/completions":
                return self._chat(request, call)
            case "GET", "/v1/api-key":
                return self._tell(call, api_key_body(key, **self.account))
            case "GET", "/v1/language-models":
                return self._tell(call, language_models_body(self.models))
            case _:
                return Answer(404, b"404 page not found", {"content-type": "text/plain"})

    def _tell(self, call: Call, body: Json) -> Answer:
        choice = self.check_script.pop(0) if self.check_script else None
        return _spoil(call, choice, Draft({}, [], body, Usage()))

    def _chat(self, request: Request, call: Call) -> Answer:
        """Faults of the script and of the plan befall calls that would be answered well."""
        try:
            payload = _read_payload(request.body)
        except orjson.JSONDecodeError:
            return _refuse(call, fixture("bad_json"), name="bad_json")
        except TypeError:
            return _refuse(call, fixture("bad_type"), name="bad_type")
        self._note(call, payload)
        if not self._admit(call.arrived_at):
            told = {} if self.retry_after is None else {"retry_after": self.retry_after}
            return _refuse(call, fixture("rate_limit", **told), name="rate_limit")
        if refused := self._refusal(payload):
            return _refuse(call, fixture(refused), name=refused)
        choice = self.script.pop(0) if self.script else self.plan(call.number, payload)
        answer = _spoil(call, choice, self._draft(call, payload))
        if answer.usage.prompt and call.conversation:
            self._known_prefixes.add((call.conversation, _prefix_of(payload)))
        limits = _LIMIT_HEADERS if answer.status == 200 else {}
        return replace(answer, headers={**answer.headers, **limits})

    def _note(self, call: Call, payload: Json) -> None:
        items = items_of(payload)
        call.model, call.effort = payload["model"], payload.get("reasoning_effort")
        call.texts = [item["text"] for item in items] or [_text_of(payload["messages"][-1])]
        call.ids = [item["id"] for item in items]
        call.problem = _find_problem(payload)
        call.valid = call.problem is None
        call.payload = payload if self.keeps_payloads else None

    def _admit(self, now: float) -> bool:
        while self._admitted and self._admitted[0] <= now - 1:
            self._admitted.popleft()
        if self.calls_per_s is not None and len(self._admitted) >= self.calls_per_s:
            return False
        self._admitted.append(now)
        return True

    def _refusal(self, payload: Json) -> str | None:
        """The name of the error that answers a model or an effort that is not known."""
        effort = payload.get("reasoning_effort")
        model = self.models.get(resolve_model(payload["model"]))
        if model is None:
            return "model_missing_400"
        if _prompt_tokens(payload) > model.context_tokens:
            return "context_too_long"
        if effort is None or effort in model.efforts:
            return None
        return "effort_value" if model.efforts else "effort_unsupported"

    def _draft(self, call: Call, payload: Json) -> Draft:
        name = resolve_model(payload["model"])
        results = [{"id": item["id"], **self.judge(item["text"])} for item in items_of(payload)]
        content = (
            orjson.dumps({"results": results}).decode() if results else "I am a fake, and have read what you wrote."
        )
        visible = content[: 4 * (payload.get("max_completion_tokens") or len(content))]
        usage = self._usage(call, payload, self.models[name], visible)
        finish_reason = "stop" if visible == content else "length"
        body = completion(visible, finish_reason=finish_reason, model=name, usage=usage.body(ticks=self.ticks))
        return Draft(payload, results, body, usage)

    def _usage(self, call: Call, payload: Json, model: Model, content: str) -> Usage:
        prompt, prefix = _prompt_tokens(payload), _prefix_of(payload)
        known = (call.conversation, prefix) in self._known_prefixes
        cached = max(0, tokens_of(prefix) - _UNCACHED_TOKENS) if known else 0
        written = tokens_of(content)
        reasoning = REASONING_TOKENS[payload.get("reasoning_effort") or model.default_effort]
        cost_ticks = model.cost_ticks(prompt=prompt, cached=cached, output=written + reasoning)
        return Usage(prompt, cached, written, reasoning, cost_ticks)


def _key_of(request: Request) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _refuse(call: Call, fault: Fault, *, name: str) -> Answer:
    call.fault = name
    return fault(Draft({}, [], {}, Usage()))


def _spoil(call: Call, choice: Choice, draft: Draft) -> Answer:
    if choice is None:
        return draft.answer()
    call.fault = choice if isinstance(choice, str) else getattr(choice, "__name__", "of the test's own")
    return (FAULTS[choice] if isinstance(choice, str) else choice)(draft)


def _read_payload(body: bytes) -> Json:
    payload: Json = orjson.loads(body)
    messages, model = payload["messages"], payload["model"]
    if not isinstance(model, str) or not messages or not all(isinstance(one, dict) for one in messages):
        raise TypeError
    return payload


def _text_of(message: Json) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else orjson.dumps(content).decode()


def _prefix_of(payload: Json) -> bytes:
    """What is the same in every call of a prompt: the system's words and the schema."""
    system = "".join(_text_of(message) for message in payload["messages"] if message.get("role") == "system")
    return system.encode() + orjson.dumps(payload.get("response_format"))


def _prompt_tokens(payload: Json) -> int:
    spoken = sum(tokens_of(_text_of(message)) for message in payload["messages"] if message.get("role") != "system")
    return spoken + tokens_of(_prefix_of(payload))


def _find_problem(payload: Json) -> str | None:
    """Why a payload does not fit xAI's schema; the words of messages are left out, they are free."""
    messages = [
        {**message, "content": "words"} if isinstance(message.get("content"), str) else message
        for message in payload["messages"]
    ]
    return _find_problem_of_form(orjson.dumps({**payload, "messages": messages}))


@functools.lru_cache(maxsize=256)
def _find_problem_of_form(form: bytes) -> str | None:
    try:
        _request_validator().validate(orjson.loads(form))  # pyright: ignore[reportUnknownMemberType] - its stubs
    except jsonschema.ValidationError as error:
        return f"{error.json_path}: {error.message}"
    return None


@functools.cache
def _request_validator() -> jsonschema.Draft202012Validator:
    """Made once: `jsonschema.validate` judges the schema too, for 30 ms in which other calls are noted too late."""
    return jsonschema.Draft202012Validator(json.loads((XAI / "chat_request.schema.json").read_text("utf-8")))


class FakeXaiTransport(httpx2.AsyncBaseTransport):
    """The fake below a client in this process; a fault that raises reaches the client as it is."""

    def __init__(self, fake: FakeXai) -> None:
        self.fake = fake

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = await request.aread()
        if trace := request.extensions.get("trace"):
            await trace(SENDING, {})  # as a connection would
            await trace(SENT, {})
        return await self.answer(request, body)

    async def answer(self, request: httpx2.Request, body: bytes) -> httpx2.Response:
        now = self.fake.monotonic()
        headers = {name.lower(): value for name, value in request.headers.items()}
        call, answer = self.fake.receive(Request(request.method, request.url.path, headers, body, now, now))
        answered = False
        try:
            if answer.delay_s:
                await asyncio.sleep(answer.delay_s)
            if answer.ending == "reset":
                raise httpx2.ReadError("reset by the fake", request=request)
            answered = True
            return httpx2.Response(answer.status, headers=dict(answer.headers), stream=_Body(answer))
        finally:
            self.fake.finish(call, answered=answered)


class _Body(httpx2.AsyncByteStream):
    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        body, answer = self._answer.body, self._answer
        if answer.ending == "cut":
            yield body[: len(body) // 2]
            raise httpx2.RemoteProtocolError("cut by the fake")
        if not answer.drip_s:
            yield body
            return
        for at in range(len(body)):
            yield body[at : at + 1]
            await asyncio.sleep(answer.drip_s)
