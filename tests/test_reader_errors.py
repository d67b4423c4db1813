"""What each class of error does to the rows that were asked for, and to those that waited for the same answer."""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from errors import (
    DatabaseBusy,
    GrokAtCapacity,
    GrokAuth,
    GrokBilling,
    GrokBudgetReached,
    GrokConfig,
    GrokError,
    GrokRefused,
    GrokReplyInvalid,
    GrokRequestRejected,
    GrokThrottled,
    GrokTooDear,
    GrokTooLarge,
    GrokUnavailable,
    InsightsError,
    StorageFull,
)
from reader import PackLimits, Reader
from schemas import Tally
from store import Completed, Failed, Outcome, Released
from tests.harness import HandClock
from tests.scripted_analyzer import POLICY, Bench, Results, analysis_of, open_bench

pytestmark = pytest.mark.unit


@pytest.fixture
async def bench(sqlite_url: str, clock: HandClock) -> AsyncGenerator[Bench]:
    async with open_bench(sqlite_url, clock) as opened:
        yield opened


def raising(error: Exception, *, for_text: str | None = None) -> Callable[[Sequence[str]], Results | None]:
    """Raise for every call, or for those that carry one text."""

    def react(texts: Sequence[str]) -> None:
        if for_text is None or for_text in texts:
            raise error

    return react


def released(outcomes: Sequence[Outcome]) -> list[Released]:
    found = [outcome for outcome in outcomes if isinstance(outcome, Released)]
    assert len(found) == len(outcomes)
    return found


def failed(outcomes: Sequence[Outcome]) -> list[Failed]:
    return [outcome for outcome in outcomes if isinstance(outcome, Failed)]


def texts_of(outcomes: Sequence[Outcome]) -> list[str]:
    return sorted(outcome.claim.text for outcome in outcomes)


async def read_together(bench: Bench, reader: Reader, *texts: str) -> list[Outcome]:
    """Texts of one batch, and once more each in a batch that finds them under way."""
    first = await reader.sort(await bench.claim(*texts))
    second = await reader.sort(await bench.claim(*texts))
    assert (second.outcomes, second.packs) == ([], [])
    return (await bench.read(reader, first)).outcomes


# Outages


@pytest.mark.parametrize(
    ("error", "told_s", "due_s"),
    [
        pytest.param(GrokAuth("wrong key"), 60.0, 60, id="a wrong key"),
        pytest.param(GrokBilling("no credits"), 60.0, 60, id="no credits"),
        pytest.param(GrokConfig("no such model"), 60.0, 60, id="a wrong model"),
        pytest.param(GrokThrottled("slow down", retry_after_s=7), 0.0, 7, id="too many calls"),
        pytest.param(GrokThrottled("slow down", retry_after_s=3600), 3600.0, 60, id="too many calls for an hour"),
        pytest.param(GrokBudgetReached("spent", retry_after_s=40_000), 40_000.0, 60, id="the budget is spent"),
        pytest.param(GrokBudgetReached("held", retry_after_s=5), 5.0, 5, id="the budget is held"),
        pytest.param(GrokUnavailable("down"), 10.0, 10, id="an open breaker"),
        pytest.param(GrokUnavailable("down"), 0.0, 1, id="one call that failed"),
        pytest.param(GrokAtCapacity("busy", retry_after_s=120), 120.0, 60, id="no capacity"),
        pytest.param(DatabaseBusy("locked"), 0.0, 1, id="an account that cannot be asked"),
        pytest.param(StorageFull("full"), 0.0, 1, id="an account that cannot be written"),
    ],
)
async def test_an_outage_costs_no_attempt_and_every_row_is_due_within_a_minute(
    bench: Bench, clock: HandClock, error: InsightsError, told_s: float, due_s: int
) -> None:
    bench.analyzer.react = raising(error)
    bench.analyzer.told_wait_s = told_s

    outcomes = released(await read_together(bench, bench.reader(), "one", "two"))

    assert texts_of(outcomes) == ["one", "one", "two", "two"]
    assert {(one.due_at, one.spent_attempt) for one in outcomes} == {(clock.now() + timedelta(seconds=due_s), False)}


@pytest.mark.parametrize(
    ("error", "size"),
    [
        pytest.param(GrokUnavailable("down"), 4, id="calls that fail"),
        pytest.param(GrokTooLarge("cut off"), 4, id="packs that are too large"),
        pytest.param(GrokReplyInvalid("cut off"), 4, id="answers that cannot be used"),
        pytest.param(GrokThrottled("slow down"), 8, id="a rate has nothing to do with it"),
        pytest.param(GrokAuth("wrong key"), 8, id="nor has a key"),
        pytest.param(DatabaseBusy("locked"), 8, id="nor has a database"),
    ],
)
async def test_packs_get_smaller_when_their_size_may_be_the_reason(
    bench: Bench, error: InsightsError, size: int
) -> None:
    reader = bench.reader(packs=PackLimits(1, 8, 50))
    bench.analyzer.react = raising(error, for_text="one")
    [pack] = (await reader.sort(await bench.claim("one", "two"))).packs

    await reader.read(pack)

    assert reader.pack_size.current == size


