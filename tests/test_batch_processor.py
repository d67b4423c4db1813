"""What becomes of a claimed row, whatever the analyzer and the database do."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest

import batch_processor
import queries
import store
from batch_processor import BatchProcessor, PackSize, ProcessorLimits
from database import Database, WriteSession
from errors import (
    DatabaseBusy,
    GrokAuth,
    GrokRefused,
    GrokReplyInvalid,
    GrokRequestRejected,
    GrokThrottled,
    GrokTooLarge,
    GrokUnavailable,
    StorageFull,
)
from grok_client import PackAnswer
from intake import Intake
from queue_lock import QueueLock
from schemas import Analysis, ConversationIn, InsightQuery
from tests.harness import HandClock, score_of

pytestmark = pytest.mark.unit

LEASE_S = 61.0


def analysis_of(text: str) -> Analysis:
    return Analysis(
        sentiment_score=score_of(text),
        clusters=("other",),
        confidence=0.9,
        reasoning=text[:20],
        summary="",
        language="en",
    )


class ScriptedAnalyzer:
    """Answers by `react`, which may raise or wait; keeps the packs it was given."""

    def __init__(self, react: Callable[[Sequence[str]], Any] | None = None, *, model: str = "scripted") -> None:
        self.react = react
        self.packs: list[list[str]] = []
        self.told_wait_s = 0.0
        self.hold: asyncio.Event | None = None
        self._model = model

    async def analyze(self, texts: Sequence[str]) -> PackAnswer:
        self.packs.append(list(texts))
        if self.hold is not None:
            await self.hold.wait()
        changed = self.react(texts) if self.react is not None else None
        return PackAnswer(changed or [analysis_of(text) for text in texts], self._model, "call", 1)

    def wait_s(self) -> float:
        return self.told_wait_s


class FaultyDatabase(Database):
    """Raises what is in `faults` instead of writing, first things first."""

    faults: list[Exception]

    async def write(self, unit: Callable[[WriteSession], Any]) -> Any:
        if self.faults:
            raise self.faults.pop(0)
        return await super().write(unit)


@pytest.fixture
async def database(sqlite_url: str) -> AsyncGenerator[FaultyDatabase]:
    opened = FaultyDatabase.connect(sqlite_url)
    assert isinstance(opened, FaultyDatabase)
    opened.faults = []
    await opened.open()
    yield opened
    opened.faults = []
    await opened.close()


class MakeProcessor(Protocol):
    def __call__(
        self,
        analyzer: ScriptedAnalyzer,
        *,
        batch_size: int = 10,
        pack: int = 5,
        max_calls: int = 10,
        poll_interval_s: float = 0.05,
        grace_s: float = 5,
        lock: QueueLock | None = None,
    ) -> BatchProcessor: ...


@pytest.fixture
def make_processor(database: FaultyDatabase, clock: HandClock) -> MakeProcessor:
    def make(
        analyzer: ScriptedAnalyzer,
        *,
        batch_size: int = 10,
        pack: int = 5,
        max_calls: int = 10,
        poll_interval_s: float = 0.05,
        grace_s: float = 5,
        lock: QueueLock | None = None,
    ) -> BatchProcessor:
        return BatchProcessor(
            database,
            analyzer,
            limits=ProcessorLimits(
                batch_size=batch_size,
                max_calls=max_calls,
                max_attempts=3,
                poll_interval_s=poll_interval_s,
                grace_s=grace_s,
            ),
            pack_size=PackSize(smallest=1, start=pack, largest=50),
            queue_lock=lock,
            now=clock.now,
        )

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


async def test_rows_travel_in_packs(make_processor: MakeProcessor, accept: Any) -> None:
    analyzer = ScriptedAnalyzer()
    await accept(*(f"late parcel {number}" for number in range(10)))

    await turn(make_processor(analyzer, batch_size=10, pack=4))

    assert sorted(len(pack) for pack in analyzer.packs) == [2, 4, 4]


async def test_an_unusable_result_is_tried_again_alone(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any, clock: HandClock
) -> None:
    def spoil(texts: Sequence[str]) -> Any:
        return [
            GrokReplyInvalid("unusable") if text == "bad" and len(texts) > 1 else analysis_of(text) for text in texts
        ]

    analyzer = ScriptedAnalyzer(spoil)
    processor = make_processor(analyzer)
    good, bad = await accept("good", "bad")
    await turn(processor)
    assert await statuses(database, [good, bad]) == ["completed", "pending"]

    clock.turn(60)
    await accept("another")
    await turn(processor)

    assert sorted(analyzer.packs[1:]) == [["another"], ["bad"]]
    assert (await look(database, bad))["attempts"] == 1


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
    down = True

    def react(_texts: Sequence[str]) -> None:
        if down:
            raise error

    processor = make_processor(ScriptedAnalyzer(react))
    ids = await accept(*(f"late parcel {number}" for number in range(12)))
    for _ in range(100):
        await turn(processor)
        clock.turn(15)
    rows = [await look(database, one) for one in ids]
    assert {(row["status"], row["attempts"]) for row in rows} == {("pending", 0)}

    down = False
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


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        pytest.param(GrokRefused, "content_filtered", id="refused"),
        pytest.param(GrokTooLarge, "too_large", id="too large"),
    ],
)
async def test_a_pack_is_halved_down_to_the_one_text_at_fault(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any, kind: Any, code: str
) -> None:
    def refuse(texts: Sequence[str]) -> None:
        if "guilty" in texts:
            raise kind("not this one")

    analyzer = ScriptedAnalyzer(refuse)
    texts = [f"innocent {number}" for number in range(7)]
    ids = await accept(*texts[:5], "guilty", *texts[5:])

    await turn(make_processor(analyzer, pack=8))

    found = await statuses(database, ids)
    assert found == ["completed"] * 5 + ["failed"] + ["completed"] * 2
    assert (await look(database, ids[5]))["error_code"] == code
    assert len(analyzer.packs) == 7


async def test_a_request_of_ours_that_is_rejected_fails_its_rows_with_the_reason(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any
) -> None:
    def reject(_texts: Sequence[str]) -> None:
        raise GrokRequestRejected("xAI answered 422: missing field")

    ids = await accept("one", "two")

    await turn(make_processor(ScriptedAnalyzer(reject)))

    assert await statuses(database, ids) == ["failed", "failed"]
    assert (await look(database, ids[0]))["error"] == "xAI answered 422: missing field"


async def test_an_exception_in_one_row_never_touches_another(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any, clock: HandClock
) -> None:
    def explode(texts: Sequence[str]) -> None:
        if "bomb" in texts:
            raise RuntimeError("a bug of ours")

    processor = make_processor(ScriptedAnalyzer(explode), pack=3)
    ids = await accept("one", "bomb", "three", "four", "five", "six")
    for _ in range(6):
        await turn(processor)
        clock.turn(LEASE_S)

    assert await statuses(database, ids) == ["completed", "failed", "completed", "completed", "completed", "completed"]
    assert (await look(database, ids[1]))["error_code"] == "poison"


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


async def test_a_failure_halves_the_pack_and_a_backlog_that_flows_doubles_it() -> None:
    size = PackSize(smallest=1, start=8, largest=20)
    size.record_failure()
    assert size.current == 4

    for _ in range(12):
        size.record_claim(full=True)

    assert size.current == 20


async def test_a_pack_is_never_smaller_than_the_smallest() -> None:
    size = PackSize(smallest=3, start=5, largest=50)

    for _ in range(9):
        size.record_failure()

    assert size.current == 3


# The loop


async def test_an_accepted_row_wakes_a_processor_at_rest(
    database: FaultyDatabase, make_processor: MakeProcessor, accept: Any
) -> None:
    processor = make_processor(ScriptedAnalyzer(), poll_interval_s=600)
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
    processor = make_processor(ScriptedAnalyzer(), poll_interval_s=600)
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

    processor = make_processor(OneSlow(), pack=1, poll_interval_s=600)
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
    processor = make_processor(analyzer, pack=10, max_calls=3)
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
    processor = make_processor(analyzer, grace_s=0.05)
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
    monkeypatch.setattr(batch_processor, "_TICK_EVERY_S", 0.01)
    processor = make_processor(ScriptedAnalyzer(), poll_interval_s=3600)
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
    processor = make_processor(analyzer, poll_interval_s=3600)
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
    await asyncio.sleep(1.1)
    ticked_at = processor.ticked_at
    database.faults = []
    processor.stop()
    await running

    assert ticked_at == started_at


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
