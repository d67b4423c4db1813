"""The store's queue beside a model of it in plain Python, through thousands of sequences that nobody thought of."""

import asyncio
import sqlite3
import tempfile
from collections.abc import Callable, Generator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete, select

import store
from database import Database, WriteSession
from errors import Conflict, InsightsError, NotFound
from models import Base, Conversation, InsightRow
from parameters import Position
from schemas import ConversationIn, CorrectionIn, Sentiment, SkipReason, Status
from store import Claim, Completed, Failed, Idempotency, Outcome, Released, Skipped, Step, Submission
from tests.faults.figures import Figures
from tests.faults.invariants import find_broken
from tests.faults.queue_model import LEASE, QueueModel, Row
from tests.scripted_analyzer import analysis_of

pytestmark = [pytest.mark.integration, pytest.mark.slow]

T = TypeVar("T")
STEPS = 20
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
WORKERS = ("one", "two")
PLACES = st.integers(0, 30)  # a conversation by its place, modulo as many as there are
CONVERSATIONS = st.tuples(st.sampled_from(["late", "broken"]), st.sampled_from([None, None, "a", "b", "c"]))
REQUESTS = st.tuples(st.lists(CONVERSATIONS, min_size=1, max_size=3), st.sampled_from([None, None, "key"]))
ENDS = st.sampled_from(["completed", "completed", "skipped", "failed", "unusable", "released", "spent"])
_STORED = select(
    *(Conversation.id, Conversation.text, Conversation.external_id, Conversation.status, Conversation.due_at),
    *(Conversation.lease_epoch, Conversation.attempts, Conversation.rescues, Conversation.error_code),
    *(Conversation.skip_reason, Conversation.reread_at.is_not(None)),
    *(InsightRow.sentiment, InsightRow.corrected_at.is_not(None), InsightRow.sentiment_score),
).outerjoin(InsightRow, InsightRow.conversation_id == Conversation.id)
_EPOCHS = select(Conversation.id, Conversation.lease_epoch)


