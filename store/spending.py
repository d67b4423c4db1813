"""The account of calls to Grok: reserved before a call is sent, settled after it, so that no budget is ever passed.

What is spent and what is reserved on a day stay within its budget together; a reservation whose owner died is charged
in full. The calls of the last second are counted here too, over restarts and replicas.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from database import WriteSession
from models import GrokCall, GrokUsage
from store.tallies import insert_of

_KEPT = timedelta(minutes=1)  # of a settled call: longer than any window
ON_THE_WAY = timedelta(milliseconds=200)  # the commit and the connection
_ONE_AT_A_TIME = 7432  # PostgreSQL's advisory lock for whoever reserves


@dataclass(frozen=True, slots=True)
class Reservation:
    """A call as it may become at most, and what it must stay within; `budget_ticks` is None without a budget.

    `own_calls`: how many this caller has sent within the window, this one included; what others sent is counted here.
    """

    caller: str
    own_calls: int
    model: str
    conversations: int
    most_ticks: int
    budget_ticks: int | None
    calls_per_window: int
    window: timedelta


@dataclass(frozen=True, slots=True)
class Reserved:
    number: int


@dataclass(frozen=True, slots=True)
class WindowFull:
    """As many calls as are allowed were sent just now, by this process before it was restarted, or by another."""


@dataclass(frozen=True, slots=True)
class BudgetReached:
    """The call does not fit; `for_today` when it would not even if all that is reserved came back."""

    for_today: bool


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a call used: tokens by kind, and ticks; `ticks` is None when nobody said, and the reservation is charged."""

    uncached_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    ticks: int | None = None


def reserve_call(session: WriteSession, *, wanted: Reservation, now: datetime) -> Reserved | WindowFull | BudgetReached:
    """Enter the call before it is sent, if the window and the day's budget have room for it."""
    if session.dialect.name == "postgresql":  # replicas reserve one after the other, by one clock
        session.execute(select(func.pg_advisory_xact_lock(_ONE_AT_A_TIME)))
        now = session.execute(select(func.clock_timestamp())).scalar_one()
    if _calls_of_others(session, wanted, now=now) + wanted.own_calls > wanted.calls_per_window:
        return WindowFull()
    if wanted.budget_ticks is not None and wanted.conversations > 0:  # what asks about the key is free
        spent, reserved = _spent_ticks(session, now=now), _reserved_ticks(session, now=now)
        if spent + reserved + wanted.most_ticks > wanted.budget_ticks:
            return BudgetReached(for_today=spent + wanted.most_ticks > wanted.budget_ticks)
    row = {
        "day": _day(now),
        "caller": wanted.caller,
        "model": wanted.model,
        "conversations": wanted.conversations,
        "reserved_ticks": wanted.most_ticks,
        "called_at": now,
    }
    return Reserved(session.execute(insert(GrokCall).returning(GrokCall.id), [row]).scalar_one())


def settle_call(session: WriteSession, *, number: int, settlement: Settlement, now: datetime) -> int:
    """Turn the reservation into what the call cost; returns that, in ticks. A call is settled once."""
    call = session.execute(
        select(GrokCall).where(GrokCall.id == number, GrokCall.reserved_ticks > 0).with_for_update()
    ).one_or_none()
    if call is None:
        return 0
    ticks = _charge(session, call, settlement)
    session.execute(update(GrokCall).where(GrokCall.id == number).values(reserved_ticks=0))
    _forget_settled(session, now=now)
    return ticks


def cancel_call(session: WriteSession, *, number: int, now: datetime) -> None:
    """Give the reservation back: the call was answered with an error, which costs nothing."""
    session.execute(update(GrokCall).where(GrokCall.id == number).values(reserved_ticks=0))
    _forget_settled(session, now=now)


def charge_abandoned(session: WriteSession, *, called_before: datetime) -> int:
    """Charge in full what was reserved by an owner that died; returns how many calls those were."""
    abandoned = session.execute(
        select(GrokCall)
        .where(GrokCall.reserved_ticks > 0, GrokCall.called_at < called_before)
        .order_by(GrokCall.id)
        .with_for_update()  # replicas purge at the same time
    ).all()
    for call in abandoned:
        _charge(session, call, Settlement())
    session.execute(update(GrokCall).where(GrokCall.id.in_([call.id for call in abandoned])).values(reserved_ticks=0))
    return len(abandoned)


def _charge(session: WriteSession, call: Any, settlement: Settlement) -> int:
    """Enter what the call used into its day; returns what it cost, in ticks."""
    ticks = call.reserved_ticks if settlement.ticks is None else settlement.ticks
    counts = {
        "calls": 1,
        "unreported_calls": int(settlement.ticks is None),
        "conversations": call.conversations,
        "uncached_tokens": settlement.uncached_tokens,
        "cached_tokens": settlement.cached_tokens,
        "output_tokens": settlement.output_tokens,
        "reasoning_tokens": settlement.reasoning_tokens,
        "cost_ticks": ticks,
    }
    statement = insert_of(session)(GrokUsage).values(day=call.day, model=call.model, **counts)
    more = {name: getattr(GrokUsage, name) + statement.excluded[name] for name in counts}
    session.execute(statement.on_conflict_do_update(index_elements=["day", "model"], set_=more))
    return int(ticks)


def _calls_of_others(session: WriteSession, wanted: Reservation, *, now: datetime) -> int:
    """Within the window, and a little longer: between being entered here and being sent some time passes."""
    since = now - wanted.window - ON_THE_WAY
    others = select(func.count()).where(
        GrokCall.called_at > since, GrokCall.called_at <= now, GrokCall.caller != wanted.caller
    )
    return int(session.execute(others).scalar_one())


def _forget_settled(session: WriteSession, *, now: datetime) -> None:
    session.execute(delete(GrokCall).where(GrokCall.called_at < now - _KEPT, GrokCall.reserved_ticks == 0))


def _spent_ticks(session: WriteSession, *, now: datetime) -> int:
    total = select(func.coalesce(func.sum(GrokUsage.cost_ticks), 0)).where(GrokUsage.day == _day(now))
    return int(session.execute(total).scalar_one())


def _reserved_ticks(session: WriteSession, *, now: datetime) -> int:
    total = select(func.coalesce(func.sum(GrokCall.reserved_ticks), 0)).where(GrokCall.day == _day(now))
    return int(session.execute(total).scalar_one())


def _day(now: datetime) -> str:
    return now.date().isoformat()
