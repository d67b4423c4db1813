"""What `/metrics` looks up when it is asked: the state of this process, and what the database holds for all of them."""

import platform
import shutil
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import get_args

from account import Verdict
from circuit_breaker import State as BreakerState
from database import log_of
from errors import GrokAuth, GrokBilling, GrokConfig
from queries import ScrapeCounts
from routes.shared import VERSION, State
from telemetry import Measurement
from xai import TICKS_PER_USD

_OUTAGES = (GrokAuth.code, GrokBilling.code, GrokConfig.code)  # what closes the lane until somebody mends it


def measure(counts: ScrapeCounts | None, state: State, *, now: datetime) -> list[Measurement]:
    """`counts` is None while the database does not answer: what only it knows is then left out."""
    file = state["database"].file
    return [
        _build(state),
        *_of_worker(state),
        *_of_streams(state),
        *_of_grok(state),
        *_of_budget(state),
        Measurement.of("insights_database_up", "Whether the database answered this scrape.", counts is not None),
        *([] if counts is None else _of_database(counts, now=now)),
        *([] if file is None else _of_disk(file)),
    ]


def _build(state: State) -> Measurement:
    labels = {
        "version": VERSION,
        "python": platform.python_version(),
        "database": state["database"].dialect,
        "mode": state["grok_mode"],
        "model": state["grok_model"],
    }
    return Measurement("insights_build_info", "What runs here; always 1.", tuple(labels), {tuple(labels.values()): 1})


def _of_worker(state: State) -> list[Measurement]:
    ticked_at = state["processor"].ticked_at
    return [
        Measurement.of(
            "insights_worker_running", "Whether the worker of the queue is alive.", state["worker_running"]()
        ),
        Measurement.of(
            "insights_worker_last_tick_timestamp_seconds",
            "When the worker last made progress or rested, in seconds since 1970.",
            ticked_at.timestamp(),
        ),
        Measurement.of(
            "insights_pack_size", "Conversations that travel in one call to Grok, now.", state["pack_size"].current
        ),
    ]


def _of_streams(state: State) -> list[Measurement]:
    return [
        Measurement.of("insights_event_streams_open", "Live streams that are open.", state["streams"].open_count),
        Measurement.of("insights_files_open", "Files of insights that are being written.", state["files"].open_count),
    ]


def _of_grok(state: State) -> list[Measurement]:
    lane = state["lane"]
    outage = None if lane.outage is None else lane.outage.code
    return [
        Measurement.by(
            "insights_grok_outage",
            "Whether Grok cannot be used until somebody mends it, by the reason.",
            _one_of(_OUTAGES, holds=outage),
            label="error",
        ),
        Measurement.by(
            "insights_grok_key_check",
            "What xAI last said of key and model.",
            _one_of(get_args(Verdict), holds=state["key_check"].verdict),
            label="verdict",
        ),
        Measurement.by(
            "insights_breaker_state",
            "The state of the circuit breaker.",
            _one_of(BreakerState, holds=lane.breaker_state),
            label="state",
        ),
        Measurement.of("insights_grok_wait_seconds", "Until calls to Grok make sense again; 0 now.", lane.wait_s()),
        Measurement.of("insights_grok_calls_per_second_limit", "Calls allowed in a second, as set.", lane.window.limit),
        Measurement.of(
            "insights_grok_calls_per_second_allowed",
            "Calls allowed in a second, now: fewer for a while after a 429.",
            lane.window.current,
        ),
    ]


def _of_budget(state: State) -> list[Measurement]:
    return [
        Measurement.of("insights_budget_limit_usd", "What Grok may cost a day (UTC), if limited.", state["budget_usd"]),
        Measurement.of(
            "insights_budget_wait_seconds",
            "Until there may be budget again; 0 while there is.",
            state["lane"].budget_wait_s,
        ),
    ]


def _of_database(counts: ScrapeCounts, *, now: datetime) -> list[Measurement]:
    spent_usd, reserved_usd = counts.spent_ticks / TICKS_PER_USD, counts.reserved_ticks / TICKS_PER_USD
    return [
        Measurement.of(
            "insights_processing_queue_depth", "Conversations that wait or are being analyzed.", counts.queue_depth
        ),
        Measurement.by("insights_conversations", "Conversations by status.", counts.by_status, label="status"),
        Measurement.of(
            "insights_oldest_due_age_seconds",
            "How long the longest waiting conversation has been due; 0 when none is.",
            _age_s(counts.oldest_due, now=now),
        ),
        Measurement.by(
            "insights_tally_total",
            "What became of conversations, over restarts and of all replicas.",
            {tally.value: count for tally, count in counts.tallies.items()},
            label="tally",
        ),
        Measurement.of("insights_budget_spent_usd", "What Grok has cost today (UTC).", spent_usd),
        Measurement.of("insights_budget_reserved_usd", "The most that calls under way can cost.", reserved_usd),
        Measurement.of("insights_database_bytes", "Size of the database.", counts.database_bytes),
    ]


def _of_disk(file: Path) -> list[Measurement]:
    wal_bytes = free_bytes = None
    with suppress(OSError):
        free_bytes = shutil.disk_usage(file.parent).free
        wal_bytes = log_of(file).stat().st_size
    return [
        Measurement.of("insights_database_wal_bytes", "Size of SQLite's write-ahead log.", wal_bytes),
        Measurement.of("insights_disk_free_bytes", "Free space on the disk of SQLite's file.", free_bytes),
    ]


def _one_of(words: Iterable[str], *, holds: str | None) -> dict[str, float]:
    """1 for the word that holds, 0 for every other."""
    return {str(word): float(word == holds) for word in words}


def _age_s(moment: datetime | None, *, now: datetime) -> float:
    return 0.0 if moment is None else max(0.0, (now - moment).total_seconds())