class Desk:
    """The store behind a database that is emptied, not made anew, for each sequence."""

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self._database = Database.connect(url)
        self._runner.run(self._database.open())
        self._beside: Any = (
            psycopg.connect(url, autocommit=True)
            if self._database.file is None
            else sqlite3.connect(self._database.file, isolation_level=None)
        )

    def write(self, unit: Callable[[WriteSession], T]) -> T:
        return self._runner.run(self._database.write(unit))

    def read(self, unit: Callable[[Any], T]) -> T:
        return self._runner.run(self._database.read(unit))

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Beside the service, and much quicker."""
        rows: list[tuple[Any, ...]] = self._beside.execute(statement).fetchall()
        return rows

    def find_unsound(self) -> list[str]:
        return find_broken(self.query, acknowledged=[], sqlite=self._database.file is not None)

    def empty(self) -> None:
        def unit(session: WriteSession) -> None:
            for table in reversed(Base.metadata.sorted_tables):
                session.execute(delete(table))

        self.write(unit)

    def close(self) -> None:
        self._beside.close()
        self._runner.run(self._database.close())
        self._runner.close()


class Queue(RuleBasedStateMachine):
    """Every move there is, by anybody, at any time, in any order; the model says what must have come of it."""

    def __init__(self, desk: Desk, figures: Figures) -> None:
        super().__init__()
        self.desk = desk
        self.figures = figures
        self.model = QueueModel()
        self.now = START
        self.hands: dict[str, list[Claim]] = {worker: [] for worker in WORKERS}
        self.lost: list[Claim] = []  # of workers that died, or were only thought to have
        self.desk.empty()
        self.figures.count(sequences=1)

    # Clients

    @initialize(texts=st.lists(CONVERSATIONS, min_size=2, max_size=6))
    def begin(self, texts: list[tuple[str, str | None]]) -> None:
        self.submit([(texts, None)])

    @rule(requests=st.lists(REQUESTS, min_size=1, max_size=3))
    def submit(self, requests: list[tuple[list[tuple[str, str | None]], str | None]]) -> None:
        submissions = [Submission(_conversations(sent), _idempotency(sent, key)) for sent, key in requests]

        answers = self.desk.write(partial(store.accept, submissions=submissions, now=self.now))

        for (sent, key), answer in zip(requests, answers, strict=True):
            self.model.accept(sent, answer if isinstance(answer, list) else None, key=key, now=self.now)

    @rule(place=st.none() | PLACES)
    def retry(self, place: int | None) -> None:
        """One, or all that failed."""
        if place is None:
            assert self.desk.write(partial(store.retry_failed, now=self.now)) == self.model.retry(self.now)
            return
        one, row = self._pick(place)
        refusal = None if row and row.status is Status.FAILED else Conflict if row else NotFound

        self._try(partial(store.retry_conversation, conversation_id=one, now=self.now), refusal)

        if row and refusal is None:
            row.start_over(self.now)

    @rule(place=PLACES, sentiment=st.sampled_from([*Sentiment, None]))
    def correct(self, place: int, sentiment: Sentiment | None) -> None:
        """None takes the correction back."""
        one, row = self._pick(place)
        unit: Callable[[WriteSession], None]
        refusal: type[InsightsError] | None
        if sentiment is None:
            refusal = None if row and row.corrected else NotFound
            unit = partial(store.withdraw_correction, conversation_id=one)
        else:
            refusal = NotFound if row is None else Conflict if row.said is None else None
            unit = partial(store.correct, conversation_id=one, wanted=CorrectionIn(sentiment=sentiment), now=self.now)

        self._try(unit, refusal)

        if row and refusal is None:
            row.corrected = sentiment

    @rule(places=st.lists(PLACES, min_size=1, max_size=3))
    def erase(self, places: list[int]) -> None:
        chosen = {one: row for one, row in map(self._pick, places) if row}

        erased = self.desk.write(partial(store.erase_conversations, conversation_ids=[*chosen, "conv_of_nobody"]))

        assert erased.conversations == len(chosen)
        assert erased.insights == sum(row.said is not None for row in chosen.values())
        for one in chosen:
            del self.model.rows[one]

    @rule(places=st.lists(PLACES, max_size=5))
    def read_again(self, places: list[int]) -> None:
        """An order's step is worked off once, however often it is tried; one that has ended not at all."""
        chosen = list(dict.fromkeys(one for one, row in map(self._pick, places) if row))

        def unit(session: WriteSession) -> list[int]:
            order = store.order_reanalysis(session, {}, matched=len(chosen), now=self.now)
            step = Step(order, self.now, None, Position(self.now, 1), chosen)
            return [store.requeue(session, step, now=self.now) for _ in range(2)]

        assert self.desk.write(unit) == [self.model.read_again(chosen, now=self.now), 0]

    # Workers

    @rule(worker=st.sampled_from(WORKERS), limit=st.integers(1, 6))
    def claim(self, worker: str, limit: int) -> None:
        before = self._epochs()
        most_rescues = max((claim.rescues for claim in self.hands[worker]), default=None)

        claim = partial(store.claim_batch, limit=limit, now=self.now, lease=LEASE, most_rescues=most_rescues)
        claims = self.desk.write(claim)

        taken = [one for one, epoch in self._epochs().items() if epoch != before[one]]
        self.model.claim(taken, claims, limit=limit, now=self.now, most_rescues=most_rescues)
        self.hands[worker] += sorted(claims, key=lambda claim: self.model.rows[claim.conversation_id].number)
        self.figures.count(claims=len(claims), poison=len(taken) - len(claims))

    @rule(worker=st.sampled_from(WORKERS), limit=st.integers(1, 6), ends=st.lists(ENDS, min_size=1, max_size=4))
    def work(self, worker: str, limit: int, ends: list[str]) -> None:
        self.claim(worker, limit)
        self._finish(self.hands[worker], ends)

    @precondition(lambda self: any(self.hands.values()))
    @rule(worker=st.sampled_from(WORKERS))
    def take_over(self, worker: str) -> None:
        """What the other one's lease no longer covers; it may still finish it."""
        self.turn_the_clock(61)
        self.claim(worker, 6)

    @precondition(lambda self: any(self.hands.values()))
    @rule(worker=st.sampled_from(WORKERS), ends=st.lists(ENDS, min_size=1, max_size=4))
    def finish(self, worker: str, ends: list[str]) -> None:
        self._finish(self.hands[worker] or next(filter(None, self.hands.values())), ends)

    @precondition(lambda self: bool(self.lost))
    @rule(ends=st.lists(ENDS, min_size=1, max_size=4))
    def finish_late(self, ends: list[str]) -> None:
        """Of a worker that was thought dead: stopped, cut off, or slow."""
        self._finish(self.lost, ends)

    @precondition(lambda self: any(self.hands.values()))
    @rule(worker=st.sampled_from(WORKERS))
    def renew(self, worker: str) -> None:
        until = self.now + LEASE
        self.desk.write(partial(store.renew_leases, claims=self.hands[worker], until=until))
        self.model.renew(self.hands[worker], until=until)

    @rule(worker=st.sampled_from(WORKERS))
    def crash(self, worker: str) -> None:
        self.figures.count(crashes=bool(self.hands[worker]))
        self.lost += self.hands[worker]
        self.hands[worker] = []

    @rule()
    def own_the_queue(self) -> None:
        """Who gets the lock knows that every worker before it is dead."""
        for worker in WORKERS:
            self.crash(worker)

        assert self.desk.write(partial(store.release_abandoned, now=self.now)) == self.model.abandon(self.now)

    # Time

    @rule(seconds=st.sampled_from([1, 10, 61, 61, 200, 90_000, -90]))
    def turn_the_clock(self, seconds: int) -> None:
        """Old idempotency keys go, as they do every ten minutes."""
        self.now += timedelta(seconds=seconds)
        old = [key for key, kept in self.model.keys.items() if kept.at < self.now - store.IDEMPOTENCY_TTL]
        assert self.desk.write(partial(store.purge_idempotency_keys, now=self.now)) == len(old)
        for key in old:
            del self.model.keys[key]

    def teardown(self) -> None:
        assert self.desk.find_unsound() == []

    # What holds after each of them

    @invariant()
    def the_rows_are_those_of_the_model(self) -> None:
        self.figures.count(steps=1)
        assert self.desk.read(_stored_rows) == {one: _as_stored(row) for one, row in self.model.rows.items()}
        assert find_broken(self.desk.query, acknowledged=self.model.rows, sqlite=False) == []

    @invariant()
    def nothing_is_held_by_two(self) -> None:
        held = [claim.conversation_id for hand in self.hands.values() for claim in hand if self.model.holds(claim)]
        assert len(held) == len(set(held))

    def _finish(self, hand: list[Claim], ends: Sequence[str]) -> None:
        claims = hand[: len(ends)]
        del hand[: len(claims)]
        outcomes = [self._outcome(claim, end) for claim, end in zip(claims, ends, strict=False)]

        fenced = self.desk.write(partial(store.save_outcomes, outcomes=outcomes, now=self.now))

        self.model.save(outcomes, fenced)
        self.figures.count(fenced=len(fenced), finished=len(outcomes) - len(fenced))

    def _outcome(self, claim: Claim, end: str) -> Outcome:
        later = self.now + timedelta(seconds=5)
        match end:
            case "completed":
                row = self.model.rows.get(claim.conversation_id)
                score = row.score_of_next_answer() if row else 0.0
                return Completed(claim, analysis_of(claim.text, sentiment_score=score), "grok")
            case "skipped":
                return Skipped(claim, SkipReason.EMPTY)
            case "failed":
                return Failed(claim, "content_filtered", "Refused.")
            case "unusable":
                return Failed(claim, "reply_invalid", "The answer cannot be used.", "prose")
            case _:
                return Released(claim, later, spent_attempt=end == "spent")

    def _pick(self, place: int) -> tuple[str, Row | None]:
        rows = list(self.model.rows.items())
        return rows[place % len(rows)] if rows and place < 25 else ("conv_of_nobody", None)

    def _try(self, unit: Callable[[WriteSession], object], refusal: type[InsightsError] | None) -> None:
        if refusal is None:
            self.desk.write(unit)
        else:
            with pytest.raises(refusal):
                self.desk.write(unit)

    def _epochs(self) -> dict[str, int]:
        return {row[0]: row[1] for row in self.desk.read(lambda session: session.execute(_EPOCHS).all())}


