"""The operator's summary, put together from what the database counts and what this process knows."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from account import next_midnight
from answers import Budget, DayOfModel, Grok, Quality, Queue, Saved, Savings, Share, Spending, Summary
from queries import OperatorCounts, UsageRow
from routes.shared import State
from schemas import Tally
from xai import TICKS_PER_USD

_SHOWN_DAYS = 31
_MINUTE_S = 60


def summarize(counts: OperatorCounts, state: State, *, now: datetime) -> Summary:
    today = now.date().isoformat()
    total = _spending(counts.usage)
    spent = _spending([row for row in counts.usage if row.day == today])
    return {
        "at": now,
        "queue": _queue(counts, state, now=now),
        "grok": _grok(state),
        "usage": {"today": spent, "total": total, "days": _days(counts.usage)},
        "budget": _budget(spent, counts.reserved_ticks, state, now=now),
        "savings": _savings(counts, total),
        "quality": _quality(counts.tallies),
    }


def _queue(counts: OperatorCounts, state: State, *, now: datetime) -> Queue:
    oldest = counts.oldest_pending
    return {
        "counts": counts.by_status,
        "oldest_pending_seconds": None if oldest is None else round((now - oldest).total_seconds(), 3),
        "finished_per_second": round(state["processor"].finished_per_s(), 2),
    }


def _grok(state: State) -> Grok:
    lane, check = state["lane"], state["key_check"]
    outage = lane.outage
    return {
        "mode": state["grok_mode"],
        "model": state["grok_model"],
        "breaker": lane.breaker_state,
        "wait_seconds": round(lane.wait_s(), 1),
        "outage": None if outage is None else {"code": outage.code, "details": outage.details},
        "calls_per_second": lane.window.limit,
        "calls_per_second_now": lane.window.current,
        "pack_size": state["pack_size"].current,
        "model_mismatches": state["metrics"].model_mismatches(),
        "key_check": {"verdict": check.verdict, "details": check.details},
    }


def _spending(rows: Sequence[UsageRow]) -> Spending:
    return {
        "calls": sum(row.calls for row in rows),
        "unreported_calls": sum(row.unreported_calls for row in rows),
        "conversations": sum(row.conversations for row in rows),
        "uncached_tokens": sum(row.uncached_tokens for row in rows),
        "cached_tokens": sum(row.cached_tokens for row in rows),
        "output_tokens": sum(row.output_tokens for row in rows),
        "reasoning_tokens": sum(row.reasoning_tokens for row in rows),
        "cost_usd": _usd(sum(row.cost_ticks for row in rows)),
    }


def _days(rows: Sequence[UsageRow]) -> list[DayOfModel]:
    shown = sorted({row.day for row in rows}, reverse=True)[:_SHOWN_DAYS]
    return [{"day": row.day, "model": row.model, **_spending([row])} for row in rows if row.day in shown]


def _budget(spent: Spending, reserved_ticks: int, state: State, *, now: datetime) -> Budget:
    return {
        "daily_usd": state["budget_usd"],
        "spent_usd": spent["cost_usd"],
        "reserved_usd": _usd(reserved_ticks),
        "resumes_at": _resumes_at(state["lane"].budget_wait_s, now=now),
    }


def _resumes_at(wait_s: float, *, now: datetime) -> datetime | None:
    """Soon, when calls in flight hold the rest of the budget; else at midnight."""
    if wait_s == 0:
        return None
    return now + timedelta(seconds=round(wait_s)) if wait_s < _MINUTE_S else next_midnight(now)


def _savings(counts: OperatorCounts, total: Spending) -> Savings:
    tallies = counts.tallies
    kinds = (Tally.CACHED, Tally.SKIPPED, Tally.LITTLE_TO_READ, Tally.CASCADE)
    saved = sum(tallies[kind] for kind in kinds)
    read = saved + tallies[Tally.ASKED]
    usd_each = total["cost_usd"] / total["conversations"] if total["conversations"] else 0.0
    cached, skipped, little_to_read, cascade = (_saved(tallies[kind], of=read, usd_each=usd_each) for kind in kinds)
    return {
        "cached": cached,
        "skipped": skipped,
        "little_to_read": little_to_read,
        "cascade": cascade,
        "total": _saved(saved, of=read, usd_each=usd_each),
        "skip_reasons": counts.skip_reasons,
    }


def _saved(count: int, *, of: int, usd_each: float) -> Saved:
    return {**_share(count, of), "estimated_usd": round(count * usd_each, 6)}


def _quality(tallies: dict[Tally, int]) -> Quality:
    return {
        "canary_agreement": _share(tallies[Tally.CANARIES_AGREED], tallies[Tally.CANARIES]),
        "skip_loss": _share(tallies[Tally.SKIP_LOST], tallies[Tally.SKIP_AUDITED]),
        "keep_loss": _share(tallies[Tally.KEEP_DIFFERED], tallies[Tally.KEEP_AUDITED]),
        "injection_suspected": tallies[Tally.SUSPECTED],
    }


def _share(count: int, of: int) -> Share:
    return {"count": count, "of": of, "share": round(count / of, 4) if of else None}


def _usd(ticks: int) -> float:
    return round(ticks / TICKS_PER_USD, 8)
