"""Long work beside the queue: what is erased leaves no trace, what is old goes, what was ordered is read again."""

import asyncio
import random
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import func, select

import queries
import store
from database import Database, WriteSession
from errors import Conflict, NotFound, StorageFull
from models import (
    Base,
    Conversation,
    InsightCount,
)
from parameters import InsightQuery, ReanalysisQuery
from schemas import Analysis, ConversationIn, CorrectionIn, Sentiment
from store import Claim, Completed, Erased, Failed, Outcome, Skipped, Submission
from tests.harness import HandClock
from upkeep import Upkeep

LEASE = timedelta(minutes=1)


def make_upkeep(
    database: Database,
    clock: HandClock | None = None,
    *,
    renamed: Mapping[str, str] | None = None,
    retention: timedelta | None = None,
) -> Upkeep:
    return Upkeep(
        database,
        retention=retention,
        renamed=renamed or {},
        now=(clock or HandClock()).now,
        on_requeued=lambda: None,
        on_erased=lambda: None,
    )


def accept(session: WriteSession, *texts: str, now: datetime, author: str | None = "ann") -> list[str]:
    conversations = [ConversationIn(text=text, author=author) for text in texts]
    [accepted] = store.accept(session, submissions=[Submission(conversations)], now=now)
    assert isinstance(accepted, list)
    return [one.conversation_id for one in accepted]


def analysis(*topics: str, score: float = -0.65, confidence: float = 0.9) -> Analysis:
    return Analysis(
        sentiment_score=score,
        clusters=topics or ("other",),
        confidence=confidence,
        reasoning="reasons",
        summary="summary",
    )


def claim_all(session: WriteSession, *, now: datetime) -> list[Claim]:
    return store.claim_batch(session, limit=10_000, now=now, lease=LEASE)


def complete_all(session: WriteSession, *, now: datetime, said: Analysis | None = None, model: str = "grok-4.3") -> int:
    """Whatever is due; the answers are kept."""
    claims = claim_all(session, now=now)
    outcomes = [
        Completed(claim, said or analysis(), model, cache_key=f"{claim.conversation_id}".encode()) for claim in claims
    ]
    assert store.save_outcomes(session, outcomes, now=now) == []
    return len(claims)


async def stored(database: Database, clock: HandClock, *texts: str, author: str | None = "ann") -> list[str]:
    ids = await database.write(lambda session: accept(session, *texts, now=clock.now(), author=author))
    await database.write(lambda session: complete_all(session, now=clock.now()))
    return ids


def rows_left(session: WriteSession) -> dict[str, int]:
    """How many rows every table has; counters of nothing are none."""
    counted = {
        table.name: session.scalar(select(func.count()).select_from(table)) or 0
        for table in Base.metadata.sorted_tables
    }
    counted["insight_counts"] = (
        session.scalar(select(func.count()).where(InsightCount.neutral + InsightCount.negative != 0)) or 0
    )
    return {name: count for name, count in counted.items() if count}


async def told(database: Database, conversation_id: str) -> tuple[str, float, str]:
    """Status of a conversation, and score and model of its insight."""
    found = await database.read(partial(queries.get_conversation, conversation_id=conversation_id))
    insight = found.get("insight")
    assert insight is not None
    return found["status"], insight["sentiment_score"], insight["model"]


# Erasing


async def test_what_is_erased_leaves_no_trace(database: Database, clock: HandClock) -> None:
    [conversation_id] = await stored(database, clock, "late parcel")
    wanted = CorrectionIn(sentiment=Sentiment.POSITIVE, note="irony")
    await database.write(partial(store.correct, conversation_id=conversation_id, wanted=wanted, now=clock.now()))

    erased = await make_upkeep(database, clock).erase([conversation_id])

    assert erased == Erased(1, 1, 1, 1)
    assert await database.write(rows_left) == {}
    assert (await database.read(partial(queries.find_insights, query=InsightQuery(q="parcel", cursor=None))))[
        "insights"
    ] == []


async def test_what_is_not_there_is_erased_without_a_word(database: Database) -> None:
    assert await make_upkeep(database).erase(["conv_nobody"]) == Erased()


