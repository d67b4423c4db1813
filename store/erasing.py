"""Erase conversations with every trace they left: insight, topics, counters, words, correction, kept answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select, union
from sqlalchemy import text as sql

from database import WriteSession
from models import WORDS, CachedAnalysis, Conversation, CorrectionRow, InsightRow, ReanalysisRow
from store.accepting import first_id_of
from store.counting import change_counts
from store.insights import find_insights

# What clients write is a key of these. A page that is split leaves copies of keys in its unused room, which
# `secure_delete` does not know of. Pages of tables are split, too, when rows in their midst grow: VACUUM cleans those.
INDEXES_OF_NAMES = ("ix_insights_author", "uq_conversations_external_id")


@dataclass(frozen=True, slots=True)
class Erased:
    """How many rows went, by what they were."""

    conversations: int = 0
    insights: int = 0
    corrections: int = 0
    cached_analyses: int = 0

    def and_also(self, more: "Erased") -> "Erased":
        return Erased(
            self.conversations + more.conversations,
            self.insights + more.insights,
            self.corrections + more.corrections,
            self.cached_analyses + more.cached_analyses,
        )


def erase_conversations(session: WriteSession, conversation_ids: Sequence[str]) -> Erased:
    """Those that are there. One in a worker's hands goes too: the fence refuses what the worker then brings.

    The rows that refer to a conversation go with it (ON DELETE CASCADE), and the words of its text by trigger.
    """
    held = select(Conversation.id).where(Conversation.id.in_(conversation_ids)).order_by(Conversation.id)
    session.execute(held.with_for_update()).all()  # before its insight is looked for: a replica may just be saving one
    insights = find_insights(session, conversation_ids)
    change_counts(session, out=[insight.countable for insight in insights.values()])
    corrections = select(func.count()).where(CorrectionRow.conversation_id.in_(conversation_ids))
    cached = select(func.count()).where(CachedAnalysis.conversation_id.in_(conversation_ids))
    kept = session.scalar(corrections) or 0, session.scalar(cached) or 0
    gone = session.execute(delete(Conversation).where(Conversation.id.in_(conversation_ids))).rowcount
    if gone and session.dialect.name == "sqlite":
        _mark(session)
    return Erased(gone, len(insights), *kept)


def ids_of_author(session: WriteSession, author: str, *, limit: int) -> Sequence[str]:
    """Up to so many conversations of an author, found without a scan.

    The authors' index of insights has what was read; what waits and what was set aside is few rows with indexes.
    """
    waits, set_aside = Conversation.due_at.is_not(None), sql("status IN ('failed', 'skipped')")
    read = select(InsightRow.conversation_id.label("id")).where(InsightRow.author == author).limit(limit)
    others = [select(Conversation.id).where(Conversation.author == author, kind) for kind in (waits, set_aside)]
    parts = [part.limit(limit).subquery().select() for part in (read, *others)]
    return session.scalars(union(*parts).limit(limit)).all()


def ids_accepted_before(session: WriteSession, moment: datetime, *, limit: int) -> Sequence[str]:
    """Oldest first; ids begin with the time, so that no other index is needed."""
    statement = select(Conversation.id).where(Conversation.id < first_id_of(moment))
    return session.scalars(statement.order_by(Conversation.id).limit(limit)).all()


def forget_orders_of(session: WriteSession, author: str) -> None:
    """An order to read again remembers its filters, and with them whom it was about; there are few orders."""
    orders = session.execute(select(ReanalysisRow.id, ReanalysisRow.filters)).all()
    about = [number for number, filters in orders if filters.get("author") == author]
    session.execute(delete(ReanalysisRow).where(ReanalysisRow.id.in_(about)))


def _mark(session: WriteSession) -> None:
    """That the file is to be scrubbed is said in the file itself, so that a killed process forgets nothing."""
    mark = session.exec_driver_sql("PRAGMA user_version").scalar_one()
    session.exec_driver_sql(f"PRAGMA user_version = {mark % 1_000_000 + 1}").close()


def clear_mark(session: WriteSession, mark: int) -> None:
    """All of it is gone, unless more was erased meanwhile."""
    if session.exec_driver_sql("PRAGMA user_version").scalar_one() == mark:
        session.exec_driver_sql("PRAGMA user_version = 0").close()


def make_anew(session: WriteSession, *, index: str) -> None:
    session.exec_driver_sql(f"REINDEX {index}").close()


def merge_words(session: WriteSession, *, pages: int, anew: bool) -> bool:
    """Go on merging the parts of SQLite's full-text index, or begin; whether there is more to do.

    Source: https://www.sqlite.org/fts5.html#the_merge_command (changes below 2 say that nothing was left)
    """
    before = session.exec_driver_sql("SELECT total_changes()").scalar_one()
    session.exec_driver_sql(f"INSERT INTO {WORDS}({WORDS}, rank) VALUES ('merge', ?)", (-pages if anew else pages,))  # noqa: S608 - our own name
    return int(session.exec_driver_sql("SELECT total_changes()").scalar_one()) - int(before) >= 2
