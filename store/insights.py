"""Insights with their topics and counters: added and changed together, by nobody else."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, bindparam, delete, insert, select, update
from sqlalchemy import text as sql

from database import WriteSession
from models import WORDS, InsightRow, InsightTopic
from schemas import Sentiment
from store.counting import Countable, change_counts, count_in

_ADD_WORDS = sql(
    f"INSERT INTO {WORDS}(rowid, text) SELECT id, text FROM insights WHERE id IN :ids"  # noqa: S608 - our own name
).bindparams(bindparam("ids", expanding=True))


@dataclass(frozen=True, slots=True)
class StoredInsight:
    """What of an insight is counted, and where it is."""

    insight_id: int
    conversation_id: str
    timestamp: datetime
    score: float
    confidence: float
    clusters: tuple[str, ...]

    @property
    def countable(self) -> Countable:
        return Countable.of(
            timestamp=self.timestamp, score=self.score, confidence=self.confidence, topics=self.clusters
        )


@dataclass(frozen=True, slots=True)
class Change:
    """An insight as it is, and the columns that are to be otherwise; score and confidence are rounded as kept."""

    stored: StoredInsight
    values: Mapping[str, Any]


def judged(*, score: float, confidence: float, clusters: Iterable[str]) -> dict[str, Any]:
    """The columns that say what a conversation is about, rounded so that their sums never drift."""
    kept = round(score, 4)
    return {
        "sentiment": Sentiment.of_score(kept),
        "sentiment_score": kept,
        "clusters": list(clusters),
        "confidence": round(confidence, 2),
    }


def add_insights(session: WriteSession, rows: Sequence[dict[str, Any]]) -> None:
    """Their ids are looked up afterwards: with RETURNING in order SQLAlchemy inserts one row at a time."""
    session.execute(insert(InsightRow), rows)
    conversations = [row["conversation_id"] for row in rows]
    known = select(InsightRow.conversation_id, InsightRow.id).where(InsightRow.conversation_id.in_(conversations))
    ids = {str(row[0]): int(row[1]) for row in session.execute(known)}
    stored = [_stored(ids[row["conversation_id"]], row) for row in rows]
    if session.dialect.name == "sqlite":
        session.execute(_ADD_WORDS, {"ids": list(ids.values())})
    _add_topics(session, stored)
    count_in(session, [one.countable for one in stored])


def find_insights(session: WriteSession, conversation_ids: Iterable[str]) -> dict[str, StoredInsight]:
    """By conversation, locked until the commit."""
    found = lock_insights(session, InsightRow.conversation_id.in_(conversation_ids))
    return {insight.conversation_id: insight for insight in found}


def lock_insights(
    session: WriteSession, wanted: ColumnElement[bool], *, skip_locked: bool = False
) -> list[StoredInsight]:
    """Locked until the commit, for who counts insights out must be the only one; in one order, never crosswise."""
    columns = (
        InsightRow.id,
        InsightRow.conversation_id,
        InsightRow.timestamp,
        InsightRow.sentiment_score,
        InsightRow.confidence,
        InsightRow.clusters,
    )
    statement = select(*columns).where(wanted).order_by(InsightRow.id).with_for_update(skip_locked=skip_locked)
    return [_stored(row["id"], row) for row in session.execute(statement).mappings()]


def change_insights(session: WriteSession, changes: Sequence[Change]) -> None:
    """In place: the insight keeps its id, its time and its text."""
    if not changes:
        return
    ids = [change.stored.insight_id for change in changes]
    session.execute(delete(InsightTopic).where(InsightTopic.insight_id.in_(ids)))
    for change in changes:
        session.execute(update(InsightRow).where(InsightRow.id == change.stored.insight_id).values(**change.values))
    changed = [_changed(change) for change in changes]
    _add_topics(session, changed)
    before, after = ([one.countable for one in some] for some in ([change.stored for change in changes], changed))
    change_counts(session, out=before, into=after)


def _add_topics(session: WriteSession, insights: Iterable[StoredInsight]) -> None:
    rows = [
        {
            "topic": topic,
            "timestamp": insight.timestamp,
            "insight_id": insight.insight_id,
            "sentiment": Sentiment.of_score(insight.score),
            "confidence": insight.confidence,
        }
        for insight in insights
        for topic in dict.fromkeys(insight.clusters)
    ]
    session.execute(insert(InsightTopic), rows)


def _stored(insight_id: int, row: Mapping[Any, Any]) -> StoredInsight:
    return StoredInsight(
        insight_id,
        row["conversation_id"],
        row["timestamp"],
        row["sentiment_score"],
        row["confidence"],
        tuple(row["clusters"]),
    )


def _changed(change: Change) -> StoredInsight:
    stored = change.stored
    return _stored(
        stored.insight_id,
        {
            "conversation_id": stored.conversation_id,
            "timestamp": stored.timestamp,
            "sentiment_score": stored.score,
            "confidence": stored.confidence,
            "clusters": stored.clusters,
            **change.values,
        },
    )
