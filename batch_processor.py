"""Claim a batch, analyze it with no session open, save the outcomes; over and over, as long as calls are free.

    run: own the queue -> claim (one transaction) -> per pack: analyze (no session) -> save (one fenced transaction)

A batch travels in packs, one pack a call; every pack is saved by itself, so that a slow answer holds up nobody.
What an error does to a row is decided here, by its class, and nowhere else.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import store
from database import Database
from errors import (
    GrokError,
    GrokOutage,
    GrokRefused,
    GrokRejection,
    GrokReplyInvalid,
    GrokTooLarge,
    Overloaded,
    StorageFull,
)
from grok_client import Analyzer, PackAnswer
from prefilter import why_skip
from queue_lock import QueueLock
from schemas import Analysis
from store import Claim, Completed, Failed, Outcome, Released, Skipped
from telemetry import get_logger

log = get_logger()

_LEASE = timedelta(seconds=60)
_RENEW_EVERY_S = _LEASE.total_seconds() / 3
_SHORTEST_REST_S = 0.05
_TICK_EVERY_S = 5.0  # well within the 30 s after which `/ready` calls the worker stalled
_AFTER_ERROR_S = 1.0
_RETRY_AFTER_INVALID = timedelta(seconds=2)  # doubles with every attempt
_DEEP_QUEUE_BATCHES = 4  # so many full claims in a row mean a backlog: packs may grow
_PURGE_EVERY_S = 600.0
_BUSY_REQUESTS_PER_S = 300  # about a tenth of what one process takes in
_BUSY_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class ProcessorLimits:
    """How much at a time, and how often to look; `batch_size` in rows, `max_calls` in Grok calls in flight."""

    batch_size: int
    max_calls: int
    max_attempts: int
    poll_interval_s: float
    grace_s: float = 3.0  # for what is under way at shutdown; with 5 s for open requests before it, below 10 s


class PackSize:
    """How many conversations travel in one call: grows with a backlog that flows, is halved when calls fail."""

    def __init__(self, *, smallest: int, start: int, largest: int) -> None:
        self._smallest = smallest
        self._largest = largest
        self._full_claims = 0
        self.current = start

    def record_claim(self, *, full: bool) -> None:
        self._full_claims = self._full_claims + 1 if full else 0
        if self._full_claims >= _DEEP_QUEUE_BATCHES:
            self.current = min(self._largest, self.current * 2)
            self._full_claims = 0

    def record_failure(self) -> None:
        self.current = max(self._smallest, self.current // 2)
        self._full_claims = 0


class BatchProcessor:
    """The worker of the queue. `run` ends when `stop` is called; `wake` cuts a rest short."""

    def __init__(
        self,
        database: Database,
        analyzer: Analyzer,
        *,
        limits: ProcessorLimits,
        pack_size: PackSize,
        queue_lock: QueueLock | None,
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._analyzer = analyzer
        self._limits = limits
        self._pack_size = pack_size
        self._queue_lock = queue_lock
        self._now = now
        self._arrived, self._counted_at, self._busy = 0, now(), False
        self._stopping = asyncio.Event()
        self._woken = asyncio.Event()
        self._packs: set[asyncio.Task[None]] = set()
        self._in_hand: dict[str, Claim] = {}
        self._next_due_at: datetime | None = None
        self.ticked_at: datetime | None = None

    def wake(self, requests: int = 1) -> None:
        """There is work, brought by so many requests: do not rest."""
        self._arrived += requests
        self._woken.set()

    async def run(self) -> None:
        """Work until `stop`; an error in the loop is logged and the loop goes on."""
        self.ticked_at = self._now()
        helpers = [
            self._own_task(self._repeat(self._renew_leases, every_s=_RENEW_EVERY_S), "renew-leases"),
            self._own_task(self._repeat(self._purge, every_s=_PURGE_EVERY_S), "purge"),
        ]
        try:
            while not self._stopping.is_set():
                if not await self._survive(self._take_turn, "processor_failed"):
                    await self._pause(_AFTER_ERROR_S)
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            await self._hand_back()

    def stop(self) -> None:
        self._stopping.set()
        self._woken.set()

    async def run_once(self) -> float:
        """Claim one batch, if a call is free, and send it on its way; returns how long to rest, in seconds."""
        self._woken.clear()
        await self._let_requests_pass()
        if not await self._own_queue():
            return self._limits.poll_interval_s
        if (wait_s := self._analyzer.wait_s()) > 0:
            return min(wait_s, self._limits.poll_interval_s)
        if len(self._packs) >= self._limits.max_calls:
            await self._wait_for_a_pack()
            return 0.0
        wanted = max(self._limits.batch_size, self._pack_size.current)
        claim = partial(store.claim_batch, limit=wanted, now=self._now(), lease=_LEASE)
        claims = await self._database.write(claim)
        self._pack_size.record_claim(full=len(claims) == wanted)
        if not claims:
            return self._until_next_due()
        self._send_off(claims)
        return 0.0

    async def drain(self) -> None:
        """Wait until every pack under way has been saved."""
        while self._packs:
            await self._wait_for_a_pack()

    async def _take_turn(self) -> None:
        rest_s = await self.run_once()
        self.ticked_at = self._now()  # a turn that fails is no progress
        await self._rest(rest_s)

    async def _survive(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> bool:
        """Whether `work` ended well; whatever it raises is logged, and the loop that called goes on."""
        try:
            await work()
        except (Overloaded, StorageFull) as error:
            log.warning(name, error=error.code)
            return False
        except Exception:
            log.exception(name)
            return False
        return True

    async def _repeat(self, work: Callable[[], Coroutine[Any, Any, None]], *, every_s: float) -> None:
        while True:
            await self._survive(work, "upkeep_failed")
            await asyncio.sleep(every_s)

    def _until_next_due(self) -> float:
        """The poll, or less when a row that was released comes due before it."""
        poll_s = self._limits.poll_interval_s
        if self._next_due_at is None:
            return poll_s
        left_s = (self._next_due_at - self._now()).total_seconds()
        if left_s <= 0:
            self._next_due_at = None
        return min(poll_s, max(left_s, _SHORTEST_REST_S))

    async def _let_requests_pass(self) -> None:
        """Requests come first: while many arrive, a batch starts only every 200 ms."""
        elapsed_s = (self._now() - self._counted_at).total_seconds()
        if not 0 <= elapsed_s < _BUSY_PAUSE_S / 2:  # below 0 when the clock was set back
            self._busy = self._arrived > _BUSY_REQUESTS_PER_S * elapsed_s
            self._arrived, self._counted_at = 0, self._now()
        if self._busy:
            await self._pause(_BUSY_PAUSE_S)

    async def _own_queue(self) -> bool:
        """With a lock, work only while holding it; getting it means that its last owner and its claims are gone."""
        if self._queue_lock is None or self._queue_lock.held:
            return True
        if not self._queue_lock.acquire():
            return False
        try:
            abandoned = await self._database.write(partial(store.release_abandoned, now=self._now()))
        except BaseException:
            self._queue_lock.release()  # owning without releasing would leave those rows to their leases
            raise
        log.info("queue_owned", abandoned=abandoned)
        return True

    def _send_off(self, claims: Sequence[Claim]) -> None:
        self._in_hand.update({claim.conversation_id: claim for claim in claims})
        skipped: list[Outcome] = []
        fresh: list[Claim] = []
        alone: list[Claim] = []
        for claim in claims:
            if (reason := why_skip(claim.text)) is not None:
                skipped.append(Skipped(claim, reason))
            elif claim.attempts or claim.rescues:  # it spoiled an answer, or an owner died with it
                alone.append(claim)
            else:
                fresh.append(claim)
        size = self._pack_size.current
        packs = [fresh[start : start + size] for start in range(0, len(fresh), size)] + [[claim] for claim in alone]
        if skipped:
            self._track(self._save(skipped), "skip")
        for pack in packs:
            self._track(self._process(pack), "pack")

    async def _process(self, pack: Sequence[Claim]) -> None:
        try:
            await self._save(await self._analyze(pack))
        except Exception:  # our bug: let the leases end, so that the rows are rescued, and not for ever
            for claim in pack:
                self._in_hand.pop(claim.conversation_id, None)
            raise

    async def _analyze(self, pack: Sequence[Claim]) -> list[Outcome]:
        """An outcome for each row of the pack; no session is open, and every error becomes a value."""
        try:
            answer = await self._analyzer.analyze([claim.text for claim in pack])
        except GrokOutage as error:
            self._pack_size.record_failure()
            due_at = self._now() + timedelta(seconds=max(self._analyzer.wait_s(), error.retry_after_s or 0, 1))
            return [Released(claim, due_at) for claim in pack]
        except GrokRejection as error:
            if len(pack) > 1 and isinstance(error, (GrokRefused, GrokTooLarge)):
                halves = await asyncio.gather(
                    self._analyze(pack[: len(pack) // 2]), self._analyze(pack[len(pack) // 2 :])
                )
                return halves[0] + halves[1]
            return [Failed(claim, error.code, error.details, error.raw_answer) for claim in pack]
        except GrokReplyInvalid as error:
            return [self._after_invalid(claim, error) for claim in pack]
        except GrokError as error:
            return [Failed(claim, error.code, error.details, error.raw_answer) for claim in pack]
        return self._attach(pack, answer)

    def _attach(self, pack: Sequence[Claim], answer: PackAnswer) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for claim, result in zip(pack, answer.results, strict=True):
            if isinstance(result, Analysis):
                outcomes.append(Completed(claim, result, answer.model))
            else:
                outcomes.append(self._after_invalid(claim, result))
        log.info("pack_analyzed", call_id=answer.call_id, pack=len(pack), latency_ms=answer.latency_ms)
        return outcomes

    def _after_invalid(self, claim: Claim, error: GrokReplyInvalid) -> Outcome:
        if claim.attempts + 1 >= self._limits.max_attempts:
            return Failed(claim, error.code, error.details, error.raw_answer)
        return Released(claim, self._now() + _RETRY_AFTER_INVALID * 2**claim.attempts, spent_attempt=True)

    async def _save(self, outcomes: Sequence[Outcome]) -> None:
        """Save until it is saved: an answer that was paid for is kept through a locked file or a full disk."""
        while True:
            try:
                fenced = await self._database.write(partial(store.save_outcomes, outcomes=outcomes, now=self._now()))
                break
            except (Overloaded, StorageFull) as error:
                log.warning("save_waits", error=error.code, rows=len(outcomes))
                if self._stopping.is_set():
                    raise
                await self._pause(_AFTER_ERROR_S)
        refused = {claim.conversation_id for claim in fenced}
        for outcome in outcomes:
            self._in_hand.pop(outcome.claim.conversation_id, None)
            if isinstance(outcome, Released):
                self._note_due(outcome.due_at)
            _log_outcome(outcome, now=self._now(), fenced=outcome.claim.conversation_id in refused)

    def _note_due(self, due_at: datetime) -> None:
        if self._next_due_at is None or due_at < self._next_due_at:
            self._next_due_at = due_at
            self._woken.set()

    async def _renew_leases(self) -> None:
        if claims := list(self._in_hand.values()):
            until = self._now() + _LEASE
            await self._database.write(partial(store.renew_leases, claims=claims, until=until))

    async def _purge(self) -> None:
        await self._database.write(partial(store.purge_idempotency_keys, now=self._now()))

    async def _hand_back(self) -> None:
        """Give what is under way a moment to end, then release every row that is still in hand."""
        if self._packs:
            _, late = await asyncio.wait(self._packs, timeout=self._limits.grace_s)
            for pack in late:
                pack.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._in_hand:
            released = [Released(claim, self._now()) for claim in self._in_hand.values()]
            await self._database.write(partial(store.save_outcomes, outcomes=released, now=self._now()))
            log.info("claims_released", rows=len(released))
        if self._queue_lock is not None:
            self._queue_lock.release()

    async def _rest(self, seconds: float) -> None:
        """Until woken; ticking meanwhile, for a rest is no standstill."""
        clock = asyncio.get_running_loop().time
        ends_at = clock() + (max(seconds, _SHORTEST_REST_S) if seconds > 0 else 0.0)
        while not (self._woken.is_set() or self._stopping.is_set()) and (left_s := ends_at - clock()) > 0:
            self.ticked_at = self._now()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), min(left_s, _TICK_EVERY_S))

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _wait_for_a_pack(self) -> None:
        timeout_s = min(self._limits.poll_interval_s, _TICK_EVERY_S)
        await asyncio.wait(self._packs, return_when=asyncio.FIRST_COMPLETED, timeout=timeout_s)

    def _track(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = self._own_task(work, name)
        self._packs.add(task)
        task.add_done_callback(self._packs.discard)

    def _own_task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(_log_death)
        return task


def _log_death(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("task_died", task=task.get_name(), exc_info=error)


def _log_outcome(outcome: Outcome, *, now: datetime, fenced: bool) -> None:
    """What a row went through, in one line; never its text."""
    claim = outcome.claim
    trail = log.bind(
        conversation_id=claim.conversation_id,
        attempts=claim.attempts,
        rescues=claim.rescues,
        since_accepted_ms=round((now - claim.created_at).total_seconds() * 1000),
    )
    if fenced:
        trail.warning("conversation_taken_over")
        return
    match outcome:
        case Completed():
            trail.info("conversation_completed", model=outcome.model, confidence=outcome.analysis.confidence)
        case Skipped():
            trail.info("conversation_skipped", reason=outcome.reason)
        case Failed():
            trail.error("conversation_failed", error=outcome.code, reason=outcome.error)
        case Released():
            trail.info("conversation_released", due_at=outcome.due_at, spent_attempt=outcome.spent_attempt)