def _conversations(sent: Sequence[tuple[str, str | None]]) -> list[ConversationIn]:
    return [ConversationIn(text=text, external_id=external_id) for text, external_id in sent]


def _idempotency(sent: Sequence[tuple[str, str | None]], key: str | None) -> Idempotency | None:
    return None if key is None else Idempotency.of(client="c", route="/", key=key, body=repr(sent).encode())


def _stored_rows(session: Any) -> dict[str, tuple[Any, ...]]:
    return {row[0]: _without_made_score(tuple(row)[1:]) for row in session.execute(_STORED)}


def _without_made_score(stored: tuple[Any, ...]) -> tuple[Any, ...]:
    """What score stands for a correction is the business of other tests."""
    *rest, is_corrected, score = stored
    return (*rest, bool(is_corrected), None if is_corrected else score)


def _as_stored(row: Row) -> tuple[Any, ...]:
    return (
        *(row.text, row.external_id, row.status, row.due_at, row.epoch, row.attempts, row.rescues, row.error_code),
        *(row.skip_reason, row.is_read_again, row.sentiment),
        *(row.corrected is not None, None if row.corrected else row.said),
    )


@pytest.fixture
def desk(request: pytest.FixtureRequest) -> Generator[Desk]:
    """On SQLite in memory-backed storage where there is some: what is tried here is not the disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        if request.param == "sqlite":
            opened = Desk(f"sqlite:///{folder}/insights.db")
        else:
            opened = Desk(request.getfixturevalue("postgresql_url"))
        yield opened
        opened.close()


@pytest.mark.fault(21)
@pytest.mark.parametrize(
    ("desk", "short", "full"),
    [("sqlite", 120, 2_000), ("postgresql", 30, 200)],
    indirect=["desk"],
    ids=["sqlite", "postgresql"],
)
def test_the_queue_does_what_its_model_says(desk: Desk, figures: Figures, short: int, full: int) -> None:
    """When it fails it prints the shortest sequence that does, and a line of `@reproduce_failure` to repeat it."""

    class QueueOfThisTest(Queue):
        def __init__(self) -> None:
            super().__init__(desk, figures)

    run_state_machine_as_test(
        QueueOfThisTest,
        settings=settings(
            max_examples=figures.times(short, full),
            derandomize=not figures.full,  # the same few each time: they are known to fence a worker off
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        ),
    )

    assert all(figures.counts[seen] for seen in ("finished", "fenced", "crashes")), "it does not only look on"