async def test_after_an_outage_the_same_text_is_asked_again(bench: Bench, clock: HandClock) -> None:
    reader = bench.reader()
    bench.analyzer.react = raising(GrokAuth("wrong key"))
    await bench.process(reader, "one")
    clock.turn(60)
    bench.analyzer.react = None

    outcomes = await bench.process(reader)

    assert [type(outcome) for outcome in outcomes] == [Completed]


# Texts at fault


@pytest.mark.parametrize(
    ("error", "code"),
    [
        pytest.param(GrokRefused("not this one"), "content_filtered", id="refused"),
        pytest.param(GrokTooLarge("too long"), "too_large", id="too large"),
    ],
)
async def test_a_pack_is_halved_down_to_the_one_text_at_fault(bench: Bench, error: GrokError, code: str) -> None:
    bench.analyzer.react = raising(error, for_text="guilty")
    texts = [*(f"innocent {number}" for number in range(5)), "guilty", "innocent 5", "innocent 6"]

    outcomes = await read_together(bench, bench.reader(packs=PackLimits(1, 8, 50)), *texts)

    assert [(one.claim.text, one.code, one.error) for one in failed(outcomes)] == [("guilty", code, error.details)] * 2
    assert len(outcomes) - len(failed(outcomes)) == 14
    assert len(bench.analyzer.packs) == 7


async def test_a_request_that_is_rejected_fails_its_rows_with_the_reason(bench: Bench) -> None:
    bench.analyzer.react = raising(GrokRequestRejected("missing field", raw_answer="what came back"))

    outcomes = await read_together(bench, bench.reader(), "one")

    assert {(one.code, one.error, one.raw_answer) for one in failed(outcomes)} == {
        ("request_rejected", "missing field", "what came back")
    }
    assert len(failed(outcomes)) == len(outcomes) == 2


# Answers that cannot be used


def spoiling(text: str) -> Callable[[Sequence[str]], Results]:
    """The result for one text cannot be used; the others can."""

    def react(texts: Sequence[str]) -> Results:
        invalid = GrokReplyInvalid("The answer cannot be used.", raw_answer="said nonsense")
        return [invalid if one == text else analysis_of(one) for one in texts]

    return react


async def test_an_unusable_result_costs_its_claims_an_attempt_and_their_neighbours_nothing(
    bench: Bench, clock: HandClock
) -> None:
    bench.analyzer.react = spoiling("bad")

    outcomes = await read_together(bench, bench.reader(), "good", "bad")

    back = [outcome for outcome in outcomes if isinstance(outcome, Released)]
    assert {(one.claim.text, one.due_at, one.spent_attempt) for one in back} == {
        ("bad", clock.now() + timedelta(seconds=2), True)
    }
    assert (len(back), len(outcomes)) == (2, 4)


async def test_after_an_unusable_answer_a_text_is_asked_alone_at_growing_distances_and_then_fails(
    bench: Bench, clock: HandClock
) -> None:
    bench.analyzer.react = spoiling("bad")
    reader = bench.reader()

    [_, first] = await bench.process(reader, "good", "bad")
    clock.turn(2)
    outcomes = await bench.process(reader, "another", "bad")
    second = next(one for one in outcomes if one.claim.conversation_id == first.claim.conversation_id)
    clock.turn(4)
    [third] = [one for one in await bench.process(reader) if isinstance(one, Failed)]

    assert ["bad"] in bench.analyzer.packs[1:]
    assert [len(pack) for pack in bench.analyzer.packs if "bad" in pack] == [2, 1, 1]
    assert second == Released(second.claim, clock.now(), spent_attempt=True)
    assert (third.code, third.raw_answer, third.claim.attempts) == ("reply_invalid", "said nonsense", 2)


async def test_an_answer_that_is_unusable_as_a_whole_is_each_texts_own_trouble(bench: Bench) -> None:
    bench.analyzer.react = raising(GrokReplyInvalid("Not JSON.", raw_answer="<html>"))

    outcomes = released(await bench.process(bench.reader(), "one", "two", "three"))

    assert [outcome.spent_attempt for outcome in outcomes] == [True] * 3
    assert await bench.tallies() == {}


# A text that may be what makes calls fail


