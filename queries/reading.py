"""What clients and the worker ask of conversations, of the queue, and of what the model said before."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import ColumnElement, Row, TextClause, func, select
from sqlalchemy import text as sql

from answers import Conversation as ConversationAnswer
from answers import ConversationPage, Correction
from database import ReadSession
from errors import NotFound
from models import CachedAnalysis, Conversation, CorrectionRow, InsightRow
from parameters import ConversationQuery
from queries.columns import unindexed
from queries.insights import ANALYSIS_COLUMNS, to_analysis
from schemas import Analysis, Sentiment, Status

_OPEN = {Status.PENDING, Status.PROCESSING}
_FEW = 10_000  # open conversations that are looked through in some 10 ms
_CONVERSATION_COLUMNS = (
    Conversation.id,
    Conversation.status,
    Conversation.text,
    Conversation.author,
    Conversation.timestamp,
    Conversation.raw_data,
    Conversation.external_id,
    Conversation.created_at,
    Conversation.attempts,
    Conversation.error,
    Conversation.error_code,
    Conversation.skip_reason,
)


def get_conversation(session: ReadSession, conversation_id: str) -> ConversationAnswer:
    """Raises: NotFound."""
    row = session.execute(select(*_CONVERSATION_COLUMNS).where(Conversation.id == conversation_id)).one_or_none()
    if row is None:
        raise NotFound("There is no conversation with this id.")
    answer = _to_conversation(row)
    insight = session.execute(
        select(*ANALYSIS_COLUMNS).where(InsightRow.conversation_id == conversation_id)
    ).one_or_none()
    answer["insight"] = None if insight is None else to_analysis(insight)
    if insight is not None and insight.corrected_at is not None:
        answer["correction"] = get_correction(session, conversation_id)
    return answer


def get_correction(session: ReadSession, conversation_id: str) -> Correction:
    """Raises: NotFound."""
    statement = select(CorrectionRow).where(CorrectionRow.conversation_id == conversation_id)
    row = session.execute(statement).mappings().one_or_none()
    if row is None:
        raise NotFound("There is no correction of a conversation with this id.")
    return {
        "conversation_id": row["conversation_id"],
        "sentiment": row["sentiment"],
        "topics": row["topics"],
        "note": row["note"],
        "corrected_at": row["corrected_at"],
        "original": {
            "sentiment_score": row["model_score"],
            "sentiment": Sentiment.of_score(row["model_score"]),
            "clusters": row["model_clusters"],
            "confidence": row["model_confidence"],
        },
    }


def list_conversations(session: ReadSession, query: ConversationQuery) -> ConversationPage:
    """Newest first; ids are time-ordered, so the id is the cursor.

    Of few open ones all are looked at; of many some are among the newest, where a walk finds them.
    """
    few = query.status in _OPEN and not is_deeper_than(session, conversations=_FEW)
    order = unindexed(Conversation.__table__.c.id, session.dialect.name) if few else Conversation.id
    statement = select(*_CONVERSATION_COLUMNS).order_by(order.desc()).limit(query.limit + 1)
    if query.status is not None:
        statement = statement.where(*_with_status(query.status))
    if query.cursor is not None:
        statement = statement.where(Conversation.id < query.cursor)
    rows = [_to_conversation(row) for row in session.execute(statement)]
    page = rows[: query.limit]
    next_cursor = page[-1]["conversation_id"] if len(rows) > query.limit else None
    return {"conversations": page, "metadata": {"returned_count": len(page), "next_cursor": next_cursor}}


def queue_depth(session: ReadSession) -> int:
    """Conversations that wait or are being analyzed."""
    return session.scalar(select(func.count()).select_from(Conversation).where(Conversation.due_at.is_not(None))) or 0


def is_deeper_than(session: ReadSession, *, conversations: int) -> bool:
    """Whether more than so many wait or are being analyzed; looks at no more than it must."""
    waiting = select(Conversation.id).where(Conversation.due_at.is_not(None)).limit(conversations + 1).subquery()
    return (session.scalar(select(func.count()).select_from(waiting)) or 0) > conversations


@dataclass(frozen=True, slots=True)
class KnownAnalysis:
    """What a model said of a text, and when."""

    analysis: Analysis
    model: str
    said_at: datetime


def known_analyses(session: ReadSession, *, keys: Sequence[bytes], since: datetime) -> dict[bytes, KnownAnalysis]:
    """What has been said since then of the texts with these keys."""
    columns = (CachedAnalysis.key, CachedAnalysis.analysis, CachedAnalysis.model, CachedAnalysis.created_at)
    known = select(*columns).where(CachedAnalysis.key.in_(keys), CachedAnalysis.created_at >= since)
    rows = session.execute(known)
    return {
        bytes(row.key): KnownAnalysis(analysis, row.model, row.created_at)
        for row in rows
        if (analysis := _read_cached(row.analysis)) is not None
    }


def _read_cached(value: object) -> Analysis | None:
    """None for what an older version kept and this one cannot read: the text is asked again."""
    try:
        return Analysis.model_validate(value, strict=False)
    except ValidationError:
        return None


def oldest_due(session: ReadSession, *, now: datetime) -> datetime | None:
    """Since when the longest waiting conversation has been due; None when nothing waits."""
    return session.scalar(select(func.min(Conversation.due_at)).where(Conversation.due_at <= now))


def _with_status(status: Status) -> list[ColumnElement[bool] | TextClause]:
    """The condition of an index must stand here literally: SQLite uses it only then."""
    wanted: list[ColumnElement[bool] | TextClause] = [Conversation.status == status]
    if status in _OPEN:
        wanted.append(Conversation.due_at.is_not(None))
    if status in {Status.FAILED, Status.SKIPPED}:
        wanted.append(sql("status IN ('failed', 'skipped')"))
    return wanted


def _to_conversation(row: Row[*tuple[Any, ...]]) -> ConversationAnswer:
    return {
        "conversation_id": row.id,
        "status": row.status,
        "text": row.text,
        "author": row.author,
        "timestamp": row.timestamp,
        "raw_data": row.raw_data,
        "external_id": row.external_id,
        "created_at": row.created_at,
        "attempts": row.attempts,
        "error": row.error,
        "error_code": row.error_code,
        "skip_reason": row.skip_reason,
    }
