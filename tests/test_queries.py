import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

import queries
import store
from answers import Insight, InsightPage
from database import Database
from errors import NotFound
from parameters import ConversationQuery, InsightQuery
from schemas import Analysis, ConversationIn, Sentiment, Status
from store import Claim, Completed, Failed, Outcome, Released, Skipped, Submission
from tests.harness import HandClock

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
SCORES = [-1.0, -0.65, -0.11, -0.1, -0.05, 0.0, 0.1, 0.11, 0.4, 1.0]
CONFIDENCES = [0.0, 0.3, 0.5, 0.85, 0.9, 1.0]
TOPICS = ["delivery_problems", "refunds", "praise", "other"]
AUTHORS = [None, "ann", "bob", "cid"]


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one insight, to be found by it."""

    number: int
    timestamp: datetime
    author: str | None
    score: float
    confidence: float
    topics: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"number {self.number}"


def draw(dice: random.Random, count: int) -> list[Known]:
    """Insights with many ties: at most 40 different moments."""
    return [
        Known(
            number=number,
            timestamp=FIRST + timedelta(hours=dice.randrange(40)),
            author=dice.choice(AUTHORS),
            score=dice.choice(SCORES),
            confidence=dice.choice(CONFIDENCES),
            topics=tuple(dice.sample(TOPICS, dice.randint(1, 3))),
        )
        for number in range(count)
    ]


def analysis_of(known: Known) -> Analysis:
    return Analysis(
        sentiment_score=known.score,
        clusters=known.topics,
        confidence=known.confidence,
        reasoning="reasons",
        summary="summary",
        language="en",
    )


async def accept(database: Database, clock: HandClock, *conversations: ConversationIn) -> list[str]:
    submissions = [Submission(conversations)]
    [answer] = await database.write(partial(store.accept, submissions=submissions, now=clock.now()))
    assert isinstance(answer, list)
    return [outcome.conversation_id for outcome in answer]


async def claim(database: Database, clock: HandClock) -> list[Claim]:
    lease = timedelta(seconds=60)
    return await database.write(partial(store.claim_batch, limit=1_000, now=clock.now(), lease=lease))


async def save(database: Database, clock: HandClock, *outcomes: Outcome) -> None:
    await database.write(partial(store.save_outcomes, outcomes=outcomes, now=clock.now()))


async def fill(database: Database, clock: HandClock, insights: Sequence[Known]) -> None:
    by_text = {known.text: known for known in insights}
    await accept(
        database,
        clock,
        *[ConversationIn(text=known.text, author=known.author, timestamp=known.timestamp) for known in insights],
    )
    claims = await claim(database, clock)
    await save(database, clock, *[Completed(taken, analysis_of(by_text[taken.text]), "grok-4.3") for taken in claims])


async def find(database: Database, **wanted: Any) -> InsightPage:
    return await database.read(partial(queries.find_insights, query=InsightQuery.model_validate(wanted)))


async def walk(database: Database, **wanted: Any) -> list[Insight]:
    """Every page, by the cursor of the one before."""
    found: list[Insight] = []
    cursor: str | None = None
    while True:
        page = await find(database, cursor=cursor, **wanted)
        assert page["metadata"]["returned_count"] == len(page["insights"])
        found += page["insights"]
        cursor = page["metadata"]["next_cursor"]
        if cursor is None:
            return found


def numbers(insights: Sequence[Insight]) -> list[int]:
    return [int(insight["text"].removeprefix("number ")) for insight in insights]


def is_wanted(known: Known, wanted: dict[str, Any]) -> bool:
    """What the filters mean, said once more."""
    return (
        ("start_time" not in wanted or known.timestamp >= wanted["start_time"])
        and ("end_time" not in wanted or known.timestamp < wanted["end_time"])
        and ("min_confidence" not in wanted or known.confidence >= wanted["min_confidence"])
        and ("author" not in wanted or known.author == wanted["author"])
        and ("topic" not in wanted or bool(set(wanted["topic"]) & set(known.topics)))
        and ("sentiment" not in wanted or side_of(known.score) == wanted["sentiment"])
    )


def side_of(score: float) -> str:
    if -0.1 <= score <= 0.1:
        return "neutral"
    return "positive" if score > 0 else "negative"


def draw_filters(dice: random.Random) -> dict[str, Any]:
    """Any combination of filters, none and all included."""
    start = FIRST + timedelta(hours=dice.randrange(40))
    filters: dict[str, Any] = {
        "start_time": start,
        "end_time": start + timedelta(hours=dice.randrange(40)),
        "min_confidence": dice.choice(CONFIDENCES),
        "author": dice.choice([*AUTHORS[1:], "nobody"]),
        "topic": dice.sample([*TOPICS, "nothing"], dice.randint(1, 3)),
        "sentiment": dice.choice(list(Sentiment)),
    }
    return {name: value for name, value in filters.items() if dice.random() < dice.choice([0.2, 0.6])}


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_filters_find_just_what_they_mean_and_count_it(database: Database, clock: HandClock, seed: int) -> None:
    dice = random.Random(seed)
    stored = draw(dice, 200)
    await fill(database, clock, stored)

    for _ in range(60):
        wanted = draw_filters(dice)
        page = await find(database, limit=1_000, **wanted)
        expected = {known.number for known in stored if is_wanted(known, wanted)}

        assert set(numbers(page["insights"])) == expected, wanted
        assert page["metadata"]["total_count"] == len(expected) == len(page["insights"]), wanted


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param({}, id="everything"),
        pytest.param({"sentiment": "negative"}, id="a side"),
        pytest.param({"topic": ["refunds", "praise"]}, id="two topics"),
        pytest.param({"author": "ann", "min_confidence": 0.5}, id="an author"),
        pytest.param({"start_time": FIRST + timedelta(hours=5), "end_time": FIRST + timedelta(hours=9)}, id="a time"),
    ],
)
@pytest.mark.parametrize("limit", [1, 7, 1_000])
async def test_a_walk_visits_each_once_newest_first(
    database: Database, clock: HandClock, wanted: dict[str, Any], limit: int
) -> None:
    stored = draw(random.Random(7), 120)
    await fill(database, clock, stored)

    found = await walk(database, limit=limit, **wanted)

    times = [insight["timestamp"] for insight in found]
    assert sorted(numbers(found)) == [known.number for known in stored if is_wanted(known, wanted)]
    assert times == sorted(times, reverse=True)


async def test_ties_are_walked_in_one_order_whatever_the_page(database: Database, clock: HandClock) -> None:
    same_moment = [Known(number, FIRST, None, 0.0, 0.9, ("other",)) for number in range(50)]
    await fill(database, clock, same_moment)

    in_one_page = numbers(await walk(database, limit=100))

    assert len(set(in_one_page)) == 50
    assert [numbers(await walk(database, limit=limit)) for limit in (1, 3, 49, 50)] == [in_one_page] * 4


async def test_a_walk_is_not_upset_by_what_arrives_meanwhile(database: Database, clock: HandClock) -> None:
    await fill(database, clock, draw(random.Random(7), 50))
    first = await find(database, limit=20)
    newer = [Known(100 + number, FIRST + timedelta(days=9), None, 0.0, 0.9, ("other",)) for number in range(10)]
    await fill(database, clock, newer)

    rest = await walk_from(database, first["metadata"]["next_cursor"])

    assert len(set(numbers(first["insights"]) + numbers(rest))) == 50


async def walk_from(database: Database, cursor: str | None) -> list[Insight]:
    return (await find(database, limit=1_000, cursor=cursor))["insights"]


@pytest.mark.parametrize(
    ("score", "side"),
    [
        pytest.param(0.1, "neutral", id="a tenth"),
        pytest.param(-0.1, "neutral", id="a tenth below"),
        pytest.param(0.1001, "positive", id="a ten-thousandth more"),
        pytest.param(-0.1001, "negative", id="a ten-thousandth less"),
        pytest.param(0.10004, "neutral", id="scores are kept to four decimals"),
        pytest.param(-0.10006, "negative", id="and rounded to them"),
        pytest.param(0.0, "neutral", id="nothing"),
    ],
)
async def test_a_tenth_is_still_neutral(database: Database, clock: HandClock, score: float, side: str) -> None:
    await fill(database, clock, [Known(1, FIRST, None, score, 0.9, ("other",))])

    found = {each.value: (await find(database, sentiment=each))["metadata"]["total_count"] for each in Sentiment}

    assert found == {"positive": 0, "neutral": 0, "negative": 0} | {side: 1}


async def test_a_time_is_from_its_start_until_before_its_end(database: Database, clock: HandClock) -> None:
    tick = timedelta(microseconds=1)
    start, end = FIRST, FIRST + timedelta(days=1)
    moments = [start - tick, start, end - tick, end]
    await fill(
        database,
        clock,
        [Known(number, moment, None, 0.0, 0.9, ("other",)) for number, moment in enumerate(moments)],
    )

    page = await find(database, start_time=start, end_time=end)

    assert numbers(page["insights"]) == [2, 1]
    assert (page["metadata"]["start_time"], page["metadata"]["end_time"]) == (start, end)


@pytest.mark.parametrize(
    ("confidence", "asked", "found"),
    [
        pytest.param(0.85, 0.85, 1, id="just as much"),
        pytest.param(0.85, 0.86, 0, id="less"),
        pytest.param(0.846, 0.85, 1, id="counts are by hundredths, rounded up"),
        pytest.param(0.844, 0.84, 1, id="and down"),
        pytest.param(0.0, 0.0, 1, id="nothing asked"),
        pytest.param(1.0, 1.0, 1, id="all asked"),
    ],
)
async def test_confidence_is_at_least_what_was_asked(
    database: Database, clock: HandClock, confidence: float, asked: float, found: int
) -> None:
    await fill(database, clock, [Known(1, FIRST, None, 0.0, confidence, ("other",))])

    assert (await find(database, min_confidence=asked))["metadata"]["total_count"] == found


async def test_an_insight_tells_all_that_the_analyzer_said(database: Database, clock: HandClock) -> None:
    await fill(database, clock, [Known(1, FIRST, "ann", -0.65, 0.9, ("refunds", "other"))])

    [insight] = (await find(database))["insights"]

    assert (insight["author"], insight["timestamp"], insight["text"]) == ("ann", FIRST, "number 1")
    assert insight["grok_analysis"] == {
        "sentiment_score": -0.65,
        "sentiment": "negative",
        "clusters": ["refunds", "other"],
        "confidence": 0.9,
        "reasoning": "reasons",
        "summary": "summary",
        "language": "en",
        "model": "grok-4.3",
        "injection_suspected": False,
        "corrected": False,
        "unlisted_topics": [],
    }


async def test_without_insights_a_page_is_empty(database: Database) -> None:
    page = await find(database)

    assert page["insights"] == []
    assert list(page["metadata"].values()) == [0, 0, None, None, None]


@pytest.mark.parametrize("hostile", ["' OR '1'='1", "%", "_", "*", 'a" OR "b', "; DROP TABLE insights", "\\"])
async def test_a_hostile_name_is_only_a_name(database: Database, clock: HandClock, hostile: str) -> None:
    await fill(database, clock, [Known(1, FIRST, "ann", 0.0, 0.9, ("other",))])

    assert (await find(database, author=hostile))["metadata"]["total_count"] == 0
    assert (await find(database, topic=[hostile]))["metadata"]["total_count"] == 0


async def one_of_each(database: Database, clock: HandClock) -> dict[str, str]:
    """The ids of a conversation in each status."""
    names = ["completed", "failed", "skipped", "pending", "processing"]
    ids = dict(zip(names, await accept(database, clock, *[ConversationIn(text=name) for name in names]), strict=True))
    by_text = {taken.text: taken for taken in await claim(database, clock)}
    await save(
        database,
        clock,
        Completed(by_text["completed"], analysis_of(Known(1, FIRST, None, 0.5, 0.9, ("praise",))), "grok-4.3"),
        Failed(by_text["failed"], "reply_invalid", "Not JSON.", "<html>"),
        Skipped(by_text["skipped"], "link_only"),
        Released(by_text["pending"], clock.now() + timedelta(seconds=5)),
    )
    return ids


@pytest.mark.parametrize("status", list(Status))
async def test_a_conversation_tells_where_it_stands(database: Database, clock: HandClock, status: Status) -> None:
    ids = await one_of_each(database, clock)

    answer = await database.read(partial(queries.get_conversation, conversation_id=ids[status]))

    assert (answer["status"], answer["text"], answer["conversation_id"]) == (status, status, ids[status])
    assert [answer["error"], answer["error_code"]] == (
        ["Not JSON.", "reply_invalid"] if status == Status.FAILED else [None, None]
    )
    assert answer["skip_reason"] == ("link_only" if status == Status.SKIPPED else None)
    assert (answer.get("insight") is not None) == (status == Status.COMPLETED)


async def test_a_conversation_that_is_not_there_is_not_found(database: Database) -> None:
    with pytest.raises(NotFound):
        await database.read(partial(queries.get_conversation, conversation_id="conv_none"))


@pytest.mark.parametrize("status", list(Status))
async def test_conversations_are_listed_by_status(database: Database, clock: HandClock, status: Status) -> None:
    ids = await one_of_each(database, clock)

    page = await database.read(partial(queries.list_conversations, query=ConversationQuery(status=status)))

    assert [each["conversation_id"] for each in page["conversations"]] == [ids[status]]
    assert page["metadata"] == {"returned_count": 1, "next_cursor": None}


@pytest.mark.parametrize("limit", [1, 4, 10, 11])
async def test_all_conversations_are_walked_newest_first(database: Database, clock: HandClock, limit: int) -> None:
    ids: list[str] = []
    for number in range(10):
        clock.turn(0.001)
        ids += await accept(database, clock, ConversationIn(text=f"number {number}"))

    walked: list[str] = []
    cursor: str | None = None
    while len(walked) < 10:
        query = ConversationQuery(limit=limit, cursor=cursor)
        page = await database.read(partial(queries.list_conversations, query=query))
        walked += [each["conversation_id"] for each in page["conversations"]]
        cursor = page["metadata"]["next_cursor"]

    assert walked == ids[::-1]
    assert cursor is None


async def test_the_queue_is_what_waits_and_what_is_in_work(database: Database, clock: HandClock) -> None:
    await one_of_each(database, clock)

    assert await database.read(queries.queue_depth) == 2


async def test_the_longest_due_is_known_and_what_waits_for_later_is_not_due(
    database: Database, clock: HandClock
) -> None:
    await one_of_each(database, clock)  # one is due in 5 s, one when its lease ends
    oldest = partial(queries.oldest_due, now=clock.now())
    released = clock.now() + timedelta(seconds=5)

    assert await database.read(oldest) is None
    assert await database.read(partial(queries.oldest_due, now=released + timedelta(seconds=9))) == released
