"""Take conversations in: requests that arrive together are stored together, each answered after the commit.

While one group is being written the next one gathers; a group is one unit of work, with one `INSERT` for all its rows.
When the database is slow to take it (another process has the lock) the next one follows all the same, so that nobody
waits for longer than one unit does.
Measured with 64 clients: a unit for each request costs three statements, and each statement is a change of thread.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import store
from database import Database
from schemas import ConversationIn
from store import Accepted, Idempotency, Submission
from survival import pass_by

_MOST_ROWS_A_GROUP = 5_000
_MOST_WAIT_S = 0.25  # behind the group before: 50 commits


@dataclass(frozen=True, slots=True)
class _Waiting:
    submission: Submission
    answered: asyncio.Future[list[Accepted]]


class Intake:
    """Accepts submissions; `on_accepted` hears of each commit, with the number of requests in it."""

    def __init__(self, database: Database, *, now: Callable[[], datetime], on_accepted: Callable[[int], None]) -> None:
        self._database = database
        self._now = now
        self._on_accepted = on_accepted
        self._waiting: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None
        self._groups: set[asyncio.Task[None]] = set()

    async def accept(
        self, conversations: Sequence[ConversationIn], idempotency: Idempotency | None = None
    ) -> list[Accepted]:
        """Where each conversation is, in order, once all of them are on disk.

        Raises: IdempotencyMismatch, and what `Database.write` raises. A caller that goes away does not take it back.
        """
        answered: asyncio.Future[list[Accepted]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(Submission(conversations, idempotency), answered))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all(), name="intake")
        return await answered

    async def _write_all(self) -> None:
        try:
            while group := self._next_group():
                writing = asyncio.create_task(self._write(group), name="intake-group")
                self._groups.add(writing)
                writing.add_done_callback(self._groups.discard)
                await asyncio.wait({writing}, timeout=_MOST_WAIT_S)
        finally:
            self._writing = None

    def _next_group(self) -> list[_Waiting]:
        rows = count = 0
        for waiting in self._waiting:
            rows += len(waiting.submission.conversations)
            if count and rows > _MOST_ROWS_A_GROUP:
                break
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group

    async def _write(self, group: Sequence[_Waiting]) -> None:
        submissions = [waiting.submission for waiting in group]
        try:
            answers = await self._database.write(partial(store.accept, submissions=submissions, now=self._now()))
            pass_by("after_acceptance")
        except Exception as error:  # noqa: BLE001 - each caller must hear it, whatever it is
            for waiting in group:
                _answer(waiting, error)
            return
        for waiting, answer in zip(group, answers, strict=True):
            _answer(waiting, answer)
        self._on_accepted(len(group))


def _answer(waiting: _Waiting, answer: list[Accepted] | Exception) -> None:
    if waiting.answered.done():  # its client has gone
        return
    if isinstance(answer, Exception):
        waiting.answered.set_exception(answer)
    else:
        waiting.answered.set_result(answer)
