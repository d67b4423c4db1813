"""Makes a database with as many insights as asked for, over 90 days, just as the service would have written it.

By the service's own migrations, writer and counting; only the rows go in many at a time. What it makes depends on the
number of rows and the seed alone.
"""

import asyncio
import hashlib
import random
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from functools import partial
from itertools import chain, combinations
from operator import add
from pathlib import Path
from time import perf_counter
from typing import Annotated

import orjson
import typer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.made_history import DAYS, OUTAGE_DAYS, START, Made, make_insights
from database import Database, WriteSession
from models import EPOCH, WORDS
from schemas import Sentiment
from store.counting import Countable, count_in, day_of

MODEL = "made-up"
BATCH_ROWS = 20_000  # a commit each; two days of a million, so that counters are added up well before they are written
_PROGRESS_ROWS = 200_000
_SAMPLE_DAYS = (0, OUTAGE_DAYS[0], DAYS - 1)
_MICROSECOND = timedelta(microseconds=1)
_HOUR_US, _DAY_US = 3_600_000_000, 86_400_000_000
_ANALYSIS_US = 2_000_000  # from accepted to completed

Row = tuple[object, ...]

_CONVERSATION_COLUMNS = ("id", "text", "author", "timestamp", "status", "created_at", "lease_epoch")
_INSIGHT_COLUMNS = (
    *("id", "conversation_id", "timestamp", "text", "author", "sentiment", "sentiment_score", "clusters"),
    *("confidence", "reasoning", "grok_analysis", "model", "created_at"),
)
_TOPIC_COLUMNS = ("topic", "timestamp", "insight_id", "sentiment", "confidence")


def write_insights(session: WriteSession, made: Sequence[Made], *, seed: int) -> None:
    """Accepted, claimed once, and completed: what `store` leaves of each, but many rows to a statement."""
    dice = random.Random(f"ids/{seed}/{made[0].number}")
    rows = [_rows(one, dice) for one in made]
    _insert(session, "conversations", _CONVERSATION_COLUMNS, [conversation for conversation, _, _ in rows])
    _insert(session, "insights", _INSIGHT_COLUMNS, [insight for _, insight, _ in rows])
    ids = (made[0].number + 1, made[-1].number + 1)
    session.exec_driver_sql(
        f"INSERT INTO {WORDS}(rowid, text) SELECT id, text FROM insights WHERE id BETWEEN ? AND ?", ids
    )
    _insert(session, "insight_topics", _TOPIC_COLUMNS, list(chain.from_iterable(topics for _, _, topics in rows)))
    count_in(session, map(_countable, made))


def _insert(session: WriteSession, table: str, columns: Sequence[str], rows: list[Row]) -> None:
    session.exec_driver_sql(
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})", rows
    )


def _rows(made: Made, dice: random.Random) -> tuple[Row, Row, list[Row]]:
    """The conversation, the insight, and its topics; ids as the service gives them, in order of arrival."""
    timestamp = (made.timestamp - EPOCH) // _MICROSECOND
    accepted_at = timestamp + dice.randrange(400_000, 900_000)
    conversation_id = f"conv_{accepted_at // 1000:012x}{dice.getrandbits(80):020x}"
    sentiment, insight_id = str(Sentiment.of_score(made.score)), made.number + 1
    summary = f"{made.text[:60]}: about {made.topics[0]}"
    analysis = orjson.dumps({"summary": summary, "language": "en", "injection_suspected": False}).decode()
    reasoning = f"The customer writes of {', '.join(made.topics)}; the words are mostly {sentiment}."
    clusters = orjson.dumps(made.topics).decode()
    return (
        (conversation_id, made.text, made.author, timestamp, "completed", accepted_at, 1),
        (
            *(insight_id, conversation_id, timestamp, made.text, made.author, sentiment, made.score, clusters),
            *(made.confidence, reasoning, analysis, MODEL, accepted_at + _ANALYSIS_US),
        ),
        [(topic, timestamp, insight_id, sentiment, made.confidence) for topic in made.topics],
    )


def _countable(made: Made) -> Countable:
    return Countable.of(timestamp=made.timestamp, score=made.score, confidence=made.confidence, topics=made.topics)


async def make_database(path: Path, *, rows: int, seed: int = 1) -> None:
    """Fill a new file. One batch is written, on the writer's thread, while the next is being made."""
    database = Database.connect(f"sqlite:///{path}")
    started_at = perf_counter()
    await database.open()
    try:
        written: asyncio.Task[None] | None = None
        for first in range(0, rows, BATCH_ROWS):
            made = list(make_insights(first, min(first + BATCH_ROWS, rows), rows=rows, seed=seed))
            if written is not None:
                await written
            written = asyncio.create_task(database.write(partial(write_insights, made=made, seed=seed)))
            await asyncio.sleep(0)  # hands it over
            if first and first % _PROGRESS_ROWS == 0:
                print(f"  {first:,} of {rows:,} insights made, {perf_counter() - started_at:.0f} s", flush=True)
        if written is not None:
            await written
    finally:
        await database.close()


