"""What clients and the worker ask: insights, conversations, the queue, what the model said before."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import ColumnElement, Row, TextClause, and_, func, or_, select
from sqlalchemy import text as sql

from answers import Conversation as ConversationAnswer
from answers import ConversationPage, GrokAnalysis, Insight, InsightPage
from database import ReadSession
from errors import NotFound
from models import CachedAnalysis, Conversation, InsightRow, InsightTopic
from queries.counting import count_insights
from schemas import Analysis, ConversationQuery, InsightQuery, Position, Status

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
_ANALYSIS_COLUMNS = (
    InsightRow.sentiment_score,
    InsightRow.sentiment,
    InsightRow.clusters,
    InsightRow.confidence,
    InsightRow.reasoning,
    InsightRow.grok_analysis,
    InsightRow.model,
)
_INSIGHT_COLUMNS = (
    InsightRow.id,
    InsightRow.conversation_id,
    InsightRow.timestamp,
    InsightRow.text,
    InsightRow.author,
    *_ANALYSIS_COLUMNS,
)


def get_conversation(session: ReadSession, conversation_id: str) -> ConversationAnswer:
    """Raises: NotFound."""
    row = session.execute(select(*_CONVERSATION_COLUMNS).where(Conversation.id == conversation_id)).one_or_none()
    if row is None:
        raise NotFound("There is no conversation with this id.")
    answer = _to_conversation(row)
    insight = session.execute(
        select(*_ANALYSIS_COLUMNS).where(InsightRow.conversation_id == conversation_id)
    ).one_or_none()
    answer["insight"] = None if insight is None else _to_analysis(insight)
    return answer


def list_conversations(session: ReadSession, query: ConversationQuery) -> ConversationPage:
    """Newest first; ids are time-ordered, so the id is the cursor."""
    statement = select(*_CONVERSATION_COLUMNS).order_by(Conversation.id.desc()).limit(query.limit + 1)
    if query.status is not None:
        statement = statement.where(*_with_status(query.status))
    if query.cursor is not None:
        statement = statement.where(Conversation.id < query.cursor)
    rows = [_to_conversation(row) for row in session.execute(statement)]
    page = rows[: query.limit]
    next_cursor = page[-1]["conversation_id"] if len(rows) > query.limit else None
    return {"conversations": page, "metadata": {"returned_count": len(page), "next_cursor": next_cursor}}


def find_insights(session: ReadSession, query: InsightQuery) -> InsightPage:
    """A page of insights, newest first, and how many there are in all."""
    wanted = _wanted(query)
    statement = (
        select(*_INSIGHT_COLUMNS)
        .where(*wanted)
        .order_by(InsightRow.timestamp.desc(), InsightRow.id.desc())
        .limit(query.limit + 1)
    )
    if query.cursor is not None:
        statement = statement.where(_after(query.cursor))
    rows = session.execute(statement).all()
    page = rows[: query.limit]
    last = Position(page[-1].timestamp, page[-1].id) if len(rows) > query.limit else None
    return {
        "insights": [_to_insight(row) for row in page],
        "metadata": {
            "total_count": _count(session, query, wanted),
            "returned_count": len(page),
            "start_time": query.start_time,
            "end_time": query.end_time,
            "next_cursor": None if last is None else last.encode(),
        },
    }


def _count(session: ReadSession, query: InsightQuery, wanted: Sequence[ColumnElement[bool]]) -> int:
    """From the counters; what an author has is few enough to be counted one by one."""
    if query.author is None:
        return count_insights(session, query)
    return session.scalar(select(func.count()).select_from(InsightRow).where(*wanted)) or 0


def queue_depth(session: ReadSession) -> int:
    """Conversations that wait or are being analyzed."""
    return session.scalar(select(func.count()).select_from(Conversation).where(Conversation.due_at.is_not(None))) or 0


def is_deeper_than(session: ReadSession, *, conversations: int) -> bool:
    """Whether more than so many wait or are being analyzed; looks at no more than it must."""
    waiting = select(Conversation.id).where(Conversation.due_at.is_not(None)).limit(conversations + 1).subquery()
    return (session.scalar(select(func.count()).select_from(waiting)) or 0) > conversations


def known_analyses(
    session: ReadSession, *, keys: Sequence[bytes], since: datetime
) -> dict[bytes, tuple[Analysis, str]]:
    """What the model has said since then of the texts with these keys, and which model it was."""
    columns = (CachedAnalysis.key, CachedAnalysis.analysis, CachedAnalysis.model)
    known = select(*columns).where(CachedAnalysis.key.in_(keys), CachedAnalysis.created_at >= since)
    rows = session.execute(known)
    return {
        bytes(row.key): (analysis, row.model) for row in rows if (analysis := _read_cached(row.analysis)) is not None
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
    """The open ones are among the newest; the few set aside have an index whose condition must stand here literally."""
    wanted: list[ColumnElement[bool] | TextClause] = [Conversation.status == status]
    if status in {Status.FAILED, Status.SKIPPED}:
        wanted.append(sql("status IN ('failed', 'skipped')"))
    return wanted


def _wanted(query: InsightQuery) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = []
    if query.start_time is not None:
        wanted.append(InsightRow.timestamp >= query.start_time)
    if query.end_time is not None:
        wanted.append(InsightRow.timestamp < query.end_time)
    if query.min_confidence is not None:
        wanted.append(InsightRow.confidence >= query.min_confidence)
    if query.sentiment is not None:
        wanted.append(InsightRow.sentiment == query.sentiment)
    if query.author is not None:
        wanted.append(InsightRow.author == query.author)
    if query.topic:
        wanted.append(InsightRow.id.in_(_ids_with_topic(query)))
    return wanted


def _ids_with_topic(query: InsightQuery) -> Any:
    statement = select(InsightTopic.insight_id).where(InsightTopic.topic.in_(query.topic))
    if query.start_time is not None:
        statement = statement.where(InsightTopic.timestamp >= query.start_time)
    if query.end_time is not None:
        statement = statement.where(InsightTopic.timestamp < query.end_time)
    return statement


def _after(position: Position) -> ColumnElement[bool]:
    """Later pages: the first condition walks the index, the second sorts out ties (a row value scans on SQLite)."""
    return and_(
        InsightRow.timestamp <= position.timestamp,
        or_(InsightRow.timestamp < position.timestamp, InsightRow.id < position.row_id),
    )


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


def _to_insight(row: Row[*tuple[Any, ...]]) -> Insight:
    return {
        "conversation_id": row.conversation_id,
        "timestamp": row.timestamp,
        "text": row.text,
        "author": row.author,
        "grok_analysis": _to_analysis(row),
    }


def _to_analysis(row: Row[*tuple[Any, ...]]) -> GrokAnalysis:
    return {
        "sentiment_score": row.sentiment_score,
        "sentiment": row.sentiment,
        "clusters": row.clusters,
        "confidence": row.confidence,
        "reasoning": row.reasoning,
        "summary": row.grok_analysis.get("summary", ""),
        "language": row.grok_analysis.get("language", "und"),
        "model": row.model,
        "injection_suspected": row.grok_analysis.get("injection_suspected", False),
        "unlisted_topics": row.grok_analysis.get("unlisted_topics", []),
    }
