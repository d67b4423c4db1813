"""Every number of the operator's summary, from counts and a state made by hand."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from circuit_breaker import CircuitBreaker
from errors import GrokAuth, GrokBudgetReached, GrokThrottled
from lane import Lane
from queries import OperatorCounts, UsageRow
from rate_limiter import CallWindow
from reader import PackLimits, PackSize
from routes.shared import State
from routes.summary import summarize
from schemas import Status, Tally
from telemetry import Metrics
from tests.harness import HandClock

pytestmark = pytest.mark.unit

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
USD = 10**10  # in ticks
NOTHING = OperatorCounts(
    by_status=dict.fromkeys(map(str, Status), 0),
    skip_reasons={},
    oldest_pending=None,
    tallies=dict.fromkeys(Tally, 0),
    usage=[],
    reserved_ticks=0,
)
NO_SPENDING = {
    "calls": 0,
    "unreported_calls": 0,
    "conversations": 0,
    "uncached_tokens": 0,
    "cached_tokens": 0,
    "output_tokens": 0,
    "reasoning_tokens": 0,
    "cost_usd": 0,
}


class Processor:
    """As much of one as the summary looks at."""

    def finished_per_s(self) -> float:
        return 1.23456


class Check:
    """What came of asking xAI at the start."""

    verdict, details = "ok", "Key and model are good."


@pytest.fixture
def lane(clock: HandClock) -> Lane:
    monotonic = clock.monotonic
    breaker = CircuitBreaker(threshold=1, cooldown_s=10, monotonic=monotonic)
    return Lane(CallWindow(10, window_s=1, monotonic=monotonic), breaker, monotonic=monotonic)


@pytest.fixture
def state(lane: Lane) -> State:
    made: dict[str, Any] = {
        "processor": Processor(),
        "grok_mode": "real",
        "grok_model": "grok-4.3",
        "lane": lane,
        "key_check": Check(),
        "pack_size": PackSize(PackLimits(1, 5, 50)),
        "metrics": Metrics(),
        "budget_usd": None,
    }
    return cast("State", made)


def counted(**tallies: int) -> OperatorCounts:
    return replace(NOTHING, tallies={tally: tallies.get(tally.value, 0) for tally in Tally})


def used(day: str, *, model: str = "grok-4.3", **numbers: int) -> UsageRow:
    zeros = dict.fromkeys([*NO_SPENDING, "cost_ticks"], 0)
    del zeros["cost_usd"]
    return UsageRow(day=day, model=model, **zeros | numbers)


def test_of_nothing_all_is_nought_and_shares_are_unknown(state: State) -> None:
    summary = summarize(NOTHING, state, now=NOW)

    nothing = {"count": 0, "of": 0, "share": None}
    assert (summary["usage"]["today"], summary["usage"]["total"]) == (NO_SPENDING, NO_SPENDING)
    assert summary["usage"]["days"] == []
    assert summary["budget"] == {"daily_usd": None, "spent_usd": 0, "reserved_usd": 0, "resumes_at": None}
    assert summary["savings"]["total"] == {"count": 0, "of": 0, "share": None, "estimated_usd": 0}
    assert summary["quality"] == {
        "canary_agreement": nothing, "skip_loss": nothing, "keep_loss": nothing, "injection_suspected": 0
    }  # fmt: skip


def test_the_queue_is_told_by_status_with_its_age_and_pace(state: State) -> None:
    by_status = {"pending": 4, "processing": 3, "completed": 2, "failed": 1, "skipped": 5}
    counts = replace(NOTHING, by_status=by_status, oldest_pending=NOW - timedelta(seconds=90.5))

    summary = summarize(counts, state, now=NOW)

    assert summary["at"] == NOW
    assert summary["queue"] == {"counts": by_status, "oldest_pending_seconds": 90.5, "finished_per_second": 1.23}


def test_of_an_open_lane_everything_is_told(state: State) -> None:
    assert summarize(NOTHING, state, now=NOW)["grok"] == {
        "mode": "real",
        "model": "grok-4.3",
        "breaker": "closed",
        "wait_seconds": 0.0,
        "outage": None,
        "calls_per_second": 10,
        "calls_per_second_now": 10,
        "pack_size": 5,
        "model_mismatches": 0,
        "key_check": {"verdict": "ok", "details": "Key and model are good."},
    }


def test_a_wrong_key_is_told_with_the_wait(state: State, lane: Lane) -> None:
    lane.close(GrokAuth("Incorrect API key provided."))

    grok = summarize(NOTHING, state, now=NOW)["grok"]

    assert grok["outage"] == {"code": "grok_auth", "details": "Incorrect API key provided."}
    assert grok["wait_seconds"] == 60


def test_a_rate_that_was_lowered_is_told(state: State, lane: Lane) -> None:
    lane.close(GrokThrottled("slow down", retry_after_s=7))

    grok = summarize(NOTHING, state, now=NOW)["grok"]

    assert (grok["calls_per_second"], grok["calls_per_second_now"], grok["wait_seconds"]) == (10, 5, 7)
    assert grok["outage"] is None


async def test_an_open_breaker_is_told(state: State, lane: Lane) -> None:
    (await lane.enter()).failed()

    grok = summarize(NOTHING, state, now=NOW)["grok"]

    assert (grok["breaker"], grok["wait_seconds"]) == ("open", 10)


def test_the_size_of_packs_and_foreign_models_are_told(state: State) -> None:
    state["pack_size"].record_pressure()
    for _ in range(3):
        state["metrics"].count_model_mismatch()

    grok = summarize(NOTHING, state, now=NOW)["grok"]

    assert (grok["pack_size"], grok["model_mismatches"]) == (2, 3)


def test_usage_is_told_for_today_in_all_and_by_day_and_model(state: State) -> None:
    numbers: dict[str, Any] = {
        "calls": 2, "unreported_calls": 1, "conversations": 10,
        "uncached_tokens": 11, "cached_tokens": 12, "output_tokens": 13, "reasoning_tokens": 14,
    }  # fmt: skip
    usage = [
        replace(used("2026-03-01", cost_ticks=USD // 4), **numbers),
        used("2026-03-01", model="grok-4.5", calls=1, conversations=1, cost_ticks=USD),
        used("2026-02-28", calls=5, conversations=50, cost_ticks=2 * USD),
    ]

    told = summarize(replace(NOTHING, usage=usage), state, now=NOW)["usage"]

    assert told["today"] == {**numbers, "calls": 3, "conversations": 11, "cost_usd": 1.25}
    assert told["total"] == {**numbers, "calls": 8, "conversations": 61, "cost_usd": 3.25}
    assert told["days"][0] == {"day": "2026-03-01", "model": "grok-4.3", **numbers, "cost_usd": 0.25}
    assert [(day["day"], day["model"]) for day in told["days"][1:]] == [
        ("2026-03-01", "grok-4.5"), ("2026-02-28", "grok-4.3")
    ]  # fmt: skip


def test_the_last_31_days_are_shown_and_all_are_in_the_total(state: State) -> None:
    days = [(NOW - timedelta(days=number)).date().isoformat() for number in range(100)]

    usage = summarize(replace(NOTHING, usage=[used(day, calls=1) for day in days]), state, now=NOW)["usage"]

    assert [day["day"] for day in usage["days"]] == days[:31]
    assert usage["total"]["calls"] == 100


def test_the_budget_tells_what_is_spent_and_what_is_reserved(state: State) -> None:
    state["budget_usd"] = 5.0
    counts = replace(NOTHING, usage=[used("2026-03-01", cost_ticks=2 * USD)], reserved_ticks=USD // 10)

    budget = summarize(counts, state, now=NOW)["budget"]

    assert budget == {"daily_usd": 5.0, "spent_usd": 2.0, "reserved_usd": 0.1, "resumes_at": None}


def test_a_budget_that_is_spent_resumes_at_midnight(state: State, lane: Lane, clock: HandClock) -> None:
    state["budget_usd"] = 5.0
    lane.close(GrokBudgetReached("spent", retry_after_s=12 * 3600))
    reached = summarize(NOTHING, state, now=NOW)

    clock.turn(12 * 3600)
    later = summarize(NOTHING, state, now=NOW + timedelta(hours=12))

    assert reached["budget"]["resumes_at"] == datetime(2026, 3, 2, tzinfo=UTC)
    assert (reached["grok"]["outage"], later["budget"]["resumes_at"]) == (None, None)


def test_savings_are_what_needed_no_call_at_what_a_call_has_cost_each(state: State) -> None:
    counts = replace(
        counted(asked=100, cached=30, skipped=5, little_to_read=4, cascade=11),
        skip_reasons={"link_only": 5},
        usage=[used("2026-03-01", conversations=100, cost_ticks=USD), used("2026-02-28", conversations=100)],
    )

    savings = summarize(counts, state, now=NOW)["savings"]

    assert savings == {
        "cached": {"count": 30, "of": 150, "share": 0.2, "estimated_usd": 0.15},
        "skipped": {"count": 5, "of": 150, "share": 0.0333, "estimated_usd": 0.025},
        "little_to_read": {"count": 4, "of": 150, "share": 0.0267, "estimated_usd": 0.02},
        "cascade": {"count": 11, "of": 150, "share": 0.0733, "estimated_usd": 0.055},
        "total": {"count": 50, "of": 150, "share": 0.3333, "estimated_usd": 0.25},
        "skip_reasons": {"link_only": 5},
    }


def test_quality_is_told_in_counts_and_shares(state: State) -> None:
    counts = counted(
        canaries=50, canaries_agreed=49, skip_audited=8, skip_lost=1, keep_audited=4, keep_differed=2, suspected=7
    )

    quality = summarize(counts, state, now=NOW)["quality"]

    assert quality == {
        "canary_agreement": {"count": 49, "of": 50, "share": 0.98},
        "skip_loss": {"count": 1, "of": 8, "share": 0.125},
        "keep_loss": {"count": 2, "of": 4, "share": 0.5},
        "injection_suspected": 7,
    }
