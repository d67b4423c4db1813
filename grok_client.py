"""One exchange with xAI: several texts go out in one call, an analysis for each comes back, or a `GrokError`.

    places (semaphore) -> lane open? (told waits, breaker) -> window (calls/s) -> connect -> account -> POST -> read

The client knows nothing of rows, money or the database. It retries what passes by itself (5xx, network) up to 3 times;
everything else it names, and who asked acts on the class.
"""

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import httpx2
import orjson

from errors import (
    GrokAtCapacity,
    GrokBudgetReached,
    GrokConfig,
    GrokError,
    GrokOutage,
    GrokParameterRefused,
    GrokReplyInvalid,
    GrokThrottled,
    GrokUnavailable,
)
from lane import Admission, Lane
from prompts import Prompt
from rate_limiter import CallSlot
from schemas import Analysis
from telemetry import Metrics, excerpt, get_logger, redact, unquoted
from xai import SENDING, SENT, Completion, Usage, WireRequest, classify, is_error, read_completion

log = get_logger()

_MOST_ATTEMPTS = 3
_FIRST_BACKOFF_S = 2.0  # 2 s x 2^n, at most 30 s, as xAI's own client does it
_CAPACITY_BACKOFF_S = 10.0  # "at capacity" asks for minutes
_LONGEST_BACKOFF_S = 30.0
_MOST_RESPONSE_BYTES = 2 * 1024 * 1024  # decompressed; 50 results need 50 KB
_REASONING_TOKENS, _REASONING_TOKENS_A_RESULT = 4_096, 1_024  # reserved where a model may reason: xAI has no cap
_SHORTEST_KEY = 16
_SMALLEST_ID, _LARGEST_ID = 100_000, 999_999


@dataclass(frozen=True, slots=True)
class PackAnswer:
    """What came back for a pack: one result for each text, in the order sent, and who said it."""

    results: Sequence[Analysis | GrokReplyInvalid]
    model: str
    call_id: str
    latency_ms: int


class Analyzer(Protocol):
    """What is needed of whoever analyzes; `fingerprint` names all that an answer depends on besides the text."""

    fingerprint: str

    @property
    def on_the_wire(self) -> int:
        """Calls that are sent and unanswered now; each ends at its deadline."""
        ...

    async def analyze(self, texts: Sequence[str]) -> PackAnswer: ...

    def wait_s(self) -> float: ...


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """How large a call may become, for whoever pays: a prompt token is at least one byte."""

    model: str
    prompt_bytes: int
    output_tokens: int
    conversations: int
    calls_in_window: int = 1  # this one included


# "free": answered with an error, or never sent. "unknown": nobody said, so it cost all that was reserved.
Cost = Usage | Literal["free", "unknown"]