async def test_all_of_an_author_goes_wherever_it_stands(database: Database, clock: HandClock) -> None:
    await stored(database, clock, "late parcel", "broken mug")
    await database.write(lambda session: accept(session, "failing", "skipped", "in work", "waiting", now=clock.now()))
    await database.write(lambda session: end_two(session, now=clock.now()))
    await database.write(lambda session: store.claim_batch(session, limit=1, now=clock.now(), lease=LEASE))
    others = await stored(database, clock, "my own parcel", author="bob")

    erased = await make_upkeep(database, clock).erase_author("ann")

    assert erased.conversations == 6
    assert await database.write(lambda session: session.scalars(select(Conversation.id)).all()) == others


def end_two(session: WriteSession, *, now: datetime) -> None:
    first, second = store.claim_batch(session, limit=2, now=now, lease=LEASE)
    outcomes: list[Outcome] = [Failed(first, "reply_invalid", "Not JSON."), Skipped(second, "link_only")]
    assert store.save_outcomes(session, outcomes, now=now) == []


async def test_an_author_of_many_is_erased_step_by_step(
    database: Database, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upkeep._MOST_A_STEP", 2)
    await stored(database, clock, *(f"parcel {number}" for number in range(7)))

    erased = await make_upkeep(database, clock).erase_author("ann")

    assert erased == Erased(7, 7, 0, 7)
    assert await database.write(rows_left) == {}


async def test_one_in_a_workers_hands_is_erased_and_its_answer_refused(database: Database, clock: HandClock) -> None:
    [conversation_id] = await database.write(lambda session: accept(session, "late parcel", now=clock.now()))
    claims = await database.write(lambda session: claim_all(session, now=clock.now()))

    await make_upkeep(database, clock).erase([conversation_id])
    outcomes = [Completed(claim, analysis(), "grok-4.3") for claim in claims]
    fenced = await database.write(partial(store.save_outcomes, outcomes=outcomes, now=clock.now()))

    assert fenced == claims
    assert await database.write(rows_left) == {}


async def test_what_was_taken_in_too_long_ago_is_forgotten(database: Database, clock: HandClock) -> None:
    await stored(database, clock, "an old parcel", "an old mug")
    clock.turn(3 * 86_400)
    kept = await stored(database, clock, "a new parcel")
    clock.turn(86_400)

    await make_upkeep(database, clock, retention=timedelta(days=2)).forget_old()

    assert await database.write(lambda session: session.scalars(select(Conversation.id)).all()) == kept


async def test_without_a_retention_everything_stays(database: Database, clock: HandClock) -> None:
    await stored(database, clock, "an old parcel")
    clock.turn(10_000 * 86_400)

    await make_upkeep(database, clock).forget_old()

    assert (await database.write(rows_left))["conversations"] == 1


async def test_an_order_about_an_author_is_forgotten_with_them(database: Database, clock: HandClock) -> None:
    await stored(database, clock, "late parcel")
    await order(database, clock, author="ann")
    kept = await order(database, clock, author="bob")

    await make_upkeep(database, clock).erase_author("ann")

    assert [one["reanalysis_id"] for one in await database.read(queries.list_reanalyses)] == [kept]


def is_written(folder: Path, words: bytes) -> bool:
    return any(words in path.read_bytes() for path in folder.iterdir())


async def test_the_words_of_what_was_erased_leave_the_file(sqlite_url: str, tmp_path: Path, clock: HandClock) -> None:
    database = Database.connect(sqlite_url)
    await database.open()
    for number in range(40):  # the index is in many parts
        await stored(database, clock, f"parcel {number} quokkacanary{number}")
    ids = await stored(database, clock, "zanzibarcanary is late")
    upkeep = make_upkeep(database, clock)

    await upkeep.erase(ids)
    await upkeep.scrub()
    await database.close()

    assert not is_written(tmp_path, b"zanzibarcanary")
    assert is_written(tmp_path, b"quokkacanary7")


def almost_full(_path: Path) -> SimpleNamespace:
    return SimpleNamespace(free=200_000)


async def test_without_room_to_write_the_file_anew_it_is_left_and_tried_again(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, clock: HandClock
) -> None:
    database = Database.connect(sqlite_url)
    await database.open()
    upkeep = make_upkeep(database, clock)
    await upkeep.erase(await stored(database, clock, "zanzibarcanary is late"))

    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", almost_full)
        with pytest.raises(StorageFull, match="MB of free space"):
            await upkeep.scrub()
    left = await database.read(queries.mark_of_erased)
    await make_upkeep(database, clock).scrub()
    cleaned = await database.read(queries.mark_of_erased)
    await database.close()

    assert (left > 0, cleaned) == (True, 0)


async def test_after_a_failure_it_rests_as_long_as_after_a_success(
    database: Database, monkeypatch: pytest.MonkeyPatch, clock: HandClock
) -> None:
    if database.file is None:
        return
    upkeep = make_upkeep(database, clock)
    await upkeep.erase(await stored(database, clock, "late parcel"))
    moment, tries = 0.0, list[float]()

    async def fail_late() -> None:
        nonlocal moment
        tries.append(moment)
        moment += 12
        raise StorageFull("no room")

    monkeypatch.setattr(database, "vacuum", fail_late)
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: moment)
    for second in (1000.0, 1013.0, 1250.0, 1263.0):
        moment = second
        with suppress(StorageFull):
            await upkeep.scrub()

    assert tries == [1000.0, 1263.0]


