"""Made insights are what the service itself would have written, and hold what the benchmark of queries looks for."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

import store
from benchmarks.made_history import END, NATURES, START, Made, make_insights
from benchmarks.made_insights import MODEL, check_database, made_database, make_database
from benchmarks.made_texts import counts_at, known_author, known_counts, known_phrase
from database import Database, WriteSession
from schemas import Analysis, ConversationIn
from store import Completed, Submission
from topics import load_topics

pytestmark = pytest.mark.integration

ROWS = 2_000
TABLES = ("conversations", "insights", "insight_topics", "insight_counts")
# Each writer's own: ids, moments of arrival, and words of the analysis that nothing is asked about.
OWN = {"id", "conversation_id", "insight_id", "created_at", "reasoning", "grok_analysis"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_database(tmp_path_factory.mktemp("made"), rows=ROWS)


def rows_of(path: Path, table: str, *columns: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as connection:
        return sorted(connection.execute(f"SELECT {', '.join(columns) or '*'} FROM {table}"), key=repr)


def shared_columns(path: Path, table: str) -> list[str]:
    return [str(row[1]) for row in rows_of(path, f"pragma_table_info('{table}')") if row[1] not in OWN]


def row_counts(path: Path) -> dict[str, int]:
    """Of every table, those behind a text index too; but how that splits its data depends on the size of a batch."""
    names = [str(row[1]) for row in rows_of(path, "sqlite_master") if row[0] == "table"]
    return {name: len(rows_of(path, name)) for name in names if not name.endswith(("_data", "_idx"))}


def as_the_service_would(session: WriteSession, insights: Sequence[Made]) -> None:
    """Accept, claim and complete them, as the service does."""
    for one in insights:
        conversation = ConversationIn(text=one.text, author=one.author, timestamp=one.timestamp)
        store.accept(session, submissions=[Submission([conversation])], now=one.timestamp)
    claims = store.claim_batch(session, limit=len(insights), now=END, lease=timedelta(minutes=1))
    by_text = {one.text: one for one in insights}
    outcomes = [Completed(claim, _analysis_of(by_text[claim.text]), MODEL) for claim in claims]
    store.save_outcomes(session, outcomes, now=END)


def _analysis_of(made: Made) -> Analysis:
    return Analysis(
        sentiment_score=made.score, clusters=made.topics, confidence=made.confidence, reasoning="", summary=""
    )


async def _write_through_the_service(path: Path, insights: Sequence[Made]) -> None:
    database = Database.connect(f"sqlite:///{path}")
    await database.open()
    await database.write(partial(as_the_service_would, insights=insights))
    await database.close()


def test_made_insights_are_what_the_service_would_have_written(tmp_path: Path) -> None:
    ours, services = tmp_path / "made.db", tmp_path / "service.db"

    asyncio.run(make_database(ours, rows=300))
    asyncio.run(_write_through_the_service(services, list(make_insights(0, 300, rows=300, seed=1))))

    assert row_counts(ours) == row_counts(services)
    for table in TABLES:
        columns = shared_columns(services, table)
        assert rows_of(ours, table, *columns) == rows_of(services, table, *columns)


def test_every_counter_is_what_the_insights_add_up_to(made: Path) -> None:
    check_database(made)

    assert len(rows_of(made, "insights")) == len(rows_of(made, "conversations")) == ROWS


def test_a_counter_that_is_wrong_is_found(tmp_path: Path, made: Path) -> None:
    spoilt = tmp_path / "spoilt.db"
    spoilt.write_bytes(made.read_bytes())
    with closing(sqlite3.connect(spoilt)) as connection, connection:
        connection.execute("UPDATE insight_counts SET neutral = neutral + 1 WHERE topic = 'praise' AND span = 'hour'")

    with pytest.raises(ValueError, match="the counters of day"):
        check_database(spoilt)


@pytest.mark.parametrize("count", known_counts(ROWS))
def test_known_words_and_authors_are_there_just_so_often(made: Path, count: int) -> None:
    rows = rows_of(made, "insights", "text", "author")

    assert sum(known_phrase(count) in str(row[0]) for row in rows) == count
    assert sum(row[1] == known_author(count) for row in rows) == count


@pytest.mark.parametrize(("rows", "counts"), [(2_000, 2), (50_000, 4), (1_000_000, 4), (1_050_000, 4), (1_234, 0)])
def test_what_is_known_never_falls_on_one_row_twice(rows: int, counts: int) -> None:
    assert len(known_counts(rows)) == counts
    assert all(len(counts_at(number, rows=rows)) <= 1 for number in range(0, rows, 7))


def test_insights_come_in_order_of_time_within_their_90_days() -> None:
    moments = [one.timestamp for one in make_insights(0, ROWS, rows=ROWS, seed=1)]

    assert moments == sorted(moments)
    assert START <= moments[0] < moments[-1] < END


def test_another_seed_makes_other_insights() -> None:
    first, again, other = (list(make_insights(0, 50, rows=ROWS, seed=seed)) for seed in (1, 1, 2))

    assert first == again != other


def test_made_topics_are_those_of_the_topics_file() -> None:
    assert set(NATURES) == {topic.id for topic in load_topics()}


def test_a_database_is_made_once(made: Path) -> None:
    written_at = made.stat().st_mtime_ns

    assert made_database(made.parent, rows=ROWS) == made
    assert made.stat().st_mtime_ns == written_at
