"""Bulk POSTs to the service, several at a time: refusals become values, waits are obeyed, faults are retried."""

import asyncio
import hashlib
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httpx2
import orjson

MAX_BATCH_ITEMS = 500  # what the service takes
_MAX_BATCH_BYTES = 4 * 1024 * 1024  # it takes 8 MB
_MAX_ID_CHARS = 255
_VERSION_MARK = "~~"  # one "~" marks the versions of an id within one file
_REQUEST_TIMEOUT_S = 60.0
_BACKOFF_S = (0.2, 5.0)
_WAIT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504, 507})
_SPLIT_STATUSES = frozenset({400, 409, 413, 422})  # something in the batch is at fault: halve it until it is found


class ServiceUnreachableError(Exception):
    """No answer for as long as we were told to wait."""


class ServiceRefusedError(Exception):
    """The service answers, but not to this: a wrong key, a wrong address."""


@dataclass(frozen=True, slots=True)
class Item:
    """One conversation as JSON, and the line it came from."""

    line: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Refusal:
    """An item the service did not take."""

    item: Item
    reason: str


@dataclass(slots=True)
class Outcome:
    """What became of a batch."""

    accepted_count: int = 0
    duplicate_count: int = 0
    version_count: int = 0  # of the accepted: their id was taken by other content
    refusals: list[Refusal] = field(default_factory=list[Refusal])

    def add(self, other: "Outcome") -> None:
        self.accepted_count += other.accepted_count
        self.duplicate_count += other.duplicate_count
        self.version_count += other.version_count
        self.refusals.extend(other.refusals)


@dataclass(slots=True)
class Batch:
    """Items that travel together; `end` counts the rows of the file up to here, `rejected` those that stay behind."""

    end: int = 0
    size_bytes: int = 0
    items: list[Item] = field(default_factory=list[Item])
    rejected: list[tuple[int, str, str]] = field(default_factory=list[tuple[int, str, str]])

    def has_room_for(self, item: Item, max_items: int) -> bool:
        return len(self.items) < max_items and self.size_bytes + len(item.body) <= _MAX_BATCH_BYTES


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to go on without any success: `first_s` until the service has answered once, then `later_s`."""

    first_s: float
    later_s: float


class BulkClient:
    """Posts batches; one wait, told by the service, holds every request."""

    def __init__(
        self,
        http: httpx2.AsyncClient,
        patience: Patience,
        *,
        tell: Callable[[str], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._patience = patience
        self._tell = tell
        self._monotonic = monotonic
        self._resume_at = 0.0
        self._advanced_at = 0.0
        self._reached = False

    async def post(self, items: list[Item]) -> Outcome:
        """Send items until the service has judged every one.

        Raises ServiceUnreachableError when patience ends without an answer; ServiceRefusedError when it ends with
        answers that ask to wait, and at once on 401, 403, 404 and the like.
        """
        if not items:
            return Outcome()
        answer = await self._exchange(items)
        results = _read_results(answer)
        if results is not None and len(results) == len(items):
            outcome, conflicts = _judge(items, results)
            if conflicts:
                await self._post_versions(conflicts, outcome)
            return outcome
        if answer.status_code < 300:
            raise ServiceRefusedError(f"the answer of {answer.url} is not that of the bulk endpoint; check API_URL.")
        if len(items) == 1:
            return Outcome(refusals=[Refusal(items[0], _sentence(answer))])
        half = len(items) // 2
        outcome = await self.post(items[:half])
        outcome.add(await self.post(items[half:]))
        return outcome

    async def _post_versions(self, conflicts: list[Refusal], outcome: Outcome) -> None:
        """Send again, under an id with the content's digest, what another file stored with other content."""
        versions = [_as_version(refusal.item) for refusal in conflicts]
        outcome.refusals.extend(
            refusal for refusal, version in zip(conflicts, versions, strict=True) if version is None
        )
        answered = await self.post([version for version in versions if version is not None])
        answered.version_count = answered.accepted_count
        outcome.add(answered)

    async def _exchange(self, items: list[Item]) -> httpx2.Response:
        body = b'{"conversations":[' + b",".join(item.body for item in items) + b"]}"
        started_at = self._monotonic()
        attempt = 0
        while True:
            await asyncio.sleep(max(0.0, self._resume_at - self._monotonic()))
            try:
                answer = await self._http.post("/api/v1/conversations/bulk", content=body)
            except httpx2.TransportError as exc:
                fault = ServiceUnreachableError(f"{type(exc).__name__}: {exc}".strip(": "))
                self._wait_or_give_up(fault, _backoff(attempt), started_at=started_at)
            else:
                self._reached = True
                if answer.status_code not in _WAIT_STATUSES:
                    self._advanced_at = self._monotonic()
                    return _refuse_useless(answer)
                asked = ServiceRefusedError(f"status {answer.status_code}: {_sentence(answer)}")
                self._wait_or_give_up(asked, _told_wait(answer) or _backoff(attempt), started_at=started_at)
            attempt += 1

    def _wait_or_give_up(
        self, fault: ServiceUnreachableError | ServiceRefusedError, wait_s: float, *, started_at: float
    ) -> None:
        patience_s = self._patience.later_s if self._reached else self._patience.first_s
        now = self._monotonic()
        if now + wait_s - max(started_at, self._advanced_at) > patience_s:
            raise type(fault)(f"no success within {patience_s:g} s ({fault})")
        self._resume_at = max(self._resume_at, now + wait_s)
        self._tell(f"waiting {wait_s:.1f} s for the service ({fault})")