# Reading again


async def order(database: Database, clock: HandClock, **filters: object) -> int:
    clock.turn(1)
    query = ReanalysisQuery.model_validate(filters)
    matched = await database.read(partial(queries.count_to_reread, query=query))
    return await make_upkeep(database, clock).order(query, matched=matched)


async def test_what_is_read_again_keeps_its_insight_until_there_is_a_new_one(
    database: Database, clock: HandClock
) -> None:
    [conversation_id] = await stored(database, clock, "late parcel")
    await order(database, clock)
    await make_upkeep(database, clock).read_again()
    meanwhile = await told(database, conversation_id)

    said = analysis("delivery_problems", score=-0.9)
    await database.write(lambda session: complete_all(session, now=clock.now(), said=said, model="grok-5"))
    afterwards = await told(database, conversation_id)

    assert meanwhile == ("pending", -0.65, "grok-4.3")
    assert afterwards == ("completed", -0.9, "grok-5")


async def test_an_order_ends_when_all_that_matched_has_been_sent_back(
    database: Database, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upkeep._MOST_A_STEP", 3)
    await stored(database, clock, *(f"parcel {number}" for number in range(8)))
    number = await order(database, clock)

    await make_upkeep(database, clock).read_again()

    [one] = await database.read(queries.list_reanalyses)
    assert (one["reanalysis_id"], one["conversations"], one["requeued"]) == (number, 8, 8)
    assert one["ended_at"] is not None
    assert await database.write(lambda session: complete_all(session, now=clock.now())) == 8


async def test_while_the_queue_is_long_nothing_is_sent_back(
    database: Database, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upkeep._SHORT_QUEUE", 1)
    await stored(database, clock, "late parcel")
    await order(database, clock)
    await database.write(lambda session: accept(session, "new", "newer", now=clock.now()))

    await make_upkeep(database, clock).read_again()

    [one] = await database.read(queries.list_reanalyses)
    assert (one["requeued"], one["ended_at"]) == (0, None)


async def test_only_what_matches_is_read_again(database: Database, clock: HandClock) -> None:
    await stored(database, clock, "late parcel")
    await database.write(lambda session: accept(session, "broken mug", now=clock.now()))
    await database.write(lambda session: complete_all(session, now=clock.now(), model="local-linear-1"))
    await order(database, clock, model="local-linear-1")

    await make_upkeep(database, clock).read_again()

    claims = await database.write(lambda session: claim_all(session, now=clock.now()))
    assert [claim.text for claim in claims] == ["broken mug"]
    assert all(claim.reread_at is not None for claim in claims)


async def test_what_was_read_after_the_order_is_left_alone(database: Database, clock: HandClock) -> None:
    await database.write(lambda session: accept(session, "late parcel", now=clock.now()))
    await order(database, clock)
    await database.write(lambda session: complete_all(session, now=clock.now()))

    await make_upkeep(database, clock).read_again()

    assert await database.write(lambda session: claim_all(session, now=clock.now())) == []


def fail(claim: Claim) -> Outcome:
    return Failed(claim, "reply_invalid", "Not JSON.")


def skip(claim: Claim) -> Outcome:
    return Skipped(claim, "link_only")


@pytest.mark.parametrize("ended", [fail, skip])
async def test_without_a_new_answer_the_old_one_stands(
    database: Database, clock: HandClock, ended: Callable[[Claim], Outcome]
) -> None:
    [conversation_id] = await stored(database, clock, "late parcel")
    await order(database, clock)
    await make_upkeep(database, clock).read_again()
    claims = await database.write(lambda session: claim_all(session, now=clock.now()))

    outcomes = [ended(claim) for claim in claims]
    await database.write(partial(store.save_outcomes, outcomes=outcomes, now=clock.now()))

    assert await told(database, conversation_id) == ("completed", -0.65, "grok-4.3")


async def test_an_older_reading_never_replaces_a_newer_one(database: Database, clock: HandClock) -> None:
    """A worker stalls, its lease ends, another reads the conversation; then the first comes back."""
    [conversation_id] = await stored(database, clock, "late parcel")
    await order(database, clock)
    await make_upkeep(database, clock).read_again()
    stale = await database.write(lambda session: claim_all(session, now=clock.now()))
    clock.turn(61)
    newer = analysis("delivery_problems", score=0.4)
    await database.write(lambda session: complete_all(session, now=clock.now(), said=newer))

    late = [Completed(claim, analysis("refunds"), "grok-4.3") for claim in stale]
    fenced = await database.write(partial(store.save_outcomes, outcomes=late, now=clock.now()))

    assert fenced == stale
    assert await told(database, conversation_id) == ("completed", 0.4, "grok-4.3")


async def test_two_that_work_off_one_order_send_nothing_back_twice(
    database: Database, database_url: str, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upkeep._MOST_A_STEP", 2)
    await stored(database, clock, *(f"parcel {number}" for number in range(20)))
    await order(database, clock)
    replica = Database.connect(database_url)
    await replica.open()

    await asyncio.gather(*(make_upkeep(one, clock).read_again() for one in (database, replica)))
    await replica.close()

    [one] = await database.read(queries.list_reanalyses)
    assert one["requeued"] == 20


async def test_an_order_that_is_stopped_sends_nothing_more_back(database: Database, clock: HandClock) -> None:
    await stored(database, clock, "late parcel")
    number = await order(database, clock)

    await database.write(partial(store.end_reanalysis, order=number, now=clock.now()))
    await make_upkeep(database, clock).read_again()

    assert await database.write(lambda session: claim_all(session, now=clock.now())) == []
    with pytest.raises(Conflict):
        await database.write(partial(store.end_reanalysis, order=number, now=clock.now()))
    with pytest.raises(NotFound):
        await database.write(partial(store.end_reanalysis, order=number + 1, now=clock.now()))


# The loop


async def test_upkeep_survives_what_fails_and_goes_on(
    database: Database, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upkeep._LOOK_EVERY_S", 0.001)
    tries: list[str] = []
    often = asyncio.Event()

    class Failing(Upkeep):
        async def read_again(self) -> None:
            tries.append("once more")
            if len(tries) == 3:
                often.set()
            raise LookupError("no such order")

    upkeep = Failing(
        database, retention=None, renamed={}, now=clock.now, on_requeued=lambda: None, on_erased=lambda: None
    )
    running = asyncio.create_task(upkeep.run())

    async with asyncio.timeout(10):
        await often.wait()

    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled()


async def test_the_counters_are_right_whatever_was_erased(database: Database, clock: HandClock) -> None:
    dice = random.Random(7)
    ids = await stored(database, clock, *(f"parcel {number}" for number in range(50)))
    upkeep = make_upkeep(database, clock)

    gone = dice.sample(ids, 23)
    for start in range(0, len(gone), 5):
        await upkeep.erase(gone[start : start + 5])

    page = await database.read(partial(queries.find_insights, query=InsightQuery(cursor=None)))
    left = await database.write(rows_left)
    assert page["metadata"]["total_count"] == page["metadata"]["returned_count"] == 27
    assert left["insights"] == left["conversations"] == left["analysis_cache"] == 27
