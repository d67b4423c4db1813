"""Full text on both databases: words, phrases, beginnings; whatever is typed is data, never an operator."""

import re
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

import queries
import store
from database import Database, WriteSession
from parameters import InsightFilter, InsightQuery, Words, parse_words
from schemas import Analysis, ConversationIn
from store import Completed, Submission

FIRST = datetime(2026, 3, 1, 12, tzinfo=UTC)
TEXTS = [
    "Still waiting on my order, third week now",
    "My ORDER was waiting at the depot <b>unopened</b> & wet",
    "Réfund my réfunds: where is it?",
    "don't charge me twice; AND NOT OR NEAR(me) *",
    "no order at all, only \ue000marks\ue001",
    "Ünïcödé parcel number 4711",
]


@pytest.fixture
async def filled(database: Database) -> Database:
    """TEXTS, one a minute, the last the newest; odd ones are negative."""
    await database.write(fill)
    return database


def fill(session: WriteSession) -> None:
    conversations = [
        ConversationIn(text=text, author=f"author {number % 2}", timestamp=FIRST + timedelta(minutes=number))
        for number, text in enumerate(TEXTS)
    ]
    store.accept(session, submissions=[Submission(conversations)], now=FIRST)
    claims = store.claim_batch(session, limit=100, now=FIRST, lease=timedelta(minutes=1))
    outcomes = [Completed(claim, analysis(TEXTS.index(claim.text)), "grok-4.3") for claim in claims]
    assert store.save_outcomes(session, outcomes, now=FIRST) == []


def analysis(number: int) -> Analysis:
    score, topics = (-0.5, ("delivery_problems",)) if number % 2 else (0.0, ("other",))
    return Analysis(sentiment_score=score, clusters=topics, confidence=0.9, reasoning="reasons", summary="summary")


async def found(database: Database, q: str, **wanted: object) -> list[int]:
    """The places in TEXTS of what is found; the count says the same."""
    query = InsightQuery.model_validate({"q": q, **wanted})
    page = await database.read(partial(queries.find_insights, query=query))
    if "limit" not in wanted:
        assert page["metadata"]["total_count"] == len(page["insights"])
    return [TEXTS.index(insight["text"]) for insight in page["insights"]]


@pytest.mark.parametrize(
    ("q", "places"),
    [
        pytest.param("order", [4, 1, 0], id="a word, newest first"),
        pytest.param("waiting order", [1, 0], id="all words"),
        pytest.param('"my order"', [1, 0], id="words in a row"),
        pytest.param('"order my"', [], id="not in another order"),
        pytest.param("wait*", [1, 0], id="a beginning"),
        pytest.param('"third week" order', [0], id="a phrase and a word"),
        pytest.param("4711", [5], id="a number"),
        pytest.param("AND", [3], id="an operator is a word"),
        pytest.param("near*", [3], id="another"),
        pytest.param("don't", [3], id="an apostrophe"),
        pytest.param("order NOT waiting", [], id="no exclusion"),
        pytest.param("text:order", [], id="no column"),
        pytest.param("order) OR (charge", [], id="no grouping"),
        pytest.param('order "', [4, 1, 0], id="half a phrase"),
        pytest.param("order; DROP TABLE insights", [], id="no statement"),
        pytest.param("order & charge | waiting !x <-> y", [], id="no operator of PostgreSQL"),
        pytest.param("^order", [4, 1, 0], id="no beginning of a column"),
        pytest.param("'order'", [4, 1, 0], id="quotes"),
        pytest.param("ord\\er*", [], id="a backslash"),
        pytest.param("%order%", [4, 1, 0], id="signs of LIKE"),
    ],
)
async def test_words_are_found_and_nothing_but_words(filled: Database, q: str, places: list[int]) -> None:
    assert await found(filled, q) == places


async def test_accents_do_not_matter_on_sqlite(filled: Database) -> None:
    expected = [2] if filled.dialect == "sqlite" else []
    assert await found(filled, "refunds") == expected


async def test_words_go_together_with_every_filter(filled: Database) -> None:
    assert await found(filled, "order", sentiment="negative") == [1]
    assert await found(filled, "order", topic=["other"]) == [4, 0]
    assert await found(filled, "order", author="author 0", start_time=FIRST + timedelta(minutes=1)) == [4]
    assert await found(filled, "order", min_confidence=0.95) == []


async def test_what_is_found_can_be_paged(filled: Database) -> None:
    first = await filled.read(partial(queries.find_insights, query=InsightQuery(q="order", limit=2, cursor=None)))
    cursor = first["metadata"]["next_cursor"]

    assert first["metadata"]["total_count"] == 3
    assert await found(filled, "order", limit=2, cursor=cursor) == [0]


async def test_a_snippet_shows_the_words_and_is_safe_as_html(filled: Database) -> None:
    page = await filled.read(partial(queries.find_insights, query=InsightQuery(q="order", cursor=None)))

    snippets = [insight.get("snippet", "") for insight in page["insights"]]
    shown = "&lt;b&gt;unopened&lt;/b&gt;" if filled.dialect == "sqlite" else " unopened "  # PostgreSQL drops tags
    assert snippets[1] == f"My <mark>ORDER</mark> was waiting at the depot {shown} &amp; wet"
    assert all(re.fullmatch(r"(</?mark>|[^<>])*", snippet) for snippet in snippets)


async def test_without_words_there_is_no_snippet(filled: Database) -> None:
    page = await filled.read(partial(queries.find_insights, query=InsightQuery(cursor=None)))

    assert len(page["insights"]) == len(TEXTS)
    assert not any("snippet" in insight for insight in page["insights"])


async def test_what_is_erased_is_not_found(filled: Database) -> None:
    page = await filled.read(partial(queries.find_insights, query=InsightQuery(q="order", cursor=None)))
    ids = [insight["conversation_id"] for insight in page["insights"]]

    await filled.write(partial(store.erase_conversations, conversation_ids=ids[:2]))

    assert await found(filled, "order") == [0]
    assert await filled.read(partial(queries.count_matches, wanted=InsightFilter(q="depot"))) == 0


@pytest.mark.unit
@pytest.mark.parametrize(
    ("query", "words"),
    [
        pytest.param("late parcel", (Words("late"), Words("parcel")), id="words"),
        pytest.param('"my order" refund*', (Words("my order"), Words("refund", prefix=True)), id="phrase, beginning"),
        pytest.param("😡 -- *", (), id="nothing to look for"),
        pytest.param('""', (), id="an empty phrase"),
        pytest.param('a"b c"d', (Words("a"), Words("b c"), Words("d")), id="quotes within"),
    ],
)
def test_what_is_typed_is_read_as_words(query: str, words: tuple[Words, ...]) -> None:
    assert parse_words(query) == words
