"""Long work on what is stored, in short transactions: erase an author, forget what is old, rename topics, read again.

Others get their turn between the steps, and a step is whole or not at all: whatever ends the process, the next one goes
on. Reading again waits behind new conversations: an order feeds the queue only while it is short.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import queries
import store
from database import Database, WriteSession
from errors import Conflict
from parameters import ReanalysisQuery
from store import Erased, Step
from survival import survive
from telemetry import get_logger

log = get_logger()

_MOST_A_STEP = 500  # rows a transaction, some tens of milliseconds
_SHORT_QUEUE = 1_000  # a new conversation waits behind no more than these
_MOST_RENAMED = 250  # insights a transaction: each is rewritten with its topics and counters
_MOST_MERGED = 200  # pages of the full-text index in one transaction
_MOST_VACUUMED_BYTES = 128 * 1024 * 1024  # as much memory, and about a second; 256 MB took 4 s
_REST_AFTER_SCRUBBING = 20  # times as long as it took
_REST_UNSCRUBBED_S = 10.0  # no room on the disk, or another program has its lock
_LOOK_EVERY_S = 1.0
_TIDY_EVERY_S = 600.0


class Upkeep:
    """What goes on beside the queue; `run` until it is cancelled.

    `renamed`: old ids of topics, and those that mean them now. `on_requeued` is told when the queue has grown,
    `on_erased` when something must be forgotten in memory, too.
    """

    def __init__(
        self,
        database: Database,
        *,
        retention: timedelta | None,
        renamed: Mapping[str, str],
        now: Callable[[], datetime],
        on_requeued: Callable[[], None],
        on_erased: Callable[[], None],
    ) -> None:
        self._database = database
        self._retention = retention
        self._renamed = renamed
        self._now = now
        self._on_requeued = on_requeued
        self._on_erased = on_erased
        self._ordered = asyncio.Event()
        self._scrub_again_at = 0.0
        self.beats = 0

    async def run(self) -> None:
        tidied_at: datetime | None = None
        while True:
            self.beats += 1
            if tidied_at is None or (self._now() - tidied_at).total_seconds() >= _TIDY_EVERY_S:
                forgot = await survive(self.forget_old, "retention_failed")
                renamed = await survive(self.rename_topics, "renaming_failed")
                tidied_at = self._now() if forgot and renamed else None
            await survive(self.scrub, "scrubbing_failed")
            await survive(self.read_again, "reanalysis_failed")
            self._ordered.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ordered.wait(), _LOOK_EVERY_S)

    async def erase(self, conversation_ids: Sequence[str]) -> Erased:
        erased = await self._database.write(
            partial(store.erase_conversations, conversation_ids=conversation_ids), alone=True
        )
        self._on_erased()
        return erased

    async def erase_author(self, author: str) -> Erased:
        """All that is stored of an author, what is being read included."""
        await self._database.write(partial(store.forget_orders_of, author=author))
        return await self._erase_all(partial(store.ids_of_author, author=author, limit=_MOST_A_STEP))

    async def forget_old(self) -> None:
        """Erase what was taken in longer ago than it may be kept."""
        if self._retention is None:
            return
        moment = self._now() - self._retention
        erased = await self._erase_all(partial(store.ids_accepted_before, moment=moment, limit=_MOST_A_STEP))
        if erased.conversations:
            log.info("retention_enforced", conversations=erased.conversations, insights=erased.insights)

    async def rename_topics(self) -> None:
        """Give stored insights the new ids of their topics.

        Once is not enough: a replica that runs with an older file goes on writing old ids.
        """
        unit = partial(store.rename_topics, names=self._renamed, limit=_MOST_RENAMED)
        total = 0
        while self._renamed and (changed := await self._database.write(unit, alone=True)):
            total += changed
            self.beats += 1
        if total:
            log.info("topics_renamed", insights=total)

    async def order(self, query: ReanalysisQuery, *, matched: int) -> int:
        """Have what matches read again; returns the number of the order."""
        filters = query.model_dump(mode="json", exclude_defaults=True)
        unit = partial(store.order_reanalysis, filters=filters, matched=matched, now=self._now())
        number = await self._database.write(unit)
        self._ordered.set()
        return number

    async def read_again(self) -> None:
        """Send back the next conversations of the oldest order, while the queue is short."""
        while not await self._database.read(partial(queries.is_deeper_than, conversations=_SHORT_QUEUE)):
            order = await self._database.read(queries.oldest_order)
            if order is None:
                return
            due = await self._database.read(partial(queries.next_to_reread, order=order, limit=_MOST_A_STEP))
            if due is None:
                with suppress(Conflict):  # it was stopped in the meantime
                    await self._database.write(partial(store.end_reanalysis, order=order.number, now=self._now()))
                continue
            step = Step(order.number, order.requested_at, order.place, due.until, due.conversation_ids)
            if await self._database.write(partial(store.requeue, step=step, now=self._now())):
                self._on_requeued()
            self.beats += 1

    async def scrub(self) -> None:
        """Clean what erasing leaves in SQLite's file: words in the full-text index, copies in the unused room of pages.

        What is made anew is made in one piece while writes wait, 1 to 2 s at most: a part of the time.
        """
        clock = asyncio.get_running_loop().time
        if self._database.file is None or clock() < self._scrub_again_at:
            return
        if not (mark := await self._database.read(queries.mark_of_erased)):
            return
        first = True
        while await self._database.write(partial(store.merge_words, pages=_MOST_MERGED, anew=first)):
            first = False
            self.beats += 1
        started = clock()
        least_rest_s = _REST_UNSCRUBBED_S
        try:
            await self._make_anew(self._database.file)
            least_rest_s = 0.0
        finally:
            self._scrub_again_at = clock() + max(least_rest_s, _REST_AFTER_SCRUBBING * (clock() - started))
        await self._database.write(partial(store.clear_mark, mark=mark))

    async def _make_anew(self, file: Path) -> None:
        if (await asyncio.to_thread(file.stat)).st_size <= _MOST_VACUUMED_BYTES:
            await self._database.vacuum()
            self.beats += 1
            return
        for index in store.INDEXES_OF_NAMES:
            await self._database.write(partial(store.make_anew, index=index))
            self.beats += 1

    async def _erase_all(self, find: Callable[[WriteSession], Sequence[str]]) -> Erased:
        """What is found and what is erased are of one transaction, so that nothing comes between."""

        def unit(session: WriteSession) -> Erased | None:
            found = find(session)
            return store.erase_conversations(session, found) if found else None

        total = Erased()
        while (erased := await self._database.write(unit, alone=True)) is not None:
            total = total.and_also(erased)
            self.beats += 1
            self._on_erased()
        return total
