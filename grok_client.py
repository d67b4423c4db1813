"""One exchange with xAI: several texts go out in one call, an analysis for each comes back, or a `GrokError`.

    places (semaphore) -> lane open? (told waits, breaker) -> window (calls/s) -> POST -> classify -> read the reply

The client knows nothing of rows or of the database. It retries what passes by itself (5xx, network) up to 3 times;
everything else it names, and the batch processor acts on the class.
"""

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import httpx2
import orjson
from pydantic import BaseModel, Field, ValidationError

from circuit_breaker import CircuitBreaker
from errors import (
    GrokError,
    GrokOutage,
    GrokParameterRefused,
    GrokRefused,
    GrokReplyInvalid,
    GrokThrottled,
    GrokTooLarge,
    GrokUnavailable,
)
from grok_replies import classify
from prompts import Prompt
from rate_limiter import SlidingWindow
from schemas import Analysis
from telemetry import get_logger, redact

log = get_logger()

_MOST_ATTEMPTS = 3
_FIRST_BACKOFF_S = 2.0  # 2 s x 2^n, at most 30 s, as xAI's own client does it
_LONGEST_BACKOFF_S = 30.0
_MOST_RESPONSE_BYTES = 2 * 1024 * 1024  # decompressed; 50 results need 50 KB
_CLOSED_S = 60.0  # how long the lane rests after a wrong key, no credits or a wrong model
_TOKENS_PER_RESULT = 160
_KEPT_CHARS = 2000
_SMALLEST_ID, _LARGEST_ID = 100_000, 999_999


@dataclass(frozen=True, slots=True)
class PackAnswer:
    """What came back for a pack: one result for each text, in the order sent, and who said it."""

    results: Sequence[Analysis | GrokReplyInvalid]
    model: str
    call_id: str
    latency_ms: int


class Analyzer(Protocol):
    """What the batch processor needs of whoever analyzes."""

    async def analyze(self, texts: Sequence[str]) -> PackAnswer: ...

    def wait_s(self) -> float: ...


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Completion(BaseModel):
    """The part of a chat completion that we read; the rest may change."""

    model: str = "unknown"
    choices: list[_Choice] = Field(min_length=1)
    usage: dict[str, Any] | None = None