@asynccontextmanager
async def connect(
    api_url: str, patience: Patience, *, api_key: str | None, concurrency: int, tell: Callable[[str], None]
) -> AsyncGenerator[BulkClient, None]:
    """A client for as long as the block lasts; proxies of the environment do not stand before the own machine."""
    headers = {"Content-Type": "application/json"} | ({"X-API-Key": api_key} if api_key else {})
    loopback = urlsplit(api_url).hostname in {"localhost", "127.0.0.1", "::1"}
    limits = httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    async with httpx2.AsyncClient(
        base_url=api_url, headers=headers, timeout=_REQUEST_TIMEOUT_S, limits=limits, trust_env=not loopback
    ) as http:
        yield BulkClient(http, patience, tell=tell)


async def post_all(
    client: BulkClient, batches: Iterable[Batch], *, concurrency: int, done: Callable[[Batch, Outcome], None]
) -> None:
    """Post every batch, at most `concurrency` at a time; `done` hears of them in their own order.

    At most twice `concurrency` batches exist at once, which bounds the memory whatever the file's size.
    Raises the first error of any post, with the others cancelled.
    """
    try:
        async with asyncio.TaskGroup() as group:
            await _feed(group, client, batches=batches, concurrency=concurrency, done=done)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors


async def _feed(
    group: asyncio.TaskGroup,
    client: BulkClient,
    *,
    batches: Iterable[Batch],
    concurrency: int,
    done: Callable[[Batch, Outcome], None],
) -> None:
    gate = asyncio.Semaphore(concurrency)
    under_way: deque[tuple[Batch, asyncio.Task[Outcome]]] = deque()

    async def post_one(batch: Batch) -> Outcome:
        async with gate:
            return await client.post(batch.items)

    for number, batch in enumerate(batches):
        under_way.append((batch, group.create_task(post_one(batch), name=f"batch {number}")))
        await asyncio.sleep(0)  # let the requests move: the file is read on this same thread
        while under_way and (len(under_way) >= 2 * concurrency or under_way[0][1].done()):
            first, task = under_way.popleft()
            done(first, await task)
    for batch, task in under_way:
        done(batch, await task)


def gather_batches(
    rows: Iterable[Item | tuple[int, str, str]], *, max_items: int = MAX_BATCH_ITEMS, end: int = 0
) -> Iterator[Batch]:
    """Rows in batches the service takes; what was rejected before travels along, so that order is kept."""
    batch = Batch(end=end)
    for row in rows:
        if isinstance(row, Item) and not batch.has_room_for(row, max_items) and batch.items:
            yield batch
            batch = Batch(end=batch.end)
        if isinstance(row, Item):
            batch.items.append(row)
            batch.size_bytes += len(row.body) + 1
        else:
            batch.rejected.append(row)
        batch.end += 1
        if len(batch.rejected) >= MAX_BATCH_ITEMS:
            yield batch
            batch = Batch(end=batch.end)
    if batch.items or batch.rejected:
        yield batch


def _backoff(attempt: int) -> float:
    base_s, cap_s = _BACKOFF_S
    return min(cap_s, base_s * 2.0**attempt) * random.uniform(0.5, 1.0)


def _told_wait(answer: httpx2.Response) -> float | None:
    told = answer.headers.get("Retry-After", "")
    return max(0.05, float(told)) if told.replace(".", "", 1).isdigit() else None


def _refuse_useless(answer: httpx2.Response) -> httpx2.Response:
    if answer.status_code < 300 or answer.status_code in _SPLIT_STATUSES:
        return answer
    raise ServiceRefusedError(f"{answer.url} answered {answer.status_code}: {_sentence(answer)}")


def _read_object(answer: httpx2.Response) -> dict[str, object]:
    try:
        body: object = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        return {}
    return cast("dict[str, object]", body) if isinstance(body, dict) else {}


def _read_results(answer: httpx2.Response) -> list[dict[str, object]] | None:
    results = _read_object(answer).get("results")
    if not isinstance(results, list):
        return None
    return [cast("dict[str, object]", result) for result in cast("list[object]", results) if isinstance(result, dict)]


def _sentence(answer: httpx2.Response) -> str:
    problem = _read_object(answer)
    said = problem.get("details") or problem.get("detail") or problem.get("error")
    return str(said)[:500] if said else f"status {answer.status_code}"


def _as_version(item: Item) -> Item | None:
    """The item under an id of its own, the same at every load; None when it already has one."""
    conversation: dict[str, object] = orjson.loads(item.body)
    external_id = str(conversation.get("external_id", ""))
    if not external_id or _VERSION_MARK in external_id:
        return None
    digest = hashlib.blake2b(item.body, digest_size=10).hexdigest()
    longest = _MAX_ID_CHARS - len(_VERSION_MARK) - len(digest)
    body = orjson.dumps({**conversation, "external_id": f"{external_id[:longest]}{_VERSION_MARK}{digest}"})
    return Item(item.line, body)


def _judge(items: list[Item], results: list[dict[str, object]]) -> tuple[Outcome, list[Refusal]]:
    """What became of the items, and those refused only because their id is taken."""
    outcome, conflicts = Outcome(), list[Refusal]()
    for position, result in enumerate(results):
        index = result.get("index", position)
        item = items[index] if isinstance(index, int) and 0 <= index < len(items) else items[position]
        match result.get("status"):
            case "accepted":
                outcome.accepted_count += 1
            case "duplicate":
                outcome.duplicate_count += 1
            case _:
                refusal = Refusal(item, str(result.get("details") or "refused by the service")[:500])
                (conflicts if result.get("error") == "conflict" else outcome.refusals).append(refusal)
    return outcome, conflicts
