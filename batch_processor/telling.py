"""What became of a conversation, told in one log line and in the metrics; never its text."""

import asyncio
from datetime import datetime

from schemas import Tally
from store import Completed, Failed, Outcome, Released, Skipped
from telemetry import Metrics, get_logger, unquoted

log = get_logger()


def log_outcome(outcome: Outcome, *, now: datetime, fenced: bool) -> None:
    """What a row went through; `fenced`: another owner has it now."""
    claim = outcome.claim
    trail = log.bind(
        conversation_id=claim.conversation_id,
        attempts=claim.attempts,
        rescues=claim.rescues,
        since_accepted_ms=round((now - claim.created_at).total_seconds() * 1000),
    )
    if fenced:
        trail.warning("conversation_taken_over")
        return
    if _keeps_its_insight(outcome):
        trail.warning("reread_kept")
        return
    match outcome:
        case Completed():
            confidence = outcome.analysis.confidence
            trail.info("conversation_completed", model=outcome.model, confidence=confidence, how=outcome.tallies)
        case Skipped():
            trail.info("conversation_skipped", reason=outcome.reason)
        case Failed():
            trail.error("conversation_failed", error=outcome.code, reason=unquoted(outcome.error))
        case Released():
            trail.info("conversation_released", due_at=outcome.due_at, spent_attempt=outcome.spent_attempt)


def _keeps_its_insight(outcome: Outcome) -> bool:
    """It was read again, and nothing usable came of it: no failure, for it is completed all the same."""
    return isinstance(outcome, (Skipped, Failed)) and outcome.claim.reread_at is not None


def count_outcome(metrics: Metrics, outcome: Completed | Skipped | Failed) -> None:
    if _keeps_its_insight(outcome):
        return
    match outcome:
        case Completed():
            metrics.count_finished("completed")
            if Tally.CACHED in outcome.tallies:
                metrics.count_cache_hit()
        case Skipped():
            metrics.count_finished("skipped")
            metrics.count_skip(outcome.reason)
        case Failed():
            metrics.count_finished("failed")
            metrics.count_failure(outcome.code)


def log_death(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("task_died", task=task.get_name(), exc_info=error)
