"""Orders to read again: how far each has come, what is next, and what reading costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Row, func, select

from answers import Reanalysis
from database import ReadSession
from models import GrokUsage, InsightRow, ReanalysisRow
from parameters import Position, ReanalysisQuery
from queries.paging import count_matches, matches, read_page

_COLUMNS = (
    InsightRow.id,
    InsightRow.timestamp,
    InsightRow.conversation_id,
    InsightRow.model,
    InsightRow.created_at,
)
_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be read again, as of when, and the place up to which it has been sent back."""

    number: int
    query: ReanalysisQuery
    requested_at: datetime
    place: Position | None


@dataclass(frozen=True, slots=True)
class Due:
    """The next conversations, and the place that is reached with them."""

    conversation_ids: Sequence[str]
    until: Position


def count_to_reread(session: ReadSession, query: ReanalysisQuery) -> int:
    """From the counters; of one model alone, one by one: nothing counts insights by model."""
    if query.model is None:
        return count_matches(session, query)
    of_model = (InsightRow.model == query.model, *matches(session, query))
    return session.scalar(select(func.count()).select_from(InsightRow).where(*of_model)) or 0


def oldest_order(session: ReadSession) -> Order | None:
    """The first that has not ended."""
    statement = select(ReanalysisRow).where(ReanalysisRow.ended_at.is_(None)).order_by(ReanalysisRow.id).limit(1)
    row = session.execute(statement).mappings().one_or_none()
    if row is None:
        return None
    place = None if row["insight_id"] is None else Position(row["timestamp"], row["insight_id"])
    return Order(row["id"], ReanalysisQuery.model_validate(row["filters"]), row["requested_at"], place)


def next_to_reread(session: ReadSession, order: Order, *, limit: int) -> Due | None:
    """The next that match, newest first, but for what was read since the order; None when there are no more."""
    rows = read_page(session, order.query, columns=_COLUMNS, limit=limit, after=order.place)
    if not rows:
        return None
    ids = [row.conversation_id for row in rows if _is_due(row, order)]
    return Due(ids, Position(rows[-1].timestamp, rows[-1].id))


def _is_due(row: Row[int, datetime, str, str, datetime], order: Order) -> bool:
    return row.created_at < order.requested_at and order.query.model in {None, row.model}


def list_reanalyses(session: ReadSession) -> list[Reanalysis]:
    """The newest first."""
    rows = session.execute(select(ReanalysisRow).order_by(ReanalysisRow.id.desc()).limit(_SHOWN)).mappings()
    return [
        {
            "reanalysis_id": row["id"],
            "filters": row["filters"],
            "requested_at": row["requested_at"],
            "conversations": row["matched"],
            "requeued": row["requeued"],
            "ended_at": row["ended_at"],
        }
        for row in rows
    ]


def ticks_per_conversation(session: ReadSession, model: str) -> float | None:
    """What reading one has cost on average, calls that ended in nothing included; None when none was read."""
    sums = select(func.sum(GrokUsage.cost_ticks), func.sum(GrokUsage.conversations)).where(GrokUsage.model == model)
    ticks, conversations = session.execute(sums).one()
    return float(ticks) / float(conversations) if conversations else None
