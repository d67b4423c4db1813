"""Give insights and corrections the new ids of topics that were renamed or merged, and take the counters along.

Kept answers (`analysis_cache`) need no renaming: their key holds the version of the prompt, and that follows the ids.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import select, update

from database import WriteSession
from models import CorrectionRow, InsightRow, InsightTopic
from store.insights import Change, change_insights, find_insights, lock_insights
from topics import FALLBACK


def rename_topics(session: WriteSession, *, names: Mapping[str, str], limit: int) -> int:
    """Put the new ids in the place of old ones (`names`: old to new), in up to `limit` insights.

    Returns how many were changed: 0 when no insight has an old id any more, or all that have are in a replica's hands.
    """
    _rename_in_corrections(session, names)
    # a CTE, as in `claim_batch`: with a subquery the limit may hold nothing on PostgreSQL
    named = select(InsightTopic.insight_id).where(InsightTopic.topic.in_(names)).limit(limit).cte("named")
    found = lock_insights(session, InsightRow.id.in_(select(named.c.insight_id)), skip_locked=True)
    renamed = [(one, renamed_topics(one.clusters, names)) for one in found]
    changes = [Change(one, {"clusters": topics}) for one, topics in renamed if topics != list(one.clusters)]
    change_insights(session, changes)
    return len(changes)


def renamed_topics(topics: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """Each topic once, in its place; `other` stands alone, so one that was merged into it may leave nothing behind."""
    renamed = list(dict.fromkeys(names.get(topic, topic) for topic in topics))
    return [topic for topic in renamed if topic != FALLBACK] or renamed


def _rename_in_corrections(session: WriteSession, names: Mapping[str, str]) -> None:
    """What people wrote is little: all of it is looked through, and what has old names is locked and read again."""
    columns = (CorrectionRow.conversation_id, CorrectionRow.topics, CorrectionRow.model_clusters)
    old = [row[0] for row in session.execute(select(*columns)) if {*(row[1] or ()), *row[2]} & names.keys()]
    if not old:
        return
    find_insights(session, old)
    again = select(*columns).where(CorrectionRow.conversation_id.in_(old))
    for conversation_id, topics, said in session.execute(again).all():
        now = {"topics": topics and renamed_topics(topics, names), "model_clusters": renamed_topics(said, names)}
        if now != {"topics": topics, "model_clusters": said}:
            where = CorrectionRow.conversation_id == conversation_id
            session.execute(update(CorrectionRow).where(where).values(**now))
