"""The one thread that writes: what has gathered becomes one transaction, each unit behind a savepoint of its own.

    hand_over(unit) --> queue --> BEGIN IMMEDIATE, [SAVEPOINT, unit, RELEASE]*, COMMIT --> every caller answered

While another process has SQLite's lock, or our own reads keep a large log from being emptied, a group goes on
gathering, and each unit is let go when its own patience ends.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from database.engine import begin_immediate
from database.failures import translate, translated
from database.gate import Gate
from database.sessions import ReadSession, WriteSession
from database.wal import CHECK_EVERY_S, WriteAheadLog, check_room_to_vacuum
from errors import DatabaseBusy, InsightsError, Overloaded, StorageFull
from survival import pass_by
from telemetry import get_logger

log = get_logger()

OnCommit = Callable[[int, float], None]  # is told, on the writer's thread, how many units and how many seconds

_MOST_UNITS_A_COMMIT = 500
_MOST_RUNS_OF_A_UNIT = 3  # each further one for a key that another replica stored meanwhile


@dataclass(slots=True, eq=False)
class _Job:
    """A unit of work, and what became of it."""

    unit: Callable[[WriteSession], Any]
    answered: asyncio.Future[Any]
    alone: bool
    let_go_at: float
    is_vacuum: bool = False
    value: Any = None
    error: BaseException | None = None


class Writer:
    """`start` it on the loop that waits for its answers; `end` commits what was handed over."""

    def __init__(
        self, engine: Engine, *, file: Path | None, reads: Gate, patience_s: float, on_commit: OnCommit
    ) -> None:
        self._engine = engine
        self._replicas_lock = engine.dialect.name == "postgresql"  # rows crosswise; SQLite has one lock for all
        self._file = file
        self._wal = None if file is None else WriteAheadLog(engine, file, reads)
        self._patience_s = patience_s
        self._on_commit = on_commit
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._is_ending = False
        # a daemon: an exit without end() is a crash, and nothing hangs
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread.start()

    def hand_over(self, unit: Callable[[WriteSession], Any], *, alone: bool) -> asyncio.Future[Any]:
        assert self._loop is not None, "it was not started"
        job = _Job(unit, self._loop.create_future(), alone, time.monotonic() + self._patience_s)
        self._jobs.put(job)
        return job.answered

    def vacuum(self) -> asyncio.Future[Any]:
        assert self._loop is not None, "it was not started"
        let_go_at = time.monotonic() + self._patience_s
        job = _Job(_nothing, self._loop.create_future(), alone=True, let_go_at=let_go_at, is_vacuum=True)
        self._jobs.put(job)
        return job.answered

    def end(self, *, timeout_s: float) -> bool:
        """Whether all that was handed over has been committed, or told why not, in time."""
        self._is_ending = True
        self._jobs.put(None)
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (group := self._gather()) is not None:
            if group:
                self._make_room(group)
                self._commit(group)
            self._tend_to_log(idle=not group)
        self._tend_to_log(idle=True)

    def _make_room(self, group: list[_Job]) -> None:
        with _going_on():
            if self._wal is not None:
                self._wal.make_room(partial(self._still_wait_for_reads, group))

    def _tend_to_log(self, *, idle: bool) -> None:
        with _going_on():
            if self._wal is not None:
                self._wal.tend(idle=idle)

    def _gather(self) -> list[_Job] | None:
        """What has been handed over since; empty when the log is to be looked after, None when the writer is to end."""
        try:
            job = self._jobs.get(timeout=CHECK_EVERY_S if self._wal is not None and self._wal.in_use else None)
        except queue.Empty:
            return []
        if job is None:
            return None
        group = [job]
        self._gather_more(group)
        return group

    def _gather_more(self, group: list[_Job]) -> None:
        with suppress(queue.Empty):
            while len(group) < _MOST_UNITS_A_COMMIT:
                job = self._jobs.get_nowait()
                if job is None:
                    self._jobs.put(None)  # the end is due after this group
                    return
                group.append(job)

    def _commit(self, group: list[_Job]) -> None:
        vacuums = [job for job in group if job.is_vacuum]
        apart = [job for job in group if self._replicas_lock and job.alone and not job.is_vacuum]
        for jobs in ([job for job in group if job not in apart + vacuums], *([job] for job in apart)):
            if jobs:
                self._commit_together(jobs)
                self._answer(jobs)
        for job in vacuums:
            self._vacuum(job)
            self._answer([job])

    def _vacuum(self, job: _Job) -> None:
        try:
            if self._file is not None:
                check_room_to_vacuum(self._file)
            with translated(), self._engine.connect() as connection:
                connection.exec_driver_sql("VACUUM").close()
        except Exception as error:  # noqa: BLE001 - its caller must hear it, and the writer go on
            job.error = error

    def _commit_together(self, jobs: list[_Job], *, runs: int = 1) -> None:
        """Leaves in `jobs` those that were run, each with its value or error; what locked crosswise is run again."""
        started = time.monotonic()
        try:
            with translated(), self._engine.connect() as connection:
                self._run_group(connection, jobs)
            if jobs:
                self._on_commit(len(jobs), time.monotonic() - started)
        except Exception as error:  # noqa: BLE001 - whatever it is, each caller must hear it, and the writer go on
            again = runs < _MOST_RUNS_OF_A_UNIT and isinstance(error, DatabaseBusy) and self._replicas_lock
            for job in jobs:
                job.error = None if again else job.error or error
                if again:
                    self._commit_together([job], runs=runs + 1)

    def _run_group(self, connection: Connection, jobs: list[_Job]) -> None:
        if self._replicas_lock:
            connection.exec_driver_sql("BEGIN")
        elif not begin_immediate(connection, lambda error: self._still_wait(jobs, partial(translate, error))):
            return
        session = WriteSession(ReadSession(connection))
        try:
            for job in jobs:
                _run_unit(session, job)
            pass_by("before_commit")
            connection.exec_driver_sql("COMMIT")
            pass_by("after_commit")
        except BaseException:
            with suppress(SQLAlchemyError):  # SQLite has already rolled back when the disk is full
                connection.exec_driver_sql("ROLLBACK")
            raise

    def _still_wait_for_reads(self, jobs: list[_Job]) -> bool:
        """Also when nobody is left: the next ones would have to begin anew. But not at the end, which has no time."""
        self._still_wait(jobs, _held_up_by_reads)
        return not self._is_ending

    def _still_wait(self, jobs: list[_Job], why: Callable[[], InsightsError | None]) -> bool:
        """Let go who has waited long enough, and take in who has come; False when nobody is left."""
        now = time.monotonic()
        let_go = [job for job in jobs if now >= job.let_go_at]
        for job in let_go:
            job.error = why()
            jobs.remove(job)
        self._answer(let_go)
        self._gather_more(jobs)
        return bool(jobs)

    def _answer(self, jobs: Sequence[_Job]) -> None:
        if self._loop is not None and jobs:
            with suppress(RuntimeError):  # the loop has ended: nobody waits any more
                self._loop.call_soon_threadsafe(_answer_all, tuple(jobs))


@contextmanager
def _going_on() -> Generator[None, None, None]:
    """Whatever befalls the log, a bug of ours included, the writer goes on: without it nothing is stored."""
    try:
        yield
    except Exception:
        log.exception("checkpoint_failed")  # nobody is there to raise it to


def _held_up_by_reads() -> Overloaded:
    return Overloaded("Writing waits for long reads to end; send the request again.", retry_after_s=1)


def _nothing(_session: WriteSession) -> None:
    pass


def _run_unit(session: WriteSession, job: _Job) -> None:
    """Run one unit behind its savepoint; an error that ends the whole transaction is raised, any other is the job's."""
    session.exec_driver_sql("SAVEPOINT unit")
    for _ in range(_MOST_RUNS_OF_A_UNIT):
        try:
            with translated():
                job.value, job.error = job.unit(session), None
            break
        except Exception as error:
            if isinstance(error, (Overloaded, StorageFull)) and isinstance(error.__cause__, DBAPIError):
                raise  # the database is in trouble, not the unit
            session.exec_driver_sql("ROLLBACK TO SAVEPOINT unit")
            job.error = error
            if not _lost_race(error):
                break
    session.exec_driver_sql("RELEASE SAVEPOINT unit")


def _lost_race(error: Exception) -> bool:
    """Another replica stored the same key first (PostgreSQL's unique_violation): run again, the unit sees its row."""
    return isinstance(error, IntegrityError) and getattr(error.orig, "sqlstate", None) == "23505"


def _answer_all(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        if job.answered.done():
            continue
        if job.error is not None:
            job.answered.set_exception(job.error)
        else:
            job.answered.set_result(job.value)
