"""What the operator asks: how much of everything, how old, at what cost; each counted where an index holds it."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy import text as sql

from database import ReadSession
from models import Conversation, GrokCall, GrokUsage, TallyRow
from parameters import InsightFilter
from queries.counting import count_insights
from queries.reading import oldest_due, queue_depth
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


@dataclass(frozen=True, slots=True)
class ScrapeCounts:
    """All that `/metrics` needs from the database, of one snapshot; costs of the day in ticks."""

    by_status: dict[str, int]
    oldest_due: datetime | None
    tallies: dict[Tally, int]
    spent_ticks: int
    reserved_ticks: int
    database_bytes: int

    @property
    def queue_depth(self) -> int:
        return self.by_status[Status.PENDING] + self.by_status[Status.PROCESSING]


def count_for_operator(session: ReadSession, *, day: str) -> OperatorCounts:
    return OperatorCounts(
        by_status=_count_by_status(session),
        skip_reasons=_skip_reasons(session),
        oldest_pending=_oldest_pending(session),
        tallies=_tallies(session),
        usage=_usage_by_day(session),
        reserved_ticks=_reserved_ticks(session, day=day),
    )


def count_for_scrape(session: ReadSession, *, now: datetime) -> ScrapeCounts:
    """Cheap enough to be asked every few seconds: nothing here walks the waiting conversations themselves."""
    day = now.date().isoformat()
    return ScrapeCounts(
        by_status=_estimate_open(session, now=now) | _count_ended(session),
        oldest_due=oldest_due(session, now=now),
        tallies=_tallies(session),
        spent_ticks=_spent_ticks(session, day=day),
        reserved_ticks=_reserved_ticks(session, day=day),
        database_bytes=_database_bytes(session),
    )


def _count_by_status(session: ReadSession) -> dict[str, int]:
    """How many conversations there are in each status; the open ones are looked at one by one."""
    open_ones = (
        select(Conversation.status, func.count()).where(Conversation.due_at.is_not(None)).group_by(Conversation.status)
    )
    counted = {str(status): count for status, count in session.execute(open_ones)}
    return dict.fromkeys(map(str, Status), 0) | counted | _count_ended(session)


def _estimate_open(session: ReadSession, *, now: datetime) -> dict[str, int]:
    """Open conversations by status, but one whose lease is over counts as pending: it waits like any other.

    Only what is not due yet is looked at: those in work, and those that back off.
    """
    leased = select(func.count()).where(Conversation.due_at > now, Conversation.status == Status.PROCESSING)
    processing = session.execute(leased).scalar_one()
    return {Status.PENDING: queue_depth(session) - processing, Status.PROCESSING: processing}


def _count_ended(session: ReadSession) -> dict[str, int]:
    """Conversations that came to an end, each counted where an index or a counter holds it."""
    set_aside = (
        select(Conversation.status, func.count())
        .where(sql("status IN ('failed', 'skipped')"))
        .group_by(Conversation.status)
    )
    rereads = select(func.count()).where(Conversation.due_at.is_not(None), Conversation.reread_at.is_not(None))
    return {
        Status.COMPLETED: count_insights(session, InsightFilter()) - session.execute(rereads).scalar_one(),
        Status.FAILED: 0,
        Status.SKIPPED: 0,
        **{str(status): count for status, count in session.execute(set_aside)},
    }


def _skip_reasons(session: ReadSession) -> dict[str, int]:
    statement = (
        select(Conversation.skip_reason, func.count())
        .where(Conversation.status == Status.SKIPPED, sql("status IN ('failed', 'skipped')"))
        .group_by(Conversation.skip_reason)
    )
    return {str(reason): count for reason, count in session.execute(statement)}


def _oldest_pending(session: ReadSession) -> datetime | None:
    """When the longest waiting conversation was accepted, or asked to be read again."""
    waiting = (Conversation.due_at.is_not(None), Conversation.status == Status.PENDING)
    return session.scalar(
        select(func.min(func.coalesce(Conversation.reread_at, Conversation.created_at))).where(*waiting)
    )


def _tallies(session: ReadSession) -> dict[Tally, int]:
    counted = {str(name): count for name, count in session.execute(select(TallyRow.name, TallyRow.count))}
    return {tally: counted.get(tally, 0) for tally in Tally}


def _usage_by_day(session: ReadSession) -> list[UsageRow]:
    statement = select(GrokUsage).order_by(GrokUsage.day.desc(), GrokUsage.model)
    return [UsageRow(**row) for row in session.execute(statement).mappings()]


def _reserved_ticks(session: ReadSession, *, day: str) -> int:
    total = select(func.coalesce(func.sum(GrokCall.reserved_ticks), 0)).where(GrokCall.day == day)
    return int(session.execute(total).scalar_one())


def _spent_ticks(session: ReadSession, *, day: str) -> int:
    total = select(func.coalesce(func.sum(GrokUsage.cost_ticks), 0)).where(GrokUsage.day == day)
    return int(session.execute(total).scalar_one())


def _database_bytes(session: ReadSession) -> int:
    """With what is still in SQLite's WAL, without what is in it twice."""
    size = (
        "SELECT pg_database_size(current_database())"
        if session.dialect.name == "postgresql"
        else "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
    )
    return int(session.execute(sql(size)).scalar_one())