def made_database(folder: Path, *, rows: int, seed: int = 1) -> Path:
    """The database of so many insights in `folder`: the one that is there, else a new one, checked.

    One that older code made is removed.
    """
    path = folder / f"made-{rows}-{seed}-{_fingerprint()}.db"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(f"made-{rows}-{seed}-*"):
        stale.unlink()
    started_at = perf_counter()
    unfinished = path.with_suffix(".part")
    asyncio.run(make_database(unfinished, rows=rows, seed=seed))
    check_database(unfinished, days=_SAMPLE_DAYS)
    unfinished.rename(path)
    print(f"  {rows:,} insights made and checked in {perf_counter() - started_at:.0f} s: {path}", flush=True)
    return path


def _fingerprint() -> str:
    """Of all that decides what is made: another migration, or another way to count, needs another file."""
    here = Path(__file__).parent
    parts = [*here.glob("made_*.py"), *here.parent.glob("migrations/versions/*.py"), here.parent / "store/counting.py"]
    return hashlib.sha256(b"".join(part.read_bytes() for part in sorted(parts))).hexdigest()[:10]


# Checked against a recount

Key = tuple[str, str, int, int]
Sums = tuple[int, ...]  # insights of each side, and what scores and confidences add up to
_NOTHING: Sums = (0, 0, 0, 0, 0)


def check_database(path: Path, *, days: Sequence[int] = range(DAYS)) -> None:
    """Count the insights of these days one by one and compare with the counters; look at every foreign key.

    For a file that nobody has open. Raises: ValueError, when anything differs.
    """
    with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as connection:
        if broken := connection.execute("PRAGMA foreign_key_check").fetchall():
            raise ValueError(f"{len(broken)} rows of the made database point to nothing")
        for day in days:
            if _recount(connection, day_of(START) + day) != _counters(connection, day_of(START) + day):
                raise ValueError(f"the counters of day {day} are not what its insights add up to")


def _recount(connection: sqlite3.Connection, day: int) -> dict[Key, Sums]:
    """Of one day since 1970, one insight and one key at a time."""
    columns = "timestamp, sentiment, sentiment_score, confidence, clusters"
    within = "timestamp >= ? AND timestamp < ?"
    found = connection.execute(f"SELECT {columns} FROM insights WHERE {within}", (day * _DAY_US, (day + 1) * _DAY_US))
    sums: dict[Key, Sums] = {}
    for timestamp, sentiment, score, confidence, clusters in found:
        hour, hundredths = timestamp // _HOUR_US, round(confidence * 100)
        sides = [int(sentiment == side) for side in ("positive", "neutral", "negative")]
        for key in _keys(orjson.loads(clusters), confidence=hundredths, hour=hour):
            sums[key] = tuple(map(add, sums.get(key, _NOTHING), (*sides, round(score * 10_000), hundredths)))
    return sums


def _keys(topics: list[str], *, confidence: int, hour: int) -> list[Key]:
    """As `models.InsightCount` describes them."""
    single = ["*", *topics]
    sets = ["+".join(together) for size in (2, 3) for together in combinations(sorted(topics), size)]
    by_hour: list[Key] = [("hour", topic, -1, hour) for topic in single]
    return by_hour + [
        ("day", topic, each, hour // 24) for topic in single + sets for each in (-1, -2 - confidence // 10, confidence)
    ]


def _counters(connection: sqlite3.Connection, day: int) -> dict[Key, Sums]:
    rows = connection.execute(
        "SELECT span, topic, confidence, period, positive, neutral, negative, score_sum, confidence_sum"
        " FROM insight_counts"
        " WHERE (span = 'day' AND period = ?) OR (span = 'hour' AND period >= ? AND period < ?)",
        (day, day * 24, day * 24 + 24),
    )
    return {(row[0], row[1], row[2], row[3]): row[4:] for row in rows}


def main(
    folder: Annotated[Path, typer.Argument(help="Where the database is kept; a second run finds it there.")],
    *,
    rows: Annotated[int, typer.Option(min=1, help="Insights in all.")] = 1_000_000,
    seed: Annotated[int, typer.Option(help="Another seed, other insights.")] = 1,
) -> None:
    """Make a database of insights, and print where it is."""
    print(made_database(folder, rows=rows, seed=seed))


if __name__ == "__main__":
    typer.run(main)
