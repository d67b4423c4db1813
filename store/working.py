"""Work the queue: claim due conversations, save what became of them, send failed ones back."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, Select, case, delete, select, update
from sqlalchemy import text as sql

from database import WriteSession
from errors import Conflict, NotFound
from models import CachedAnalysis, Conversation
from schemas import Analysis, Status, Tally
from store.correcting import find_corrections, keep_correction
from store.insights import Change, add_insights, change_insights, find_insights, judged
from store.tallies import add_tallies, insert_of

MAX_RESCUES = 3  # a row whose owner died more often is taken to be the cause
_SUSPECT_RESCUES = 2  # one death is an accident: its rows are read at once, as before
_RESCUES_IF_CLAIMED = Conversation.rescues + case((Conversation.status == Status.PROCESSING, 1), else_=0)
_ONLY_SHOWN = {"summary", "language", "injection_suspected", "unlisted_topics"}  # of an analysis; nobody asks by them


@dataclass(frozen=True, slots=True)
class Claim:
    """A conversation in the hands of one owner until its lease ends; `reread_at` when it is to be read once more."""

    conversation_id: str
    lease_epoch: int
    text: str
    author: str | None
    timestamp: datetime
    created_at: datetime
    attempts: int
    rescues: int
    reread_at: datetime | None = None

    @property
    def fence(self) -> tuple[str, int]:
        return self.conversation_id, self.lease_epoch


@dataclass(frozen=True, slots=True)
class Completed:
    """`cache_key` when the answer is the model's own and may serve equal texts; `tallies` are counted with it."""

    claim: Claim
    analysis: Analysis
    model: str
    cache_key: bytes | None = None
    tallies: tuple[Tally, ...] = ()


@dataclass(frozen=True, slots=True)
class Skipped:
    claim: Claim
    reason: str
    tallies: tuple[Tally, ...] = (Tally.SKIPPED,)


@dataclass(frozen=True, slots=True)
class Failed:
    claim: Claim
    code: str
    error: str
    raw_answer: str | None = None


@dataclass(frozen=True, slots=True)
class Released:
    """Back to pending, due at `due_at`; `spent_attempt` when an unusable answer is the reason."""

    claim: Claim
    due_at: datetime
    spent_attempt: bool = False


Outcome = Completed | Skipped | Failed | Released


