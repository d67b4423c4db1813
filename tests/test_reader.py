"""What needs no call is answered without one, and equal texts are asked exactly once."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from errors import DatabaseBusy, GrokReplyInvalid
from local_analyzer import LOCAL_MODEL, LocalAnalyzer
from reader import PackLimits, Reader
from schemas import Analysis, SkipReason, Tally
from store import Completed, Outcome, Released, Skipped
from tests.harness import HandClock
from tests.scripted_analyzer import POLICY, Bench, ScriptedAnalyzer, analysis_of, open_bench
from topics import TOPICS_PATH, load_topics, topic_patterns

pytestmark = pytest.mark.unit

MONTH_S = 30 * 86_400


@pytest.fixture
async def bench(sqlite_url: str, clock: HandClock) -> AsyncGenerator[Bench]:
    async with open_bench(sqlite_url, clock) as opened:
        yield opened


@pytest.fixture(scope="session")
def local() -> LocalAnalyzer:
    return LocalAnalyzer.load(topic_patterns=topic_patterns(load_topics(TOPICS_PATH)))


def completed(outcomes: Sequence[Outcome]) -> list[Completed]:
    found = [outcome for outcome in outcomes if isinstance(outcome, Completed)]
    assert len(found) == len(outcomes)
    return found


def tallies_of(outcomes: Sequence[Outcome]) -> list[Tally]:
    return [tally for outcome in completed(outcomes) for tally in outcome.tallies]


# Without a call


async def test_a_text_with_nothing_to_read_is_skipped_with_the_reason(bench: Bench) -> None:
    batch = await bench.reader().sort(await bench.claim("https://t.co/abc", "@support", "..."))

    reasons = [outcome.reason for outcome in batch.outcomes if isinstance(outcome, Skipped)]
    assert reasons == [SkipReason.LINK_ONLY, SkipReason.MENTION_ONLY, SkipReason.PUNCTUATION_ONLY]
    assert batch.packs == []


async def test_a_word_of_thanks_is_answered_locally_and_marked_so(bench: Bench, local: LocalAnalyzer) -> None:
    outcomes = await bench.process(bench.reader(local=local), "thank you so much")

    [outcome] = completed(outcomes)
    assert (outcome.model, outcome.tallies, outcome.cache_key) == (LOCAL_MODEL, (Tally.LITTLE_TO_READ,), None)
    assert bench.analyzer.packs == []


async def test_all_else_is_put_to_grok_in_packs(bench: Bench) -> None:
    reader = bench.reader(packs=PackLimits(1, 4, 50))

    batch = await reader.sort(await bench.claim(*(f"late parcel {number}" for number in range(10))))

    assert [len(pack) for pack in batch.packs] == [4, 4, 2]
    assert batch.outcomes == []


async def test_each_claim_gets_the_answer_to_its_own_text(bench: Bench) -> None:
    texts = [f"late parcel {number}" for number in range(7)]

    outcomes = await bench.process(bench.reader(), *texts)

    assert {outcome.claim.text: outcome.analysis for outcome in completed(outcomes)} == {
        text: analysis_of(text) for text in texts
    }
    assert {outcome.model for outcome in completed(outcomes)} == {"scripted"}


# The cache


@pytest.mark.parametrize(
    "again",
    [
        pytest.param("late parcel", id="equal"),
        pytest.param("late\n\nparcel", id="spaced otherwise"),
        pytest.param("\u200blate parcel", id="with something invisible"),
    ],
)
async def test_an_answer_serves_equal_texts_after_a_restart(bench: Bench, again: str) -> None:
    first = await bench.process(bench.reader(), "late parcel")

    later = await bench.process(bench.reader(ScriptedAnalyzer()), again)

    [was], [found] = completed(first), completed(later)
    assert (found.analysis, found.model) == (was.analysis, was.model)
    assert (bench.analyzer.asked.total(), found.tallies) == (1, (Tally.CACHED,))


async def test_a_text_in_another_case_is_another_text(bench: Bench) -> None:
    await bench.process(bench.reader(), "late parcel")

    await bench.process(bench.reader(), "LATE PARCEL")

    assert bench.analyzer.asked == {"late parcel": 1, "LATE PARCEL": 1}


@pytest.mark.parametrize(
    "fingerprint",
    [
        pytest.param("grok-4.5\nprompt-1", id="another model"),
        pytest.param("scripted\nprompt-2", id="another prompt, or other topics"),
    ],
)
async def test_an_answer_by_other_means_does_not_serve(bench: Bench, fingerprint: str) -> None:
    await bench.process(bench.reader(), "late parcel")
    other = ScriptedAnalyzer()
    other.fingerprint = fingerprint

    await bench.process(bench.reader(other), "late parcel")

    assert other.packs == [["late parcel"]]


@pytest.mark.parametrize(("passed_s", "calls"), [(MONTH_S, 1), (MONTH_S + 1, 2)], ids=["just in time", "too late"])
async def test_an_answer_serves_for_as_long_as_it_was_told(
    bench: Bench, clock: HandClock, passed_s: int, calls: int
) -> None:
    await bench.process(bench.reader(), "late parcel")
    clock.turn(passed_s)

    await bench.process(bench.reader(), "late parcel")

    assert bench.analyzer.asked["late parcel"] == calls


async def test_a_purge_forgets_what_was_said_too_long_ago_and_keeps_the_rest(bench: Bench, clock: HandClock) -> None:
    reader = bench.reader()
    await bench.process(reader, "old parcel")
    clock.turn(MONTH_S)
    await bench.process(reader, "new parcel")
    clock.turn(1)

    await reader.purge()
    kept = await bench.count("analysis_cache")
    await bench.process(reader, "old parcel", "new parcel")

    assert kept == 1
    assert bench.analyzer.asked == {"old parcel": 2, "new parcel": 1}


async def test_who_keeps_nothing_leaves_what_others_kept(bench: Bench, clock: HandClock) -> None:
    await bench.process(bench.reader(), "late parcel")
    clock.turn(MONTH_S + 1)

    await bench.reader(policy=replace(POLICY, cache_lifetime=None)).purge()

    assert await bench.count("analysis_cache") == 1


async def test_without_a_lifetime_no_answer_serves_twice(bench: Bench) -> None:
    reader = bench.reader(policy=replace(POLICY, cache_lifetime=timedelta()))

    for _ in range(3):
        await bench.process(reader, "late parcel")

    assert bench.analyzer.asked["late parcel"] == 3


async def test_an_answer_that_cannot_be_used_is_never_kept(bench: Bench, clock: HandClock) -> None:
    reader = bench.reader(ScriptedAnalyzer(lambda texts: [GrokReplyInvalid("unusable") for _ in texts]))
    for _ in range(3):
        await bench.process(reader, "late parcel")
        clock.turn(60)

    assert await bench.count("analysis_cache") == 0
    await bench.process(bench.reader(), "late parcel")
    assert bench.analyzer.asked["late parcel"] == 1


async def test_an_answer_serves_no_more_once_its_conversation_is_erased(bench: Bench) -> None:
    await bench.process(bench.reader(), "late parcel")

    await bench.database.write(lambda session: session.exec_driver_sql("DELETE FROM conversations").close())
    await bench.process(bench.reader(), "late parcel")

    assert bench.analyzer.asked["late parcel"] == 2


async def test_a_database_that_does_not_say_what_is_known_is_no_obstacle(bench: Bench) -> None:
    claims = await bench.claim("late parcel")
    bench.database.read_faults = [DatabaseBusy("locked")]

    batch = await bench.reader().sort(claims)

    assert [[question.text for question in pack] for pack in batch.packs] == [["late parcel"]]


# Exactly once


async def test_equal_texts_of_one_batch_are_asked_once(bench: Bench) -> None:
    outcomes = await bench.process(bench.reader(), "late parcel", "late  parcel", "lost parcel", "late parcel")

    assert bench.analyzer.asked == {"late parcel": 1, "lost parcel": 1}
    assert sorted(tallies_of(outcomes)) == [Tally.ASKED, Tally.ASKED, Tally.CACHED, Tally.CACHED]
    assert await bench.tallies() == {Tally.ASKED: 2, Tally.CACHED: 2}


async def test_a_text_that_is_being_asked_is_not_asked_again(bench: Bench) -> None:
    reader = bench.reader()
    first = await reader.sort(await bench.claim("late parcel"))
    second = await reader.sort(await bench.claim("late parcel", "lost parcel"))

    outcomes = (await bench.read(reader, first)).outcomes + (await bench.read(reader, second)).outcomes

    assert bench.analyzer.asked == {"late parcel": 1, "lost parcel": 1}
    assert len(completed(outcomes)) == 3


async def test_a_text_whose_answer_is_not_saved_yet_is_not_asked_again(bench: Bench) -> None:
    reader = bench.reader()
    await bench.read(reader, await reader.sort(await bench.claim("late parcel")))

    batch = await reader.sort(await bench.claim("late parcel"))

    assert batch.packs == []
    assert tallies_of(batch.outcomes) == [Tally.CACHED]


async def test_a_text_that_is_answered_while_another_batch_looks_it_up_is_not_asked_again(bench: Bench) -> None:
    reader = bench.reader()
    bench.analyzer.hold = asyncio.Event()
    [pack] = (await reader.sort(await bench.claim("late parcel"))).packs
    reading = asyncio.create_task(reader.read(pack))
    claims = await bench.claim("late parcel")
    release_the_answer_within_a_read(bench, reading)

    batch = await reader.sort(claims)

    assert (batch.packs, tallies_of(batch.outcomes)) == ([], [Tally.CACHED])


def release_the_answer_within_a_read(bench: Bench, reading: "asyncio.Task[object]") -> None:
    """The next read ends after the answer has come, and has not seen it: it is not saved."""
    read, hold = bench.database.read, bench.analyzer.hold
    assert hold is not None

    async def read_slowly(unit: object) -> object:
        found = await read(unit)  # type: ignore[arg-type]
        hold.set()
        await reading
        return found

    bench.database.read = read_slowly  # type: ignore[method-assign]


async def test_a_thousand_equal_texts_in_many_batches_cost_one_call(bench: Bench) -> None:
    reader = bench.reader()
    batches = [await reader.sort(await bench.claim(*["late parcel"] * 100)) for _ in range(10)]

    readings = await asyncio.gather(*(bench.read(reader, batch) for batch in batches))

    assert bench.analyzer.packs == [["late parcel"]]
    assert sum(len(completed(reading.outcomes)) for reading in readings) == 1_000


async def test_after_a_bug_a_text_can_be_asked_again(bench: Bench) -> None:
    def explode(_texts: Sequence[str]) -> list[Analysis | GrokReplyInvalid]:
        raise RuntimeError("a bug of ours")

    bench.analyzer.react = explode
    reader = bench.reader()
    [pack] = (await reader.sort(await bench.claim("late parcel"))).packs
    reading = await reader.read(pack)

    batch = await reader.sort(await bench.claim("late parcel"))

    assert [type(outcome) for outcome in reading.outcomes] == [Released]
    assert len(batch.packs) == 1


def test_a_reader_waits_for_as_long_as_its_analyzer_says(bench: Bench) -> None:
    reader: Reader = bench.reader()

    bench.analyzer.told_wait_s = 7.0

    assert reader.wait_s() == 7.0