class Account(Protocol):
    """Who pays for calls: asked before each one, told after it what it used."""

    async def reserve(self, call: PlannedCall) -> int:
        """A number for `settle`; waits a while for room in the window that others fill.

        Raises: GrokTooDear (fewer conversations may fit), GrokBudgetReached, GrokLaneShut.
        """
        ...

    async def settle(self, number: int, call: PlannedCall, cost: Cost) -> None: ...


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How many calls at a time, how long one may take, and the clock that both are measured on."""

    max_concurrency: int
    deadline_s: float
    monotonic: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class _Payment:
    """What one call costs: entered into the account before its first byte goes, settled whatever it ends in."""

    def __init__(self, account: Account, call: PlannedCall, slot: CallSlot, *, cost: Cost = "unknown") -> None:
        self.slot = slot
        self.cost: Cost = cost
        self.sent_at: float | None = None  # as the limits' clock has it
        self._account = account
        self._call = call
        self._number: int | None = None

    @property
    def is_entered(self) -> bool:
        return self._number is not None

    async def enter(self, calls_in_window: int) -> None:
        """Raises: what `Account.reserve` does."""
        assert self._number is None, "a call is entered once"
        self._call = replace(self._call, calls_in_window=calls_in_window)
        self._number = await self._account.reserve(self._call)

    async def settle(self) -> None:
        if self._number is None:
            return
        if self.cost == "unknown" and not self.slot.sent:
            self.cost = "free"
        await asyncio.shield(self._account.settle(self._number, self._call, self.cost))


class GrokClient:
    """Speaks xAI's chat completions within the outbound limits."""

    def __init__(
        self,
        http: httpx2.AsyncClient,
        *,
        template: "CallTemplate",
        lane: Lane,
        account: Account,
        limits: CallLimits,
        metrics: Metrics,
    ) -> None:
        self._http = http
        self._template = template
        self._account = account
        self._limits = limits
        self._metrics = metrics
        self._places = asyncio.Semaphore(limits.max_concurrency)
        self._effort = template.effort
        self._secret = http.headers.get("authorization", "").removeprefix("Bearer ")
        self._conversation_id = str(uuid.uuid5(uuid.NAMESPACE_OID, template.prompt.version))
        self.lane = lane
        self.on_the_wire = 0
        self.fingerprint = f"{template.model}\n{template.effort}\n{template.prompt.version}"

    async def analyze(self, texts: Sequence[str]) -> PackAnswer:
        """An analysis, or why there is none, for each of 1 to 50 texts, in order.

        Raises: GrokOutage (nobody's fault: try later), GrokTooLarge and GrokRefused (split the pack),
        GrokRequestRejected (our bug), GrokReplyInvalid (the whole answer is unusable).
        """
        async with self._places:
            return await self._analyze(texts)

    def wait_s(self) -> float:
        """Seconds until a call makes sense: a told wait, a closed lane or an open breaker; 0.0 when it does now."""
        return self.lane.wait_s()

    async def get(self, path: str) -> Any:
        """The JSON at one of xAI's free addresses, within the same limits. Raises: GrokError."""
        async with self._places:
            admission = await self.lane.enter()
            try:
                return await self._get(path, admission.slot)
            finally:
                admission.forgotten()  # the breaker judges by the calls that matter
                admission.slot.mark_sent()

    async def _get(self, path: str, slot: CallSlot) -> Any:
        call = PlannedCall(self._template.model, 0, 0, 0)
        payment = _Payment(self._account, call, slot, cost="free")  # it counts in the window that replicas share
        try:
            status, headers, body = await self._send("GET", path, payment)
            if status != 200:
                error = classify(status, body, headers, now=datetime.now(UTC))
                if isinstance(error, GrokThrottled):
                    self.lane.close(error)
                raise error
        finally:
            await payment.settle()
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as exc:
            raise GrokUnavailable("Not xAI's API answered, but something on the way to it.") from exc

    async def _analyze(self, texts: Sequence[str]) -> PackAnswer:
        for attempt in range(1, _MOST_ATTEMPTS + 1):
            try:
                return await self._attempt(texts)
            except GrokParameterRefused as error:
                log.warning("grok_parameter_dropped", model=self._template.model, reason=error.details)
                self._effort = None
            except GrokUnavailable as error:
                if attempt == _MOST_ATTEMPTS or self.wait_s() > 0 or not error.was_call:
                    raise
                await self._limits.sleep(_backoff_s(attempt, error))
        raise GrokUnavailable("xAI refused every form of the request.")

    async def _attempt(self, texts: Sequence[str]) -> PackAnswer:
        admission = await self.lane.enter()
        try:
            answer = await self._exchange(texts, admission)
        finally:
            admission.forgotten()  # where it taught nothing: cancelled, a database that refused, or a bug of ours
            admission.slot.mark_sent()  # if it was not sent, it frees its place as if it had been
        admission.succeeded()
        return answer

    def _learn(self, admission: Admission, error: GrokError) -> None:
        if not error.was_call:
            admission.forgotten()
            if isinstance(error, GrokBudgetReached):
                self.lane.close(error)
            return
        self._metrics.count_call_error(error.code)
        if isinstance(error, GrokUnavailable):
            log.warning("grok_call_failed", error=error.code, reason=unquoted(error.details))
            admission.failed()
            if error.retry_after_s is not None:
                self.lane.rest(error, error.retry_after_s)
        elif isinstance(error, GrokOutage):
            admission.forgotten()
            self.lane.close(error)
        else:
            admission.answered()

    async def _exchange(self, texts: Sequence[str], admission: Admission) -> PackAnswer:
        items = dict(zip(_random_ids(len(texts)), texts, strict=True))
        call_id = uuid.uuid4().hex[:12]
        request = self._template.fill(items, nonce=call_id, effort=self._effort)
        started = self._limits.monotonic()
        completion = await self._pay_and_send(request, admission)
        latency_ms = round((self._limits.monotonic() - started) * 1000)
        admission.answered()  # if perhaps not as we wished
        self._compare_model(completion.model)
        log.debug("grok_call", call_id=call_id, pack=len(texts), latency_ms=latency_ms)
        try:
            results = self._read_results(completion, list(items))
        except GrokError as error:
            self._metrics.count_call_error(error.code)
            raise
        return PackAnswer(results, completion.model, call_id, latency_ms)

    async def _pay_and_send(self, request: WireRequest, admission: Admission) -> Completion:
        content = request.encode()
        reasons = request.effort != "none"
        reasoning = reasons * (_REASONING_TOKENS + _REASONING_TOKENS_A_RESULT * request.results)
        most_output = request.max_output_tokens + reasoning
        call = PlannedCall(request.model, len(content), most_output, request.results)
        payment = _Payment(self._account, call, admission.slot)
        try:
            status, headers, body = await self._send("POST", "chat/completions", payment, content=content)
            if status != 200 or is_error(body):
                payment.cost = "free"
                status = 503 if status == 200 else status
                raise _error_of(request, classify(status, body, headers, now=datetime.now(UTC)))
            completion = read_completion(body)
            payment.cost = completion.usage or "unknown"
            return completion
        except GrokError as error:
            self._learn(admission, error)  # before anything is awaited: a told wait holds from when it was read
            raise
        finally:
            if payment.sent_at is not None:
                self._metrics.record_call(seconds=self._limits.monotonic() - payment.sent_at)
            await payment.settle()

    async def _send(
        self, method: str, path: str, payment: "_Payment", *, content: bytes | None = None
    ) -> tuple[int, Mapping[str, str], str]:
        """Entered into the account once the connection stands: replicas take it for sent at that moment."""

        async def watch(event: str, _info: Mapping[str, Any]) -> None:
            if event == SENDING:
                await self._enter(payment, deadline)
            elif event == SENT:
                payment.slot.mark_sent()

        headers = {"x-grok-conv-id": self._conversation_id}
        if content is not None:
            headers["content-type"] = "application/json"
        request = self._http.stream(method, path, content=content, headers=headers, extensions={"trace": watch})
        self.on_the_wire += 1
        try:
            async with asyncio.timeout(self._limits.deadline_s) as deadline, request as response:
                body = await _read_capped(response)
        except TimeoutError as exc:
            raise GrokUnavailable(f"xAI gave no whole answer within {self._limits.deadline_s:g} s.") from exc
        except httpx2.HTTPError as exc:
            raise GrokUnavailable(f"xAI cannot be reached ({type(exc).__name__}).") from exc
        finally:
            self.on_the_wire -= 1
        assert payment.is_entered, "a transport that does not tell when it sends passes by the account"
        return response.status_code, response.headers, self._hide_key(body)

    async def _enter(self, payment: "_Payment", deadline: asyncio.Timeout) -> None:
        """The account has time limits of its own, and who waits for it is not on the wire."""
        loop = asyncio.get_running_loop()
        left_s = (deadline.when() or 0.0) - loop.time()
        deadline.reschedule(None)
        self.on_the_wire -= 1
        try:
            await payment.enter(self.lane.window.count)
        finally:
            self.on_the_wire += 1
        deadline.reschedule(loop.time() + left_s)
        self.lane.check_open()
        payment.sent_at = self._limits.monotonic()

    def _hide_key(self, body: str) -> str:
        """A real key is long; a short one, such as "test", would take words out of the answer."""
        return body.replace(self._secret, "[redacted]") if len(self._secret) >= _SHORTEST_KEY else body

    def _compare_model(self, answered: str) -> None:
        """Retired names are redirected without a word, at another price."""
        if answered not in {self._template.model, "unknown"}:
            self._metrics.count_model_mismatch()
            log.warning("grok_model_differs", asked=self._template.model, answered=redact(answered))

    def _read_results(self, completion: Completion, ids: Sequence[int]) -> list[Analysis | GrokReplyInvalid]:
        content = completion.content()
        raw_answer = excerpt(content)
        try:
            reply = self._template.prompt.read_reply(content, expected=ids)
        except ValueError as error:
            raise GrokReplyInvalid(f"The answer cannot be used: {error}.", raw_answer=raw_answer) from error
        return [
            reply.analyses.get(item_id)
            or GrokReplyInvalid(f"The answer cannot be used: {reply.problems[item_id]}.", raw_answer=raw_answer)
            for item_id in ids
        ]


