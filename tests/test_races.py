"""Two processes on one database at the same conversations at once: nothing is counted twice, nothing gets lost."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest_asyncio
from sqlalchemy import select

import queries
import store
from database import Database, WriteSession
from models import InsightRow
from parameters import InsightFilter, Position
from schemas import CorrectionIn, Sentiment
from store import Claim, Completed, Step
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
