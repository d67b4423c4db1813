"""Two processes on one database at the same conversations at once: nothing is counted twice, nothing gets lost."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest_asyncio
from sqlalchemy import select

import queries
import store
from database import Database, WriteSession
from models import Conversation, InsightRow
from parameters import InsightFilter, Position
from schemas import ConversationIn, CorrectionIn, Sentiment
from store import Claim, Completed, Step, Submission
from tests.histories import NOW, counters
from tests.test_upkeep import LEASE, accept, analysis, complete_all

ROUNDS = 25
LATER = datetime(2026, 11, 21, tzinfo=UTC)


@pytest_asyncio.fixture
async def replica(database: Database, database_url: str) -> AsyncGenerator[Database]:
    opened = Database.connect(database_url)
    await opened.open()
    yield opened
    await opened.close()


async def send_back(database: Database, *conversation_ids: str) -> list[Claim]:
    """Ordered, and claimed again."""

    def unit(session: WriteSession) -> list[Claim]:
        order = store.order_reanalysis(session, {}, matched=1, now=NOW)
        step = Step(order, NOW, None, Position(NOW, 1), conversation_ids)
        assert store.requeue(session, step, now=NOW) == len(conversation_ids)
        return store.claim_batch(session, limit=100, now=NOW, lease=timedelta(minutes=1))

    return await database.write(unit)


def read_as(claims: list[Claim], *topics: str, score: float) -> list[Completed]:
    return [Completed(claim, analysis(*topics, score=score), "grok-5") for claim in claims]


async def test_erasing_beside_the_first_reading_leaves_no_counter(database: Database, replica: Database) -> None:
    for _ in range(ROUNDS):
        [conversation_id] = await database.write(lambda session: accept(session, "late parcel", now=NOW))
        claims = await database.write(lambda session: store.claim_batch(session, limit=10, now=NOW, lease=LEASE))
        save = partial(store.save_outcomes, outcomes=read_as(claims, "refunds", score=-0.5), now=NOW)
        erase = partial(store.erase_conversations, conversation_ids=[conversation_id])

        await asyncio.gather(replica.write(save, alone=True), database.write(erase, alone=True))

        assert await database.write(counters) == {}


async def test_a_correction_beside_a_reading_is_never_overwritten(database: Database, replica: Database) -> None:
    wanted = CorrectionIn(sentiment=Sentiment.POSITIVE)
    for _ in range(ROUNDS):
        [conversation_id] = await database.write(lambda session: accept(session, "late parcel", now=NOW))
        await database.write(lambda session: complete_all(session, now=NOW))
        claims = await send_back(database, conversation_id)
        save = partial(store.save_outcomes, outcomes=read_as(claims, "refunds", score=-0.9), now=LATER)
        correct = partial(store.correct, conversation_id=conversation_id, wanted=wanted, now=LATER)

        await asyncio.gather(replica.write(save, alone=True), database.write(correct, alone=True))

        told = await database.read(partial(queries.get_conversation, conversation_id=conversation_id))
        assert told.get("correction", {}).get("original", {}).get("sentiment_score") == -0.9
        assert await database.write(partial(score_of, conversation_id=conversation_id)) == 0.55


def score_of(session: WriteSession, *, conversation_id: str) -> float | None:
    return session.scalar(select(InsightRow.sentiment_score).where(InsightRow.conversation_id == conversation_id))


async def test_readings_of_one_day_by_two_lock_nothing_crosswise(database: Database, replica: Database) -> None:
    ids = await database.write(lambda session: accept(session, *map(str, range(20)), now=NOW))
    await database.write(lambda session: complete_all(session, now=NOW))
    for number in range(ROUNDS):
        claims = await send_back(database, *ids)
        halves = (claims[:10], claims[10:])
        topics = ("refunds", "praise") if number % 2 else ("praise", "app_crashes")
        saves = [
            partial(store.save_outcomes, outcomes=read_as(half, *topics, score=0.5 - side), now=NOW)
            for side, half in enumerate(halves)
        ]

        fenced = await asyncio.gather(database.write(saves[0], alone=True), replica.write(saves[1], alone=True))

        assert not any(fenced)
    assert await database.read(partial(queries.count_matches, wanted=InsightFilter())) == 20


async def test_the_same_external_ids_in_another_order_are_stored_once_by_two(
    database: Database, replica: Database
) -> None:
    for number in range(ROUNDS):
        names = [f"{number}-{place}" for place in range(20)]
        sent = [[ConversationIn(text=name, external_id=name) for name in order] for order in (names, names[::-1])]
        one, other = (partial(store.accept, submissions=[Submission(items, None)], now=NOW) for items in sent)

        told = await asyncio.gather(database.write(one), replica.write(other))

        ids = [{item.conversation_id for item in answer} for [answer] in told if isinstance(answer, list)]
        assert ids[0] == ids[1]
        assert len(ids[0]) == len(names)


async def test_units_that_lock_crosswise_are_run_again(database: Database, replica: Database) -> None:
    """One of two is the victim of PostgreSQL's deadlock detector; SQLite has one lock for all."""
    ids = await database.write(lambda session: accept(session, "one", "other", now=NOW))
    both_hold_one = threading.Barrier(2 if database.dialect == "postgresql" else 1)
    runs: list[str] = []

    def lock_in_order(session: WriteSession, order: Sequence[str]) -> str:
        for place, conversation_id in enumerate(order):
            held = select(Conversation.id).where(Conversation.id == conversation_id).with_for_update()
            session.execute(held).one()
            if place == 0 and len(runs) < both_hold_one.parties:
                runs.append(order[0])
                both_hold_one.wait(timeout=10)
        return order[0]

    told = await asyncio.gather(
        database.write(partial(lock_in_order, order=ids), alone=True),
        replica.write(partial(lock_in_order, order=ids[::-1]), alone=True),
    )

    assert list(told) == ids