@dataclass(frozen=True, slots=True)
class CallTemplate:
    """What is the same in every call: whom to ask, in which words, with how much reasoning."""

    model: str
    prompt: Prompt
    effort: str | None

    def fill(self, items: Mapping[int, str], *, nonce: str, effort: str | None) -> WireRequest:
        messages = self.prompt.messages(items, nonce=nonce)
        return WireRequest(self.model, messages, self.prompt.response_format, results=len(items), effort=effort)


def _error_of(request: WireRequest, error: GrokError) -> GrokError:
    """Only the effort can be dropped, once: a model that refuses more is not one that we can use, and the rows wait."""
    if isinstance(error, GrokParameterRefused) and request.effort is None:
        return GrokConfig(error.details, raw_answer=error.raw_answer)
    return error


def _random_ids(count: int) -> list[int]:
    """Different in every call, so that a text cannot name the id of another."""
    return random.SystemRandom().sample(range(_SMALLEST_ID, _LARGEST_ID + 1), count)


def _backoff_s(attempt: int, error: GrokUnavailable) -> float:
    first_s = _CAPACITY_BACKOFF_S if isinstance(error, GrokAtCapacity) else _FIRST_BACKOFF_S
    longest_s = min(_LONGEST_BACKOFF_S, first_s * 2 ** (attempt - 1))
    return random.uniform(0.75 * longest_s, longest_s)  # so little that each rest is longer than the one before


async def _read_capped(response: httpx2.Response) -> str:
    """The body as text; a body that grows past the cap when decompressed is an outage, not memory spent."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _MOST_RESPONSE_BYTES:
            raise GrokUnavailable(f"xAI sent more than {_MOST_RESPONSE_BYTES >> 20} MB.")
    return body.decode("utf-8", errors="replace")