async def test_a_text_whose_calls_fail_while_others_are_answered_travels_alone(bench: Bench, clock: HandClock) -> None:
    bench.analyzer.react = raising(GrokUnavailable("the connection breaks"), for_text="bomb")
    reader = bench.reader()
    await bench.process(reader, "one", "bomb", "two")
    clock.turn(60)

    outcomes = await bench.process(reader, "three")

    assert sorted(bench.analyzer.packs[1:]) == [["bomb"], ["one"], ["three"], ["two"]]
    assert [one.claim.text for one in outcomes if isinstance(one, Completed)].count("bomb") == 0
    assert texts_of([one for one in outcomes if isinstance(one, Completed)]) == ["one", "three", "two"]


async def test_after_an_answer_a_text_travels_with_others_again(bench: Bench, clock: HandClock) -> None:
    reader = bench.reader(policy=replace(POLICY, cache_lifetime=timedelta()), packs=PackLimits(5, 5, 5))
    bench.analyzer.react = raising(GrokUnavailable("the connection breaks"))
    await bench.process(reader, "one", "two")
    bench.analyzer.react = None
    clock.turn(60)

    await bench.process(reader)
    await bench.process(reader, "one", "two")

    assert [len(pack) for pack in bench.analyzer.packs] == [2, 1, 1, 2]


async def test_a_text_fails_after_ten_lonely_rounds_while_others_are_completed(bench: Bench, clock: HandClock) -> None:
    bench.analyzer.react = raising(GrokUnavailable("the connection breaks"), for_text="bomb")
    reader = bench.reader()
    ended: list[Outcome] = []
    for number in range(11):
        ended += await bench.process(reader, f"parcel {number}", *(["bomb"] if number == 0 else []))
        clock.turn(301)

    assert [(one.claim.text, one.code, one.claim.attempts) for one in failed(ended)] == [
        ("bomb", "grok_unavailable", 0)
    ]
    assert bench.analyzer.asked["bomb"] == 11
    assert await bench.tallies() == {Tally.ASKED: 11}


async def test_lonely_rounds_lie_further_and_further_apart(bench: Bench, clock: HandClock) -> None:
    bench.analyzer.react = raising(GrokUnavailable("the connection breaks"))
    reader = bench.reader()
    waits: list[float] = []
    for _ in range(10):
        outcomes = await bench.process(reader, *([] if waits else ["bomb"]))
        waits += [(one.due_at - clock.now()).total_seconds() for one in outcomes if isinstance(one, Released)]
        clock.turn(301)

    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 300]


async def test_no_text_fails_however_long_an_outage_lasts(bench: Bench, clock: HandClock) -> None:
    bench.analyzer.react = raising(GrokUnavailable("down"))
    bench.analyzer.told_wait_s = 10.0
    reader = bench.reader()

    await bench.process(reader, "one", "two")
    for _ in range(100):
        clock.turn(60)
        released(await bench.process(reader))

    bench.analyzer.react = None
    clock.turn(60)
    assert [type(outcome) for outcome in await bench.process(reader)] == [Completed, Completed]


async def test_equal_texts_share_the_last_of_ten_lonely_rounds(bench: Bench, clock: HandClock) -> None:
    bench.analyzer.react = raising(GrokUnavailable("the connection breaks"))
    reader = bench.reader()
    for _ in range(9):
        await bench.process(reader, *([] if bench.analyzer.packs else ["bomb"]))
        clock.turn(301)

    outcomes = await bench.process(reader, "bomb")

    assert len(failed(outcomes)) == len(outcomes) == 2


async def test_a_pack_too_dear_for_the_rest_of_the_day_is_halved_and_the_dear_text_waits_alone(
    bench: Bench, clock: HandClock
) -> None:
    reader = bench.reader(packs=PackLimits(1, 8, 50))
    bench.analyzer.react = raising(GrokTooDear("too dear", retry_after_s=7200), for_text="dear")
    [pack] = (await reader.sort(await bench.claim("dear", "short", "also short"))).packs

    outcomes = (await reader.read(pack)).outcomes

    waits = {one.claim.text: one.due_at - clock.now() for one in outcomes if isinstance(one, Released)}
    assert waits == {"dear": timedelta(hours=2)}
    assert reader.pack_size.current == 8


async def test_a_text_dearer_than_any_day_fails_with_its_reason(bench: Bench) -> None:
    bench.analyzer.react = raising(GrokTooDear("too dear for any day"))

    [outcome] = await _read_one(bench, "dear")

    assert isinstance(outcome, Failed)
    assert outcome.code == "too_dear"


async def _read_one(bench: Bench, text: str) -> list[Outcome]:
    reader = bench.reader()
    [pack] = (await reader.sort(await bench.claim(text))).packs
    return (await reader.read(pack)).outcomes
