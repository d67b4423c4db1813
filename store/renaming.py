"""Give insights the new ids of topics that were renamed or merged, and take the counters along.

Kept answers (`analysis_cache`) need no renaming: their key holds the version of the prompt, and that follows the ids.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Row, bindparam, delete, insert, select, update

from database import WriteSession
from models import InsightRow, InsightTopic
from store.counting import Countable, count_in, count_out
from topics import FALLBACK

_COLUMNS = (
    InsightRow.id,
    InsightRow.timestamp,
    InsightRow.sentiment,
    InsightRow.sentiment_score,
    InsightRow.confidence,
    InsightRow.clusters,
)


def rename_topics(session: WriteSession, *, names: Mapping[str, str], limit: int) -> int:
    """Put the new ids in the place of old ones (`names`: old to new), in up to `limit` insights.

    Returns how many were changed: 0 when no insight has an old id any more, or all that have are in a replica's hands.
    """
    # a CTE, as in `claim_batch`: with a subquery the limit may hold nothing on PostgreSQL
    named = select(InsightTopic.insight_id).where(InsightTopic.topic.in_(names)).limit(limit).cte("named")
    statement = select(*_COLUMNS).where(InsightRow.id.in_(select(named.c.insight_id)))
    rows = session.execute(statement.with_for_update(skip_locked=True)).all()
    renamed = {row.id: topics for row in rows if (topics := renamed_topics(row.clusters, names)) != row.clusters}
    rows = [row for row in rows if row.id in renamed]
    if rows:
        count_out(session, [_countable(row, row.clusters) for row in rows])
        _rewrite(session, rows, renamed)
        count_in(session, [_countable(row, renamed[row.id]) for row in rows])
    return len(rows)


def renamed_topics(topics: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """Each topic once, in its place; `other` stands alone, so one that was merged into it may leave nothing behind."""
    renamed = list(dict.fromkeys(names.get(topic, topic) for topic in topics))
    return [topic for topic in renamed if topic != FALLBACK] or renamed


def _rewrite(session: WriteSession, rows: Sequence[Row[*tuple[Any, ...]]], renamed: Mapping[int, list[str]]) -> None:
    change = update(InsightRow).where(InsightRow.id == bindparam("row_id")).values(clusters=bindparam("topics"))
    session.execute(change, [{"row_id": row.id, "topics": renamed[row.id]} for row in rows])
    session.execute(delete(InsightTopic).where(InsightTopic.insight_id.in_(renamed)))
    session.execute(insert(InsightTopic), list(_topic_rows(rows, renamed)))


def _topic_rows(rows: Sequence[Row[*tuple[Any, ...]]], renamed: Mapping[int, list[str]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        copied = {"timestamp": row.timestamp, "sentiment": row.sentiment, "confidence": row.confidence}
        yield from ({"topic": topic, "insight_id": row.id, **copied} for topic in renamed[row.id])


def _countable(row: Row[*tuple[Any, ...]], topics: Sequence[str]) -> Countable:
    return Countable.of(timestamp=row.timestamp, score=row.sentiment_score, confidence=row.confidence, topics=topics)