class GrokClient:
    """Speaks xAI's chat completions (docs.x.ai/docs/api-reference) within the outbound limits."""

    def __init__(
        self,
        http: httpx2.AsyncClient,
        *,
        model: str,
        prompt: Prompt,
        window: SlidingWindow,
        breaker: CircuitBreaker,
        limits: "CallLimits",
    ) -> None:
        self._http = http
        self._model = model
        self._prompt = prompt
        self._window = window
        self._breaker = breaker
        self._limits = limits
        self._places = asyncio.Semaphore(limits.max_concurrency)
        self._turn = asyncio.Lock()
        self._closed_until = 0.0
        self.outage: GrokOutage | None = None  # a wrong key, no credits, a wrong model: until a call succeeds
        self._effort: str | None = "none"  # grok-4.3 reasons by default, at the price of reasoning
        self._conversation_id = str(uuid.uuid5(uuid.NAMESPACE_OID, prompt.version))

    async def analyze(self, texts: Sequence[str]) -> PackAnswer:
        """An analysis, or why there is none, for each of 1 to 50 texts, in order.

        Raises: GrokOutage (nobody's fault: try later), GrokTooLarge and GrokRefused (split the pack),
        GrokRequestRejected (our bug), GrokReplyInvalid (the whole answer is unusable).
        """
        async with self._places:
            return await self._analyze(texts)

    def wait_s(self) -> float:
        """Seconds until a call makes sense: a told wait, a closed lane or an open breaker; 0.0 when it does now."""
        return max(0.0, self._closed_until - self._limits.monotonic(), self._breaker.wait_s())

    async def _analyze(self, texts: Sequence[str]) -> PackAnswer:
        for attempt in range(1, _MOST_ATTEMPTS + 1):
            await self._wait_for_turn()
            try:
                return await self._attempt(texts)
            except GrokParameterRefused as error:
                log.warning("grok_parameter_dropped", model=self._model, reason=error.details)
                self._effort = None
            except GrokUnavailable as error:
                log.warning("grok_call_failed", attempt=attempt, error=error.code, reason=error.details)
                if attempt == _MOST_ATTEMPTS or self.wait_s() > 0:
                    raise
                await self._limits.sleep(_backoff_s(attempt, told_s=error.retry_after_s))
        raise GrokUnavailable("xAI refused every form of the request.")

    async def _wait_for_turn(self) -> None:
        async with self._turn:  # first come, first served
            while (wait_s := self._window.wait_s()) > 0:
                await self._limits.sleep(wait_s)
            if (wait_s := self.wait_s() or self._breaker.admit()) > 0:
                raise GrokUnavailable("Calls to xAI rest after failures.", retry_after_s=max(1, round(wait_s)))
            self._window.admit()

    async def _attempt(self, texts: Sequence[str]) -> PackAnswer:
        try:
            answer = await self._exchange(texts)
        except GrokUnavailable:
            self._breaker.record_failure()
            raise
        except GrokOutage as error:
            self._breaker.forget_probe()
            self._close_lane(error)
            raise
        except GrokError:
            self._breaker.record_success()  # it answered, if not as we wished
            raise
        except BaseException:  # cancelled, or a bug of ours: a probe left under way would keep the lane shut for ever
            self._breaker.forget_probe()
            raise
        self._breaker.record_success()
        self.outage = None
        return answer

    def _close_lane(self, error: GrokOutage) -> None:
        rest_s = float(error.retry_after_s or (_FIRST_BACKOFF_S if isinstance(error, GrokThrottled) else _CLOSED_S))
        self._closed_until = max(self._closed_until, self._limits.monotonic() + rest_s)
        if not isinstance(error, GrokThrottled):
            self.outage = error
        log.warning("grok_lane_closed", error=error.code, reason=error.details, rest_s=rest_s)

    async def _exchange(self, texts: Sequence[str]) -> PackAnswer:
        items = dict(zip(_random_ids(len(texts)), texts, strict=True))
        call_id = uuid.uuid4().hex[:12]
        started = self._limits.monotonic()
        status, headers, body = await self._post(self._payload(items, nonce=call_id))
        latency_ms = round((self._limits.monotonic() - started) * 1000)
        if status != 200:
            raise classify(status, body, headers, now=datetime.now(UTC))
        completion = _read_completion(body)
        log.debug("grok_call", call_id=call_id, pack=len(texts), latency_ms=latency_ms, usage=completion.usage)
        results = self._read_results(completion.choices[0], list(items))
        return PackAnswer(results, completion.model, call_id, latency_ms)

    def _payload(self, items: Mapping[int, str], *, nonce: str) -> dict[str, Any]:
        payload: dict[str, Any] = {
            "model": self._model,
            "temperature": 0.3,
            "max_completion_tokens": _TOKENS_PER_RESULT * (len(items) + 1),
            "messages": self._prompt.messages(items, nonce=nonce),
            "response_format": self._prompt.response_format,
        }
        if self._effort is not None:
            payload["reasoning_effort"] = self._effort
        return payload

    async def _post(self, payload: Mapping[str, Any]) -> tuple[int, Mapping[str, str], str]:
        headers = {"content-type": "application/json", "x-grok-conv-id": self._conversation_id}
        request = self._http.stream("POST", "chat/completions", content=orjson.dumps(payload), headers=headers)
        try:
            async with asyncio.timeout(self._limits.deadline_s), request as response:
                return response.status_code, response.headers, await _read_capped(response)
        except TimeoutError as exc:
            raise GrokUnavailable(f"xAI gave no whole answer within {self._limits.deadline_s:g} s.") from exc
        except httpx2.HTTPError as exc:
            raise GrokUnavailable(f"xAI cannot be reached ({type(exc).__name__}).") from exc

    def _read_results(self, choice: _Choice, ids: Sequence[int]) -> list[Analysis | GrokReplyInvalid]:
        if choice.finish_reason == "length":
            raise GrokTooLarge("xAI cut the answer off at its length limit.")
        content = choice.message.content
        if choice.message.refusal or not content or choice.finish_reason == "content_filter":
            raise GrokRefused("xAI refused to judge the text.")  # an empty content is how it refuses without saying so
        raw_answer = redact(content[:_KEPT_CHARS])
        try:
            reply = self._prompt.read_reply(content, expected=ids)
        except ValueError as error:
            raise GrokReplyInvalid(f"The answer cannot be used: {error}.", raw_answer=raw_answer) from error
        return [
            reply.analyses.get(item_id)
            or GrokReplyInvalid(f"The answer cannot be used: {reply.problems[item_id]}.", raw_answer=raw_answer)
            for item_id in ids
        ]


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How many calls at a time, how long one may take, and the clock that both are measured on."""

    max_concurrency: int
    deadline_s: float
    monotonic: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


def _random_ids(count: int) -> list[int]:
    """Different in every call, so that a text cannot name the id of another."""
    return random.SystemRandom().sample(range(_SMALLEST_ID, _LARGEST_ID + 1), count)


def _backoff_s(attempt: int, *, told_s: int | None) -> float:
    if told_s is not None:
        return float(told_s)
    longest = min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** (attempt - 1))
    return random.uniform(longest / 2, longest)


async def _read_capped(response: httpx2.Response) -> str:
    """The body as text; a body that grows past the cap when decompressed is an outage, not memory spent."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _MOST_RESPONSE_BYTES:
            raise GrokUnavailable(f"xAI sent more than {_MOST_RESPONSE_BYTES >> 20} MB.")
    return body.decode("utf-8", errors="replace")


def _read_completion(body: str) -> _Completion:
    if not body.strip():
        raise GrokUnavailable("xAI sent an empty answer.")
    try:
        return _Completion.model_validate(orjson.loads(body))
    except orjson.JSONDecodeError as exc:
        raise GrokUnavailable("Not xAI's API answered, but something on the way to it.") from exc
    except ValidationError as exc:
        raise GrokReplyInvalid("The answer is no chat completion.", raw_answer=redact(body[:_KEPT_CHARS])) from exc