def claim_batch(
    session: WriteSession, *, limit: int, now: datetime, lease: timedelta, most_rescues: int | None = None
) -> list[Claim]:
    """Take up to `limit` due conversations until `now + lease`, longest due first, and a suspect beside them.

    One statement claims, so no two workers get the same row. A row that was still claimed by a dead owner counts a
    rescue. One rescued twice is a suspect: of those a process has one in hand, and one that the next death would end
    is in hand all alone; so nobody is failed as poison for what another row did. `most_rescues`: of any row that this
    process has in hand, None when it has none.
    Source: https://www.postgresql.org/docs/current/sql-select.html (SKIP LOCKED)
    """
    suspects: list[Claim] = []
    if (most_rescues or 0) < _SUSPECT_RESCUES:
        suspect = _next_suspect(session, now=now)
        if suspect is not None and suspect.rescues == MAX_RESCUES:
            return [] if most_rescues is not None else _claim(session, suspect.ids, until=now + lease)
        if suspect is not None:
            suspects = _claim(session, suspect.ids, until=now + lease)
    innocents = (
        select(Conversation.id)
        .where(Conversation.due_at <= now, _RESCUES_IF_CLAIMED < _SUSPECT_RESCUES)
        .order_by(Conversation.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")  # PostgreSQL runs a CTE once; a subquery it may run for every row, and then the limit holds nothing
    )
    return suspects + _claim(session, select(innocents.c.id), until=now + lease)


def save_outcomes(session: WriteSession, outcomes: Sequence[Outcome], *, now: datetime) -> list[Claim]:
    """Move each claimed row on, in one transaction; returns the claims that the fence refused (taken over)."""
    held = _still_held(session, [outcome.claim for outcome in outcomes])
    fenced = [outcome.claim for outcome in outcomes if outcome.claim.fence not in held]
    outcomes = [outcome for outcome in outcomes if outcome.claim.fence in held]
    _save_completed(session, [outcome for outcome in outcomes if isinstance(outcome, Completed)], now=now)
    add_tallies(session, Counter(tally for outcome in outcomes for tally in _tallies_of(outcome)))
    for outcome in outcomes:
        match outcome:
            case Completed():
                pass
            case Skipped():
                _end(session, outcome.claim, status=Status.SKIPPED, skip_reason=outcome.reason)
            case Failed():
                _save_failed(session, outcome)
            case Released():
                spent = outcome.claim.attempts + int(outcome.spent_attempt)
                _move(session, outcome.claim, status=Status.PENDING, due_at=outcome.due_at, attempts=spent)
    return fenced


def renew_leases(session: WriteSession, claims: Sequence[Claim], *, until: datetime) -> None:
    held = [
        conversation_id for conversation_id, _ in _still_held(session, claims).intersection(c.fence for c in claims)
    ]
    session.execute(update(Conversation).where(Conversation.id.in_(held)).values(due_at=until))


def release_abandoned(session: WriteSession, *, now: datetime) -> int:
    """Make every claimed row due at once; only for the one who holds the queue alone. Returns how many there were.

    One that is due already keeps its place: suspects take turns, so that many deaths do not fall on the same.
    """
    statement = (
        update(Conversation)
        .where(Conversation.due_at > now, Conversation.status == Status.PROCESSING)
        .values(due_at=now)
    )
    return session.execute(statement).rowcount


def purge_cache(session: WriteSession, *, created_before: datetime) -> int:
    return session.execute(delete(CachedAnalysis).where(CachedAnalysis.created_at < created_before)).rowcount


def retry_conversation(session: WriteSession, conversation_id: str, *, now: datetime) -> None:
    """Send a failed conversation back to pending with its counts at zero.

    Raises: NotFound, Conflict when it has not failed.
    """
    status = session.scalar(select(Conversation.status).where(Conversation.id == conversation_id))
    if status is None:
        raise NotFound("There is no conversation with this id.")
    if status != Status.FAILED:
        raise Conflict("Only a failed conversation can be sent back; this one has not failed.")
    session.execute(_retry_statement(now).where(Conversation.id == conversation_id))


def retry_failed(session: WriteSession, *, now: datetime) -> int:
    """Send every failed conversation back to pending; returns how many."""
    set_aside = sql("status IN ('failed', 'skipped')")  # the condition of the index, literally: SQLite needs it so
    return session.execute(_retry_statement(now).where(Conversation.status == Status.FAILED, set_aside)).rowcount


@dataclass(frozen=True, slots=True)
class _Suspect:
    ids: Select[str]
    rescues: int


def _next_suspect(session: WriteSession, *, now: datetime) -> _Suspect | None:
    """The suspect that has been due longest, when it is not yet poison: that is failed here."""
    statement = (
        select(Conversation.id, _RESCUES_IF_CLAIMED.label("rescues"))
        .where(sql("rescues > 0"), Conversation.due_at <= now, _RESCUES_IF_CLAIMED >= _SUSPECT_RESCUES)
        .order_by(Conversation.due_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    while (row := session.execute(statement).one_or_none()) is not None:
        ids = select(Conversation.id).where(Conversation.id == row.id)
        if row.rescues <= MAX_RESCUES:
            return _Suspect(ids, row.rescues)
        for claim in _claim(session, ids, until=now):
            _save_failed(
                session, Failed(claim, "poison", f"The service died {claim.rescues} times while it had this row.")
            )
            add_tallies(session, Counter([Tally.POISON, *([Tally.REREAD_KEPT] if claim.reread_at else [])]))
    return None


def _claim(session: WriteSession, ids: Select[str], *, until: datetime) -> list[Claim]:
    statement = (
        update(Conversation)
        .where(Conversation.id.in_(ids))
        .values(
            status=Status.PROCESSING,
            due_at=until,
            lease_epoch=Conversation.lease_epoch + 1,
            rescues=_RESCUES_IF_CLAIMED,
        )
        .returning(
            Conversation.id,
            Conversation.lease_epoch,
            Conversation.text,
            Conversation.author,
            Conversation.timestamp,
            Conversation.created_at,
            Conversation.attempts,
            Conversation.rescues,
            Conversation.reread_at,
        )
    )
    claims = [_to_claim(row) for row in session.execute(statement)]
    return sorted(claims, key=lambda claim: claim.conversation_id)


def _to_claim(row: Row[*tuple[Any, ...]]) -> Claim:
    return Claim(
        conversation_id=row.id,
        lease_epoch=row.lease_epoch,
        text=row.text,
        author=row.author,
        timestamp=row.timestamp,
        created_at=row.created_at,
        attempts=row.attempts,
        rescues=row.rescues,
        reread_at=row.reread_at,
    )


def _still_held(session: WriteSession, claims: Sequence[Claim]) -> set[tuple[str, int]]:
    """The fence: which claims on these rows still hold, by id and epoch; the rows are locked until the commit.

    Two claims on one row may come together, when its lease ended in the hands of a worker that then took it again.
    """
    if not claims:
        return set()
    statement = (
        select(Conversation.id, Conversation.lease_epoch)
        .where(Conversation.id.in_({claim.conversation_id for claim in claims}))
        .where(Conversation.status == Status.PROCESSING)
        .order_by(Conversation.id)
        .with_for_update()
    )
    return {(row.id, row.lease_epoch) for row in session.execute(statement)}


def _save_completed(session: WriteSession, outcomes: Sequence[Completed], *, now: datetime) -> None:
    if not outcomes:
        return
    ids = [outcome.claim.conversation_id for outcome in outcomes]
    done = {"status": Status.COMPLETED, "due_at": None, "raw_answer": None, "reread_at": None}
    session.execute(update(Conversation).where(Conversation.id.in_(ids)).values(**done))
    new = [outcome for outcome in outcomes if outcome.claim.reread_at is None]
    if new:
        add_insights(session, [_insight_row(outcome, now=now) for outcome in new])
    _replace_insights(session, [outcome for outcome in outcomes if outcome.claim.reread_at is not None], now=now)
    _save_to_cache(session, outcomes, now=now)


def _save_to_cache(session: WriteSession, outcomes: Sequence[Completed], *, now: datetime) -> None:
    """Only what the model itself said, and what passed every check; one that was kept too long is replaced."""
    rows = [
        {
            "key": outcome.cache_key,
            "conversation_id": outcome.claim.conversation_id,
            "analysis": outcome.analysis.model_dump(mode="json"),
            "model": outcome.model,
            "created_at": now,
        }
        for outcome in sorted(outcomes, key=lambda outcome: outcome.cache_key or b"")  # replicas lock nothing crosswise
        if outcome.cache_key is not None
    ]
    if rows:
        statement = insert_of(session)(CachedAnalysis)
        newer = {name: statement.excluded[name] for name in ("conversation_id", "analysis", "model", "created_at")}
        session.execute(statement.on_conflict_do_update(index_elements=["key"], set_=newer), rows)


def _replace_insights(session: WriteSession, outcomes: Sequence[Completed], *, now: datetime) -> None:
    """The fence has let through only the newest reading; what a person corrected stays corrected."""
    if not outcomes:
        return
    ids = [outcome.claim.conversation_id for outcome in outcomes]
    stored = find_insights(session, ids)  # locked before corrections are read: nobody corrects in between
    corrections = find_corrections(session, ids)
    changes: list[Change] = []
    for outcome in outcomes:
        conversation_id, said = outcome.claim.conversation_id, _insight_row(outcome, now=now)
        if (correction := corrections.get(conversation_id)) is not None:
            said |= keep_correction(session, conversation_id, correction, said=said)
        changes.append(Change(stored[conversation_id], said))
    change_insights(session, changes)


def _insight_row(outcome: Completed, *, now: datetime) -> dict[str, Any]:
    claim, analysis = outcome.claim, outcome.analysis
    return {
        "conversation_id": claim.conversation_id,
        "timestamp": claim.timestamp,
        "text": claim.text,
        "author": claim.author,
        **judged(score=analysis.sentiment_score, confidence=analysis.confidence, clusters=analysis.clusters),
        "reasoning": analysis.reasoning,
        "grok_analysis": analysis.model_dump(mode="json", include=_ONLY_SHOWN),
        "model": outcome.model,
        "created_at": now,
    }


def _save_failed(session: WriteSession, outcome: Failed) -> None:
    _end(
        session,
        outcome.claim,
        status=Status.FAILED,
        error_code=outcome.code,
        error=outcome.error,
        raw_answer=outcome.raw_answer,
        attempts=outcome.claim.attempts + int(outcome.code == "reply_invalid"),
    )


def _end(session: WriteSession, claim: Claim, **values: Any) -> None:
    """A row that was to be read once more and gave no new insight keeps the one it has."""
    if claim.reread_at is not None:
        values = {"status": Status.COMPLETED, "reread_at": None}
    _move(session, claim, due_at=None, **values)


def _tallies_of(outcome: Outcome) -> tuple[Tally, ...]:
    match outcome:
        case Completed():
            return outcome.tallies
        case Skipped() | Failed() if outcome.claim.reread_at is not None:
            return (Tally.REREAD_KEPT,)
        case Skipped():
            return outcome.tallies
        case Failed() | Released():
            return ()


def _move(session: WriteSession, claim: Claim, **values: Any) -> None:
    session.execute(update(Conversation).where(Conversation.id == claim.conversation_id).values(**values))


def _retry_statement(now: datetime) -> Any:
    return update(Conversation).values(
        status=Status.PENDING,
        due_at=now,
        attempts=0,
        rescues=0,
        error_code=None,
        error=None,
        raw_answer=None,
    )
