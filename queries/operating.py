"""What the operator asks: how much of everything, how old, at what cost; each counted where an index holds it."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy import text as sql

from database import ReadSession
from models import Conversation, GrokCall, GrokUsage, TallyRow
from parameters import InsightFilter
from queries.counting import count_insights
from schemas import Status, Tally


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What Grok was used for on a day, by model; costs in ticks."""

    day: str
    model: str
    calls: int
    unreported_calls: int
    conversations: int
    uncached_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost_ticks: int


@dataclass(frozen=True, slots=True)
class OperatorCounts:
    """All that `/status/summary` needs from the database, of one snapshot; usage by day and model, newest day first."""

    by_status: dict[str, int]
    skip_reasons: dict[str, int]
    oldest_pending: datetime | None
    tallies: dict[Tally, int]
    usage: list[UsageRow]
    reserved_ticks: int


def count_for_operator(session: ReadSession, *, day: str) -> OperatorCounts:
    return OperatorCounts(
        by_status=_count_by_status(session),
        skip_reasons=_skip_reasons(session),
        oldest_pending=_oldest_pending(session),
        tallies=_tallies(session),
        usage=_usage_by_day(session),
        reserved_ticks=_reserved_ticks(session, day=day),
    )


def _count_by_status(session: ReadSession) -> dict[str, int]:
    """How many conversations there are in each status, each counted where an index or a counter holds it."""
    counts = dict.fromkeys(map(str, Status), 0)
    open_ones = (
        select(Conversation.status, func.count()).where(Conversation.due_at.is_not(None)).group_by(Conversation.status)
    )
    set_aside = (
        select(Conversation.status, func.count())
        .where(sql("status IN ('failed', 'skipped')"))
        .group_by(Conversation.status)
    )
    for statement in (open_ones, set_aside):
        counts |= {str(status): count for status, count in session.execute(statement)}
    counts[Status.COMPLETED] = count_insights(session, InsightFilter())
    return counts


def _skip_reasons(session: ReadSession) -> dict[str, int]:
    statement = (
        select(Conversation.skip_reason, func.count())
        .where(Conversation.status == Status.SKIPPED, sql("status IN ('failed', 'skipped')"))
        .group_by(Conversation.skip_reason)
    )
    return {str(reason): count for reason, count in session.execute(statement)}


def _oldest_pending(session: ReadSession) -> datetime | None:
    """When the longest waiting conversation was accepted."""
    waiting = (Conversation.due_at.is_not(None), Conversation.status == Status.PENDING)
    return session.scalar(select(func.min(Conversation.created_at)).where(*waiting))


def _tallies(session: ReadSession) -> dict[Tally, int]:
    counted = {str(name): count for name, count in session.execute(select(TallyRow.name, TallyRow.count))}
    return {tally: counted.get(tally, 0) for tally in Tally}


def _usage_by_day(session: ReadSession) -> list[UsageRow]:
    statement = select(GrokUsage).order_by(GrokUsage.day.desc(), GrokUsage.model)
    return [UsageRow(**row) for row in session.execute(statement).mappings()]


def _reserved_ticks(session: ReadSession, *, day: str) -> int:
    total = select(func.coalesce(func.sum(GrokCall.reserved_ticks), 0)).where(GrokCall.day == day)
    return int(session.execute(total).scalar_one())
