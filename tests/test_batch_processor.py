"""How the queue is worked: claim, have it read, save; whatever the analyzer and the database do meanwhile."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest

import batch_processor.processing
import queries
import store
from batch_processor import BatchProcessor, ProcessorLimits
from database import Database
from errors import (
    DatabaseBusy,
    GrokAuth,
    GrokReplyInvalid,
    GrokRequestRejected,
    GrokThrottled,
    GrokUnavailable,
    StorageFull,
)
from grok_client import PackAnswer
from intake import Intake
from parameters import InsightQuery
from prefilter import Prefilter
from queue_lock import QueueLock
from reader import PackLimits, PackSize, Reader
from schemas import Analysis, ConversationIn, Tally
from telemetry import Metrics
from tests.harness import HandClock, score_of
from tests.scripted_analyzer import POLICY, FaultyDatabase, ScriptedAnalyzer, analysis_of, open_faulty

pytestmark = pytest.mark.unit

LEASE_S = 61.0


@pytest.fixture
async def database(sqlite_url: str) -> AsyncGenerator[FaultyDatabase]:
    async with open_faulty(sqlite_url) as opened:
        yield opened


class MakeProcessor(Protocol):
    def __call__(
        self,
        analyzer: ScriptedAnalyzer,
        *,
        limits: ProcessorLimits = ...,
        pack: int = 5,
        canary_share: float = 0.0,
        lock: QueueLock | None = None,
    ) -> BatchProcessor: ...


LIMITS = ProcessorLimits(batch_size=10, max_calls=10, poll_interval_s=0.05, call_deadline_s=60, grace_s=5)
SELDOM = replace(LIMITS, poll_interval_s=3600)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def make_processor(database: FaultyDatabase, clock: HandClock, metrics: Metrics) -> MakeProcessor:
    def make(
        analyzer: ScriptedAnalyzer,
        *,
        limits: ProcessorLimits = LIMITS,
        pack: int = 5,
        canary_share: float = 0.0,
        lock: QueueLock | None = None,
    ) -> BatchProcessor:
        reader = Reader(
            database,
            analyzer,
            prefilter=Prefilter(None, cascade_confidence=None, audit_share=0.0),
            pack_size=PackSize(PackLimits(smallest=1, start=pack, largest=50)),
            policy=replace(POLICY, canary_share=canary_share),
            now=clock.now,
        )
        return BatchProcessor(database, reader, limits=limits, queue_lock=lock, metrics=metrics, now=clock.now)

    return make


@pytest.fixture
def accept(database: FaultyDatabase, clock: HandClock) -> Callable[..., Any]:
    async def accept_texts(*texts: str) -> list[str]:
        accepted = await Intake(database, now=clock.now, on_accepted=lambda _count: None).accept(
            [ConversationIn(text=text) for text in texts]
        )
        return [one.conversation_id for one in accepted]

    return accept_texts


async def turn(processor: BatchProcessor) -> None:
    await processor.run_once()
    await processor.drain()


async def look(database: Database, conversation_id: str) -> dict[str, Any]:
    return dict(await database.read(partial(queries.get_conversation, conversation_id=conversation_id)))


async def statuses(database: Database, ids: Sequence[str]) -> list[str]:
    return [(await look(database, one))["status"] for one in ids]


async def insights(database: Database) -> list[Any]:
    page = await database.read(partial(queries.find_insights, query=InsightQuery.model_validate({"limit": 1000})))
    return page["insights"]


async def until(holds: Callable[[], Any], *, within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not await holds():  # noqa: ASYNC110 - what is waited for is in the database
            await asyncio.sleep(0.005)


# Outcomes


async def test_an_analyzed_row_is_completed_with_its_own_insight(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any
) -> None:
    texts = [f"my parcel number {number} is late" for number in range(7)]
    ids = await accept(*texts)

    await turn(make_processor(ScriptedAnalyzer()))

    found = {
        insight["conversation_id"]: insight["grok_analysis"]["sentiment_score"] for insight in await insights(database)
    }
    assert await statuses(database, ids) == ["completed"] * 7
    assert found == {one: score_of(text) for one, text in zip(ids, texts, strict=True)}


async def test_a_row_with_nothing_to_read_is_skipped_and_says_why(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any
) -> None:
    analyzer = ScriptedAnalyzer()
    ids = await accept("https://t.co/abc", "@support", "12345", "...")

    await turn(make_processor(analyzer))

    rows = [await look(database, one) for one in ids]
    assert [row["skip_reason"] for row in rows] == ["link_only", "mention_only", "digits_only", "punctuation_only"]
    assert analyzer.packs == []


async def test_a_row_fails_after_three_unusable_answers_with_the_last_one_kept(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any, clock: HandClock
) -> None:
    def spoil(_texts: Sequence[str]) -> Any:
        raise GrokReplyInvalid("The answer cannot be used.", raw_answer="said nonsense")

    analyzer = ScriptedAnalyzer(spoil)
    processor = make_processor(analyzer)
    [bad] = await accept("bad")
    for _ in range(5):
        await turn(processor)
        clock.turn(60)

    row = await look(database, bad)
    raw = await database.read(lambda session: session.exec_driver_sql("SELECT raw_answer FROM conversations").scalar())
    assert (row["status"], row["attempts"], row["error_code"], len(analyzer.packs)) == ("failed", 3, "reply_invalid", 3)
    assert raw == "said nonsense"


async def test_an_unusable_answer_never_becomes_an_insight(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any
) -> None:
    await accept("one", "two")

    await turn(make_processor(ScriptedAnalyzer(lambda texts: [GrokReplyInvalid("unusable") for _ in texts])))

    assert await insights(database) == []


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(GrokUnavailable("down"), id="down"),
        pytest.param(GrokAuth("wrong key"), id="a wrong key"),
        pytest.param(GrokThrottled("slow down", retry_after_s=7), id="too many calls"),
    ],
)
async def test_an_outage_of_any_length_fails_nothing_and_costs_no_attempt(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any, clock: HandClock, error: Exception
) -> None:
    analyzer = ScriptedAnalyzer()

    def fail(_texts: Sequence[str]) -> None:
        analyzer.told_wait_s = 10.0  # the lane shuts
        raise error

    analyzer.react = fail
    processor = make_processor(analyzer)
    ids = await accept(*(f"late parcel {number}" for number in range(12)))
    for _ in range(100):
        analyzer.told_wait_s = 0.0
        await turn(processor)
        clock.turn(15)
    rows = [await look(database, one) for one in ids]
    assert {(row["status"], row["attempts"]) for row in rows} == {("pending", 0)}

    analyzer.react, analyzer.told_wait_s = None, 0.0
    for _ in range(12):
        await turn(processor)
        clock.turn(15)

    assert await statuses(database, ids) == ["completed"] * 12


async def test_nothing_is_claimed_while_calls_make_no_sense(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any
) -> None:
    analyzer = ScriptedAnalyzer()
    analyzer.told_wait_s = 0.02
    ids = await accept("late parcel")

    rest_s = await make_processor(analyzer).run_once()

    assert rest_s == pytest.approx(0.02)
    assert await statuses(database, ids) == ["pending"]


async def test_an_exception_in_one_row_never_touches_another(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any, clock: HandClock
) -> None:
    def explode(texts: Sequence[str]) -> None:
        if "bomb" in texts:
            raise RuntimeError("a bug of ours")

    processor = make_processor(ScriptedAnalyzer(explode), pack=3)
    ids = await accept("one", "bomb", "three", "four", "five", "six")
    for _ in range(12):
        await turn(processor)
        clock.turn(600)

    assert await statuses(database, ids) == ["completed", "failed", "completed", "completed", "completed", "completed"]
    assert (await look(database, ids[1]))["error_code"] == "grok_error"


async def test_a_row_that_cannot_be_saved_never_keeps_its_neighbours_from_completion(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any, clock: HandClock
) -> None:
    broken = Analysis.model_construct(
        sentiment_score=7.0, clusters=("other",), confidence=0.5, reasoning="", summary="", language="en"
    )
    processor = make_processor(
        ScriptedAnalyzer(lambda texts: [broken if text == "bomb" else analysis_of(text) for text in texts])
    )
    ids = await accept("one", "bomb", "three")
    for _ in range(6):
        await turn(processor)
        clock.turn(LEASE_S)

    assert await statuses(database, ids) == ["completed", "failed", "completed"]


# The loop


async def test_an_accepted_row_wakes_a_processor_at_rest(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any
) -> None:
    processor = make_processor(ScriptedAnalyzer(), limits=SELDOM)
    running = asyncio.create_task(processor.run())
    await asyncio.sleep(0.05)
    started = asyncio.get_running_loop().time()

    ids = await accept("late parcel")
    processor.wake()
    await until(lambda: _all_are(database, ids, "completed"))

    assert asyncio.get_running_loop().time() - started < 1
    processor.stop()
    await running


async def _all_are(database: Database, ids: Sequence[str], wanted: str) -> bool:
    return set(await statuses(database, ids)) == {wanted}


async def test_a_backlog_is_worked_off_without_a_rest_between_batches(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any
) -> None:
    processor = make_processor(ScriptedAnalyzer(), limits=SELDOM)
    ids = await accept(*(f"late parcel {number}" for number in range(300)))

    running = asyncio.create_task(processor.run())
    await until(lambda: _all_are(database, ids[-1:], "completed"), within_s=10)
    processor.stop()
    await running

    assert await statuses(database, ids) == ["completed"] * 300


async def test_one_slow_answer_holds_up_nobody(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any
) -> None:
    slow = asyncio.Event()

    class OneSlow(ScriptedAnalyzer):
        async def analyze(self, texts: Sequence[str]) -> PackAnswer:
            if "slow" in texts:
                await slow.wait()
            return await super().analyze(texts)

    processor = make_processor(OneSlow(), limits=SELDOM, pack=1)
    ids = await accept("slow", *(f"late parcel {number}" for number in range(40)))
    running = asyncio.create_task(processor.run())

    await until(lambda: _all_are(database, ids[1:], "completed"))

    assert await statuses(database, ids[:1]) == ["processing"]
    slow.set()
    processor.stop()
    await running


async def test_no_more_packs_are_under_way_than_calls_are_free(
    make_processor: MakeProcessor, accept: Any, database: FaultyDatabase
) -> None:
    analyzer = ScriptedAnalyzer()
    analyzer.hold = asyncio.Event()
    processor = make_processor(analyzer, limits=replace(LIMITS, max_calls=3), pack=10)
    ids = await accept(*(f"late parcel {number}" for number in range(100)))

    running = asyncio.create_task(processor.run())
    await asyncio.sleep(0.3)
    held = len(analyzer.packs)
    analyzer.hold.set()
    await until(lambda: _all_are(database, ids, "completed"))
    processor.stop()
    await running

    assert held == 3


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(DatabaseBusy("locked"), id="a locked database"),
        pytest.param(StorageFull("full"), id="a full disk"),
        pytest.param(RuntimeError("a bug of ours"), id="a bug"),
    ],
)
async def test_the_loop_outlives_a_database_that_refuses(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any, fault: Exception
) -> None:
    ids = await accept("late parcel")
    processor = make_processor(ScriptedAnalyzer())
    database.faults = [fault, fault]  # one meets the purge, one the claim

    running = asyncio.create_task(processor.run())
    await until(lambda: _all_are(database, ids, "completed"))
    processor.stop()
    await running

    assert not database.faults


@pytest.mark.parametrize(
    "fault",
    [pytest.param(DatabaseBusy("locked"), id="a locked database"), pytest.param(StorageFull("full"), id="a full disk")],
)
async def test_an_answer_that_was_paid_for_is_kept_until_it_can_be_saved(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any, fault: Exception
) -> None:
    analyzer = ScriptedAnalyzer()
    analyzer.hold = asyncio.Event()
    processor = make_processor(analyzer)
    ids = await accept("late parcel")
    await processor.run_once()
    await asyncio.sleep(0)

    database.faults = [fault]
    analyzer.hold.set()
    await processor.drain()

    assert await statuses(database, ids) == ["completed"]
    assert len(analyzer.packs) == 1


async def test_stopping_lets_what_is_under_way_end(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any
) -> None:
    analyzer = ScriptedAnalyzer()
    analyzer.hold = asyncio.Event()
    ids = await accept("one", "two")
    processor = make_processor(analyzer)
    running = asyncio.create_task(processor.run())
    await until(lambda: _has_called(analyzer))

    processor.stop()
    await asyncio.sleep(0.01)
    analyzer.hold.set()
    await running

    assert await statuses(database, ids) == ["completed", "completed"]


async def _has_called(analyzer: ScriptedAnalyzer) -> bool:
    return bool(analyzer.packs)


async def test_stopping_releases_what_does_not_end_in_time(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any
) -> None:
    analyzer = ScriptedAnalyzer()
    analyzer.hold = asyncio.Event()
    ids = await accept("one", "two")
    processor = make_processor(analyzer, limits=replace(LIMITS, grace_s=0.05))
    running = asyncio.create_task(processor.run())
    await until(lambda: _has_called(analyzer))

    processor.stop()
    await running

    rows = [await look(database, one) for one in ids]
    assert {(row["status"], row["attempts"]) for row in rows} == {("pending", 0)}


async def test_a_processor_told_to_stop_leaves_no_task_behind(make_processor: MakeProcessor) -> None:
    before = asyncio.all_tasks()
    processor = make_processor(ScriptedAnalyzer())
    running = asyncio.create_task(processor.run())
    await asyncio.sleep(0.05)

    processor.stop()
    await running

    assert asyncio.all_tasks() == before


async def test_a_processor_that_seldom_polls_still_shows_that_it_lives(
    make_processor: MakeProcessor, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_processor.processing, "_TICK_EVERY_S", 0.01)
    processor = make_processor(ScriptedAnalyzer(), limits=SELDOM)
    running = asyncio.create_task(processor.run())
    await asyncio.sleep(0.05)

    clock.turn(600)
    await asyncio.sleep(0.05)

    assert processor.ticked_at == clock.now()
    processor.stop()
    await running


# Several processors


async def test_a_second_processor_on_the_file_stays_idle_until_the_first_ends(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any
) -> None:
    assert database.file is not None
    one, two = ScriptedAnalyzer(), ScriptedAnalyzer()
    first = make_processor(one, lock=QueueLock(database.file))
    second = make_processor(two, lock=QueueLock(database.file))
    running = asyncio.create_task(first.run())
    await asyncio.sleep(0.02)
    waiting = asyncio.create_task(second.run())
    before = await accept("early parcel")
    await until(lambda: _all_are(database, before, "completed"))
    first.stop()
    await running

    after = await accept("late parcel")
    await until(lambda: _all_are(database, after, "completed"))
    second.stop()
    await waiting

    assert (one.packs, two.packs) == ([["early parcel"]], [["late parcel"]])


async def test_what_a_dead_owner_had_in_hand_is_taken_over_at_once(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any, clock: HandClock
) -> None:
    assert database.file is not None
    ids = await accept("one", "two")
    await database.write(partial(store.claim_batch, limit=10, now=clock.now(), lease=timedelta(hours=1)))

    await turn(make_processor(ScriptedAnalyzer(), lock=QueueLock(database.file)))

    assert await statuses(database, ids) == ["completed", "completed"]


async def test_a_late_finish_of_one_who_lost_its_claim_changes_nothing(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any, clock: HandClock
) -> None:
    late = ScriptedAnalyzer(model="late")
    late.hold = asyncio.Event()
    sleeper = make_processor(late)
    ids = await accept("one", "two")
    await sleeper.run_once()
    await asyncio.sleep(0)
    clock.turn(LEASE_S)
    await turn(make_processor(ScriptedAnalyzer(model="prompt")))
    before = await insights(database)

    late.hold.set()
    await sleeper.drain()

    assert await insights(database) == before
    assert [insight["grok_analysis"]["model"] for insight in before] == ["prompt", "prompt"]
    assert await statuses(database, ids) == ["completed", "completed"]


@pytest.mark.parametrize(
    "error", [None, GrokRequestRejected("no"), GrokUnavailable("down")], ids=["an answer", "a rejection", "an outage"]
)
async def test_a_late_finish_leaves_the_row_to_the_one_who_has_it_now(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any, clock: HandClock, error: Exception | None
) -> None:
    def react(_texts: Sequence[str]) -> None:
        if error is not None:
            raise error

    late, now_holding = ScriptedAnalyzer(react, model="late"), ScriptedAnalyzer(model="prompt")
    late.hold, now_holding.hold = asyncio.Event(), asyncio.Event()
    sleeper, owner = make_processor(late), make_processor(now_holding)
    ids = await accept("late parcel")
    await sleeper.run_once()
    await asyncio.sleep(0)
    clock.turn(LEASE_S)
    await owner.run_once()

    late.hold.set()
    await sleeper.drain()
    between = await statuses(database, ids)
    now_holding.hold.set()
    await owner.drain()

    assert between == ["processing"]
    assert [insight["grok_analysis"]["model"] for insight in await insights(database)] == ["prompt"]


async def test_a_row_whose_owner_keeps_dying_is_failed_as_poison(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any, clock: HandClock
) -> None:
    ids = await accept("late parcel")
    for _ in range(4):
        await database.write(partial(store.claim_batch, limit=10, now=clock.now(), lease=timedelta(seconds=60)))
        clock.turn(LEASE_S)

    await turn(make_processor(ScriptedAnalyzer()))

    row = await look(database, ids[0])
    assert (row["status"], row["error_code"]) == ("failed", "poison")


async def test_a_failed_row_sent_back_is_analyzed_like_a_new_one(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any, clock: HandClock
) -> None:
    def reject(_texts: Sequence[str]) -> None:
        raise GrokRequestRejected("rejected")

    analyzer = ScriptedAnalyzer(reject)
    processor = make_processor(analyzer)
    [one] = await accept("late parcel")
    await turn(processor)
    await database.write(partial(store.retry_conversation, conversation_id=one, now=clock.now()))

    analyzer.react = None
    await turn(processor)

    row = await look(database, one)
    assert (row["status"], row["error"], row["attempts"]) == ("completed", None, 0)


async def test_a_row_that_is_released_is_taken_when_it_is_due_not_at_the_next_poll(
    make_processor: MakeProcessor, accept: Callable[..., Any], clock: HandClock
) -> None:
    analyzer = ScriptedAnalyzer(lambda _texts: [GrokReplyInvalid("unusable")])
    processor = make_processor(analyzer, limits=SELDOM)
    await accept("late parcel")
    await turn(processor)

    rest_s = await processor.run_once()

    assert 0 < rest_s <= 2


async def test_a_turn_that_fails_is_no_progress(
    make_processor: MakeProcessor, database: FaultyDatabase, accept: Callable[..., Any], clock: HandClock
) -> None:
    processor = make_processor(ScriptedAnalyzer())
    await accept("late parcel")
    database.faults = [ValueError("a bug")] * 1_000
    started_at = clock.now()
    running = asyncio.create_task(processor.run())

    await asyncio.sleep(0.05)
    clock.turn(40)
    await until(lambda: _has_beaten(processor, 2))
    ticked_at = processor.ticked_at
    database.faults = []
    processor.stop()
    await running

    assert ticked_at == started_at


async def _has_beaten(processor: BatchProcessor, times: int) -> bool:
    return processor.beats >= times


async def _more_beats(processor: BatchProcessor) -> None:
    enough = processor.beats + 3
    await until(lambda: _has_beaten(processor, enough))


async def test_a_processor_whose_hands_are_full_of_what_never_ends_makes_no_progress(
    make_processor: MakeProcessor, database: FaultyDatabase, accept: Callable[..., Any], clock: HandClock
) -> None:
    analyzer = ScriptedAnalyzer()
    analyzer.hold = asyncio.Event()
    processor = make_processor(analyzer, limits=replace(LIMITS, max_calls=1))
    await accept("late parcel")
    running = asyncio.create_task(processor.run())
    await until(lambda: _has_called(analyzer))
    database.faults = [StorageFull("full")] * 1_000
    analyzer.hold.set()
    await asyncio.sleep(0.1)
    started_at = clock.now()

    clock.turn(40)
    await _more_beats(processor)
    ticked_at = processor.ticked_at
    database.faults = []
    processor.stop()
    await running

    assert ticked_at == started_at


async def test_a_slow_call_is_no_standstill(
    make_processor: MakeProcessor, accept: Callable[..., Any], clock: HandClock
) -> None:
    analyzer = ScriptedAnalyzer()
    analyzer.hold = asyncio.Event()
    processor = make_processor(analyzer, limits=replace(LIMITS, max_calls=1))
    await accept("late parcel")
    running = asyncio.create_task(processor.run())
    await until(lambda: _has_called(analyzer))

    clock.turn(40)
    await _more_beats(processor)
    ticked_at = processor.ticked_at
    analyzer.hold.set()
    processor.stop()
    await running

    assert ticked_at == clock.now()


async def test_a_clock_set_forward_takes_no_row_out_of_its_own_hands(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Callable[..., Any], clock: HandClock
) -> None:
    analyzer = ScriptedAnalyzer()
    analyzer.hold = asyncio.Event()
    processor = make_processor(analyzer)
    await accept("late parcel")
    await processor.run_once()
    await until(lambda: _has_called(analyzer))

    clock.turn(3 * LEASE_S)
    await processor.run_once()
    analyzer.hold.set()
    await processor.drain()

    row = await database.read(
        lambda s: s.exec_driver_sql("SELECT status, rescues, lease_epoch FROM conversations").one()
    )
    assert tuple(row) == ("completed", 0, 1)
    assert len(analyzer.packs) == 1


async def test_one_that_waits_for_the_queue_tells_when_its_owner_last_worked(
    make_processor: MakeProcessor, tmp_path: Path, clock: HandClock
) -> None:
    owner = QueueLock(tmp_path / "insights.db")
    owner.acquire()
    beaten_at = owner.beat(clock.now())
    processor = make_processor(ScriptedAnalyzer(), lock=QueueLock(tmp_path / "insights.db"))
    running = asyncio.create_task(processor.run())

    clock.turn(40)
    await until(lambda: _has_beaten(processor, 2))
    ticked_at = processor.ticked_at
    processor.stop()
    await running
    owner.release()

    assert ticked_at == beaten_at


async def test_the_queue_is_not_owned_before_its_abandoned_rows_are_released(
    make_processor: MakeProcessor, database: FaultyDatabase, accept: Callable[..., Any], tmp_path: Path
) -> None:
    lock = QueueLock(tmp_path / "insights.db")
    processor = make_processor(ScriptedAnalyzer(), lock=lock)
    await accept("late parcel")
    database.faults = [DatabaseBusy("locked")]

    with pytest.raises(DatabaseBusy):
        await processor.run_once()
    held_after_failure = lock.held
    await turn(processor)

    assert (held_after_failure, lock.held) == (False, True)
    lock.release()


# What is shared, watched and counted


def sample(metrics: Metrics, name: str) -> float:
    """The value of a line of the metrics, such as `insights_conversations_finished_total{status="failed"}`."""
    lines = metrics.render().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


async def test_rows_of_two_batches_with_one_text_are_completed_by_one_call(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any, metrics: Metrics
) -> None:
    analyzer = ScriptedAnalyzer()
    analyzer.hold = asyncio.Event()
    processor = make_processor(analyzer)
    ids = await accept(*["late parcel"] * 30)
    for _ in range(3):
        await processor.run_once()

    analyzer.hold.set()
    await processor.drain()

    assert await statuses(database, ids) == ["completed"] * 30
    assert (analyzer.packs, sample(metrics, "insights_analysis_cache_hits_total")) == ([["late parcel"]], 29)


async def test_canaries_are_asked_when_nothing_else_waits(make_processor: MakeProcessor, accept: Any) -> None:
    analyzer = ScriptedAnalyzer()
    processor = make_processor(analyzer, canary_share=1.0)
    await accept("one", "two")
    await turn(processor)
    while_there_was_work = list(map(len, analyzer.packs))

    await turn(processor)

    assert (while_there_was_work, sorted(map(len, analyzer.packs))) == ([2], [1, 1, 2])


async def test_with_a_backlog_one_canary_at_a_time_is_asked_once_many_wait(
    make_processor: MakeProcessor, accept: Any
) -> None:
    analyzer = ScriptedAnalyzer()
    processor = make_processor(analyzer, canary_share=1.0, pack=50)
    await accept(*(f"text {number}" for number in range(50)))
    await turn(processor)
    for number in range(3):
        await accept(f"next {number}", f"last {number}")
        await turn(processor)

    # five at once, in the calls that are free, to prove the size; then one for each batch
    assert sorted(map(len, analyzer.packs)).count(1) in range(5, 13)
    assert list(map(len, analyzer.packs)).count(2) == 3


async def test_canaries_that_wait_are_let_go_when_the_service_stops(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any
) -> None:
    analyzer = ScriptedAnalyzer()
    analyzer.hold = asyncio.Event()
    processor = make_processor(analyzer, canary_share=1.0)
    last = await accept("three", "four")
    running = asyncio.create_task(processor.run())
    await until(lambda: _all_are(database, last, "processing"))

    processor.stop()
    analyzer.hold.set()
    await running

    assert list(map(len, analyzer.packs)) == [2]


async def test_what_became_of_rows_is_counted_once_and_not_for_those_who_lost_them(
    make_processor: MakeProcessor, accept: Any, clock: HandClock, metrics: Metrics
) -> None:
    late = ScriptedAnalyzer()
    late.hold = asyncio.Event()
    sleeper = make_processor(late)
    await accept("late parcel", "lost parcel", "https://t.co/x")
    await sleeper.run_once()
    clock.turn(LEASE_S)
    await turn(make_processor(ScriptedAnalyzer()))

    late.hold.set()
    await sleeper.drain()

    assert sample(metrics, 'insights_conversations_finished_total{status="completed"}') == 2
    assert sample(metrics, 'insights_conversations_finished_total{status="skipped"}') == 1
    assert sample(metrics, 'insights_prefilter_skips_total{reason="link_only"}') == 1
    assert sample(metrics, "insights_outcomes_fenced_total") == sample(metrics, "insights_rescued_claims_total") >= 2


async def test_failures_are_counted_by_their_error(
    make_processor: MakeProcessor, accept: Any, metrics: Metrics
) -> None:
    def refuse(_texts: Sequence[str]) -> None:
        raise GrokRequestRejected("There is no such field.")

    await accept("refused parcel")

    await turn(make_processor(ScriptedAnalyzer(refuse)))

    assert sample(metrics, 'insights_conversations_failed_total{error="request_rejected"}') == 1
    assert sample(metrics, 'insights_conversations_finished_total{status="failed"}') == 1


async def test_a_topic_that_is_none_is_kept_with_the_insight_and_counted(
    make_processor: MakeProcessor, accept: Any, database: FaultyDatabase
) -> None:
    named = ScriptedAnalyzer(lambda texts: [analysis_of(text, unlisted_topics=("pets", "luggage")) for text in texts])
    await accept("late parcel")

    await turn(make_processor(named))

    [insight] = await insights(database)
    assert insight["grok_analysis"]["unlisted_topics"] == ["pets", "luggage"]
    counts = await database.read(partial(queries.count_for_operator, day="2026-03-01"))
    assert counts.tallies[Tally.UNLISTED] == 2


async def test_the_throughput_is_that_of_the_last_minute(
    make_processor: MakeProcessor, accept: Any, clock: HandClock
) -> None:
    processor = make_processor(ScriptedAnalyzer())
    await accept(*(f"late parcel {number}" for number in range(10)), "https://t.co/x", "@support")
    await turn(processor)
    await turn(processor)

    assert processor.finished_per_s() == pytest.approx(0.2)
    clock.turn(61)
    assert processor.finished_per_s() == 0


async def test_a_row_whose_outcome_cannot_be_saved_is_not_held_for_ever(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any, clock: HandClock
) -> None:
    processor = make_processor(ScriptedAnalyzer())
    ids = await accept("https://t.co/x")
    await processor.run_once()
    database.faults = [RuntimeError("a bug of ours")]
    await processor.drain()

    clock.turn(LEASE_S - 1)
    await processor._renew_leases()  # pyright: ignore[reportPrivateUsage] - by itself it comes every 20 s
    clock.turn(1)
    await turn(processor)

    assert await statuses(database, ids) == ["skipped"]


async def test_a_new_owner_of_the_queue_charges_the_calls_of_the_dead_one(
    database: FaultyDatabase, make_processor: MakeProcessor, clock: HandClock
) -> None:
    assert database.file is not None
    wanted = store.Reservation("caller", 1, "grok-4.3", 5, 700, None, 10, timedelta(seconds=1))
    await database.write(partial(store.reserve_call, wanted=wanted, now=clock.now()))
    clock.turn(1)

    await turn(make_processor(ScriptedAnalyzer(), lock=QueueLock(database.file)))

    counts = await database.read(partial(queries.count_for_operator, day=clock.now().date().isoformat()))
    assert counts.reserved_ticks == 0
    assert [(row.cost_ticks, row.unreported_calls, row.conversations) for row in counts.usage] == [(700, 1, 5)]


async def test_answers_that_are_too_old_are_purged(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any, clock: HandClock
) -> None:
    processor = make_processor(ScriptedAnalyzer())
    await accept("late parcel")
    await turn(processor)
    clock.turn(31 * 86_400)

    running = asyncio.create_task(processor.run())
    await until(lambda: _is_empty(database, "analysis_cache"))
    processor.stop()
    await running


async def _is_empty(database: Database, table: str) -> bool:
    count = f"SELECT count(*) FROM {table}"
    return await database.read(lambda session: session.exec_driver_sql(count).scalar()) == 0
