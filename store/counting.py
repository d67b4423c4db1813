"""The counters behind every total: kept in the transaction that writes the insight, so that no read has to scan.

Each insight is counted by hour, under `*` and each of its topics; by day, also under every two and three of them, and
each of these with its confidence, with the tenth that it lies in, and without. A batch is added up before it is
written: insights of one hour share rows.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import combinations

from database import WriteSession
from models import ALL_TOPICS, ANY_CONFIDENCE, CONFIDENCE_UNITS, EPOCH, SCORE_UNITS, InsightCount, tenth_key
from schemas import MOST_TOPICS, Sentiment

_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
_TABLE = InsightCount.__tablename__
_KEY = ("span", "topic", "confidence", "period")
_SIDES = tuple(map(str, Sentiment))
_SUMS = (*_SIDES, "score_sum", "confidence_sum")
_COLUMNS = (*_KEY, *_SUMS)
_NOTHING = (0,) * len(_SUMS)

Key = tuple[str, str, int, int]


@dataclass(frozen=True, slots=True)
class Countable:
    """What of an insight is counted: score in ten-thousandths, confidence in hundredths, topics sorted, each once."""

    timestamp: datetime
    sentiment: Sentiment
    score: int
    confidence: int
    topics: tuple[str, ...]

    @classmethod
    def of(cls, *, timestamp: datetime, score: float, confidence: float, topics: Sequence[str]) -> "Countable":
        return cls(
            timestamp,
            Sentiment.of_score(score),
            round(score * SCORE_UNITS),
            round(confidence * CONFIDENCE_UNITS),
            tuple(sorted(set(topics))),
        )


def count_in(session: WriteSession, insights: Iterable[Countable]) -> None:
    if sums := _add_up(insights):
        more = ", ".join(f"{name} = {_TABLE}.{name} + excluded.{name}" for name in _SUMS)
        _insert_or_update(session, more, [(*key, *row) for key, row in sums])


def change_counts(session: WriteSession, *, out: Iterable[Countable] = (), into: Iterable[Countable] = ()) -> None:
    """For insights that are erased (`out`), or replaced by others; call it in the transaction that does so.

    One pass in one order over all that changes: replicas that recount the same days lock nothing crosswise.
    """
    sums: dict[Key, list[int]] = {}
    for sign, insights in ((-1, out), (1, into)):
        for key, row in _add_up(insights):
            sums[key] = [old + sign * more for old, more in zip(sums.get(key, _NOTHING), row, strict=True)]
    changed = sorted((key, row) for key, row in sums.items() if any(row))
    if not changed:
        return
    # a counter may not come in below zero, so it is made first, as nothing
    _insert_or_update(session, f"score_sum = {_TABLE}.score_sum", [(*key, *_NOTHING) for key, _ in changed])
    mark = _mark(session)
    more = ", ".join(f"{name} = {name} + {mark}" for name in _SUMS)
    session.exec_driver_sql(
        f"UPDATE {_TABLE} SET {more} WHERE {' AND '.join(f'{name} = {mark}' for name in _KEY)}",  # noqa: S608 - our own names alone
        [(*row, *key) for key, row in changed],
    )


def _insert_or_update(session: WriteSession, update: str, rows: Sequence[tuple[str | int, ...]]) -> None:
    marks = ", ".join([_mark(session)] * len(_COLUMNS))
    session.exec_driver_sql(
        f"INSERT INTO {_TABLE} ({', '.join(_COLUMNS)}) VALUES ({marks})"  # noqa: S608 - our own names alone
        f" ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET {update}",
        rows,
    )


def hour_of(moment: datetime) -> int:
    """Whole hours since 1970, rounded down."""
    return (moment - EPOCH) // _HOUR


def day_of(moment: datetime) -> int:
    return (moment - EPOCH) // _DAY


def _add_up(insights: Iterable[Countable]) -> list[tuple[Key, list[int]]]:
    """Every counter that these insights touch, and what to add; in one order: replicas lock nothing crosswise."""
    sums: dict[Key, list[int]] = {}
    for insight in insights:
        side = _SIDES.index(insight.sentiment)
        for key in _keys(insight):
            if (row := sums.get(key)) is None:
                row = sums[key] = list(_NOTHING)
            row[side] += 1
            row[-2] += insight.score
            row[-1] += insight.confidence
    return sorted(sums.items())


def _keys(insight: Countable) -> Iterator[Key]:
    hour, day = hour_of(insight.timestamp), day_of(insight.timestamp)
    topics = [ALL_TOPICS, *insight.topics]
    for topic in topics:
        yield "hour", topic, ANY_CONFIDENCE, hour
    topics += [
        "+".join(together) for size in range(2, MOST_TOPICS + 1) for together in combinations(insight.topics, size)
    ]
    for topic in topics:
        yield "day", topic, ANY_CONFIDENCE, day
        yield "day", topic, tenth_key(insight.confidence), day
        yield "day", topic, insight.confidence, day


def _mark(session: WriteSession) -> str:
    """How the driver writes a parameter: these rows go past SQLAlchemy, whose share of the cost is four fifths."""
    return "%s" if session.dialect.name == "postgresql" else "?"
