"""Claim a batch, have it read with no session open, save the outcomes; over and over, as long as calls are free.

    run: own the queue -> claim (one transaction) -> sort -> per pack: read (no session) -> save (fenced transaction)

A batch travels in packs, one pack a call; every pack is saved by itself, so that a slow answer holds up nobody.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import store
from batch_processor.hand import Hand
from batch_processor.telling import count_outcome, log_outcome
from database import Database
from errors import Overloaded, StorageFull
from queue_lock import QueueLock
from reader import Canary, Question, Reader
from store import MAX_RESCUES, Claim, Outcome, Released
from survival import pass_by, survive
from telemetry import Metrics, get_logger

log = get_logger()

_RENEWALS_A_LEASE = 3
_SHORTEST_REST_S = 0.05
_LOOK_FOR_OWNER_S = 1.0  # how often to try for the queue of another process, which may die at any time
_HAND_BACK_S = 1.5  # a database that does not answer must not hold up the end: the rows are rescued instead
_TICK_EVERY_S = 5.0  # well within the 30 s after which `/ready` calls the worker stalled
_AFTER_ERROR_S = 1.0
_PURGE_EVERY_S = 600.0
_BUSY_REQUESTS_PER_S = 300  # about a tenth of what one process takes in
_BUSY_PAUSE_S = 0.2
_THROUGHPUT_WINDOW = timedelta(minutes=1)
_MOST_IN_HAND = 5_000  # thousands of equal texts may wait for one answer, and are saved together
_CANARIES_WAIT = 50  # as many as it takes to judge the packs
_MOST_CANARIES = 200


@dataclass(frozen=True, slots=True)
class ProcessorLimits:
    """How much at a time, and how often to look; `batch_size` in rows, `max_calls` in Grok calls in flight.

    `lease`: for so long a claim holds when its owner dies on another host.
    """

    batch_size: int
    max_calls: int
    poll_interval_s: float
    call_deadline_s: float
    lease: timedelta = timedelta(seconds=60)
    grace_s: float = 3.0  # for what is under way at shutdown; with 5 s for open requests before it, below 10 s


class BatchProcessor:
    """The worker of the queue. `run` ends when `stop` is called; `wake` cuts a rest short.

    `beats` grows while the loop turns, well or badly. `ticked_at`: when the queue was last seen to be worked, by this
    process or by its owner. `idle_since`: for how long no row has been due, as far as this process can see.
    """

    def __init__(
        self,
        database: Database,
        reader: Reader,
        *,
        limits: ProcessorLimits,
        queue_lock: QueueLock | None,
        metrics: Metrics,
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._reader = reader
        self._limits = limits
        self._queue_lock = queue_lock
        self._metrics = metrics
        self._now = now
        self._finished: deque[tuple[datetime, int]] = deque()
        self._canaries: deque[Canary] = deque(maxlen=_MOST_CANARIES)
        self._canary: asyncio.Task[None] | None = None
        self._arrived, self._counted_at, self._busy = 0, now(), False
        self._stopping = asyncio.Event()
        self._woken = asyncio.Event()
        self._packs: set[asyncio.Task[None]] = set()
        self._in_hand = Hand()
        self._next_due_at: datetime | None = None
        self._stands_still = False  # hands full, nothing ends, and no call is under way that may take its time
        self.beats = 0
        self.ticked_at = now()  # one that is started again and again must not look alive
        self._renewed_at = now()
        self.idle_since: datetime | None = None

    def wake(self, requests: int = 1) -> None:
        """There is work, brought by so many requests: do not rest."""
        self._arrived += requests
        self._woken.set()

    async def run(self) -> None:
        """Work until `stop`; an error in the loop is logged and the loop goes on."""
        renew_every_s = self._limits.lease.total_seconds() / _RENEWALS_A_LEASE
        helpers = [
            self._own_task(self._repeat(self._renew_leases, every_s=renew_every_s), "renew-leases"),
            self._own_task(self._repeat(self._purge, every_s=_PURGE_EVERY_S), "purge"),
        ]
        try:
            while not self._stopping.is_set():
                if not await survive(self._take_turn, "processor_failed"):
                    await self._pause(_AFTER_ERROR_S)
                self.beats += 1
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
            self.idle_since = None
            return min(self._limits.poll_interval_s, _LOOK_FOR_OWNER_S)
        if (wait_s := self._reader.wait_s()) > 0:
            self.idle_since = None
            return min(wait_s, self._limits.poll_interval_s)
        if self._has_hands_full():
            ended = await self._wait_for_a_pack()
            self._stands_still = not (ended or self._reader.on_the_wire)
            return 0.0
        self._stands_still = False
        claims = await self._claim()
        self._send_canaries(idle=not claims)
        if not claims:
            self.idle_since = None if self._in_hand else self.idle_since or self._now()
            return self._until_next_due()
        self.idle_since = None
        await self._send_off(claims)
        return 0.0

    def _has_hands_full(self) -> bool:
        if len(self._packs) >= self._limits.max_calls or len(self._in_hand) >= _MOST_IN_HAND:
            return True
        return (self._in_hand.most_rescues or 0) >= MAX_RESCUES  # it is to be the only one if the process dies again

    async def _claim(self) -> list[Claim]:
        if self._now() - self._renewed_at >= self._limits.lease:  # the clock was set forward, or the host slept:
            await self._renew_leases()  # what is in hand seems to be due
        wanted = max(self._limits.batch_size, self._reader.pack_size.current)
        claim = partial(
            store.claim_batch,
            limit=wanted,
            now=self._now(),
            lease=self._limits.lease,
            most_rescues=self._in_hand.most_rescues,
        )
        pass_by("before_claim")
        claims = await self._database.write(claim)
        pass_by("after_claim")
        self._metrics.count_rescued(sum(claim.rescues > 0 for claim in claims))
        self._reader.pack_size.record_claim(full=len(claims) >= wanted)
        return claims

    def _send_canaries(self, *, idle: bool) -> None:
        """Conversations come first: with a backlog, one canary at a time, and only when many wait.

        But the first few of a new pack size go at once: a size that spoils answers must not read on for long.
        """
        free = self._limits.max_calls - len(self._packs)
        if not (idle or self._reader.pack_size.is_unproven):
            busy = self._canary is not None and not self._canary.done()
            free = int(len(self._canaries) >= _CANARIES_WAIT and not busy)
        for _ in range(min(free, len(self._canaries))):
            self._canary = self._track(self._reader.recheck(self._canaries.popleft()), "canary")

    def finished_per_s(self) -> float:
        """Conversations that came to an end, a second, over the last minute."""
        self._forget_finished()
        return sum(count for _, count in self._finished) / _THROUGHPUT_WINDOW.total_seconds()

    def _forget_finished(self) -> None:
        since = self._now() - _THROUGHPUT_WINDOW
        while self._finished and self._finished[0][0] < since:
            self._finished.popleft()

    async def drain(self) -> None:
        """Wait until every pack under way has been saved."""
        while self._packs:
            await self._wait_for_a_pack()

    async def _take_turn(self) -> None:
        rest_s = await self.run_once()
        if not self._stands_still:  # nor is a turn that fails progress
            self._tick()
        await self._rest(rest_s)

    def _tick(self) -> None:
        """The queue is worked, or rests for a reason; of another owner this process knows what that one told."""
        self.beats += 1
        now = self._now()
        self.ticked_at = now if self._queue_lock is None else self._queue_lock.beat(now)

    async def _repeat(self, work: Callable[[], Coroutine[Any, Any, None]], *, every_s: float) -> None:
        while True:
            await survive(work, "upkeep_failed")
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
            await self._database.write(partial(store.charge_abandoned, called_before=self._now()), alone=True)
        except BaseException:
            self._queue_lock.release()  # owning without releasing would leave those rows to their leases
            raise
        log.info("queue_owned", abandoned=abandoned)
        return True

    async def _send_off(self, claims: Sequence[Claim]) -> None:
        self._in_hand.take(claims)
        with self._let_go_on_error(claims):
            batch = await self._reader.sort(claims)
        for outcomes in _apart(batch.outcomes):
            self._track(self._save(outcomes), "save")
        for pack in batch.packs:
            self._track(self._read(pack), "pack")

    async def _read(self, pack: Sequence[Question]) -> None:
        with self._let_go_on_error(claim for question in pack for claim in question.claims):  # those that join it, too
            reading = await self._reader.read(pack)
            pass_by("after_call")
        await self._save(reading.outcomes)
        self._canaries.extend(reading.canaries)

    @contextmanager
    def _let_go_on_error(self, claims: Iterable[Claim]) -> Generator[None, None, None]:
        """After a bug of ours the leases end by themselves, so that the rows are rescued, and not for ever."""
        try:
            yield
        except Exception:  # whatever it is: it goes on to the task's owner, which logs it
            self._in_hand.drop(claims)
            raise

    async def _save(self, outcomes: Sequence[Outcome]) -> None:
        claims = [outcome.claim for outcome in outcomes]
        with self._let_go_on_error(claims):
            fenced = await self._save_patiently(outcomes)
            pass_by("after_save")
        self._in_hand.drop(claims)
        if not self._in_hand:
            self._woken.set()  # a suspect may wait for an empty hand
        self._metrics.count_fenced(len(fenced))
        refused = {claim.fence for claim in fenced}
        ended = 0
        for outcome in outcomes:
            if isinstance(outcome, Released):
                self._note_due(outcome.due_at)
            is_fenced = outcome.claim.fence in refused
            log_outcome(outcome, now=self._now(), fenced=is_fenced)
            if not is_fenced and not isinstance(outcome, Released):
                count_outcome(self._metrics, outcome)
                ended += 1
        self._finished.append((self._now(), ended))
        self._forget_finished()

    async def _save_patiently(self, outcomes: Sequence[Outcome]) -> list[Claim]:
        """Until it is saved: an answer that was paid for is kept through a locked file or a full disk."""
        while True:
            try:
                save = partial(store.save_outcomes, outcomes=outcomes, now=self._now())
                return await self._database.write(save, alone=True)
            except (Overloaded, StorageFull) as error:
                log.warning("save_waits", error=error.code, rows=len(outcomes))
                if self._stopping.is_set():
                    raise
                await self._pause(_AFTER_ERROR_S)

    def _note_due(self, due_at: datetime) -> None:
        if self._next_due_at is None or due_at < self._next_due_at:
            self._next_due_at = due_at
            self._woken.set()

    async def _renew_leases(self) -> None:
        now = self._now()
        if claims := self._in_hand.claims:
            until = now + self._limits.lease
            await self._database.write(partial(store.renew_leases, claims=claims, until=until))
        self._renewed_at = now

    async def _purge(self) -> None:
        await self._database.write(partial(store.purge_idempotency_keys, now=self._now()))
        await self._reader.purge()
        dead = self._now() - timedelta(seconds=2 * self._limits.call_deadline_s)
        await self._database.write(partial(store.charge_abandoned, called_before=dead), alone=True)

    async def _hand_back(self) -> None:
        """Give what is under way a moment to end, then release every row that is still in hand, and the queue."""
        try:
            if self._packs:
                _, late = await asyncio.wait(
                    self._packs, timeout=self._limits.grace_s if self._stopping.is_set() else 0
                )
                for pack in late:
                    pack.cancel()
                await asyncio.gather(*late, return_exceptions=True)
            if claims := self._in_hand.empty():
                await self._release(claims)
        finally:
            if self._queue_lock is not None:
                self._queue_lock.release()  # whoever owns it next takes at once what could not be released

    async def _release(self, claims: Sequence[Claim]) -> None:
        released = [Released(claim, self._now()) for claim in claims]
        save = partial(store.save_outcomes, outcomes=released, now=self._now())
        try:
            async with asyncio.timeout(_HAND_BACK_S):
                await self._database.write(save, alone=True)
        except (TimeoutError, Overloaded, StorageFull) as error:
            log.warning("claims_not_released", rows=len(claims), error=type(error).__name__)
        else:
            log.info("claims_released", rows=len(claims))

    async def _rest(self, seconds: float) -> None:
        """Until woken; ticking meanwhile, for a rest is no standstill."""
        clock = asyncio.get_running_loop().time
        ends_at = clock() + (max(seconds, _SHORTEST_REST_S) if seconds > 0 else 0.0)
        while not (self._woken.is_set() or self._stopping.is_set()) and (left_s := ends_at - clock()) > 0:
            self._tick()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), min(left_s, _TICK_EVERY_S))

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _wait_for_a_pack(self) -> bool:
        """Whether one has ended, before it is time to tick."""
        timeout_s = min(self._limits.poll_interval_s, _TICK_EVERY_S)
        if not self._packs:  # a hand that is full of what nobody works on: a bug, told by the standstill
            await self._pause(timeout_s)
            return False
        ended, _ = await asyncio.wait(self._packs, return_when=asyncio.FIRST_COMPLETED, timeout=timeout_s)
        return bool(ended)

    def _track(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = self._own_task(work, name)
        self._packs.add(task)
        task.add_done_callback(self._packs.discard)
        return task

    def _own_task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(_log_death)
        return task


def _apart(outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    """What is saved together: a row whose owner died may be the cause, so it cannot keep others from being saved."""
    together = [outcome for outcome in outcomes if not outcome.claim.rescues]
    alone = [[outcome] for outcome in outcomes if outcome.claim.rescues]
    return [together, *alone] if together else alone


def _log_death(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("task_died", task=task.get_name(), exc_info=error)
