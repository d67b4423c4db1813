"""Every statement that writes, and with it every move of a conversation from one status to the next.

    accept -> pending --claim_batch--> processing --save_outcomes--> completed | failed | skipped
                 ^                          |
                 |<---- released, or the owner died (release_abandoned)
                 |<---- retry_failed ------------------------------ failed

An outcome is saved only under the `lease_epoch` it was claimed with (the fence): who lost its claim changes nothing.
"""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import orjson
from sqlalchemy import Row, case, delete, insert, select, update

from database import WriteSession
from errors import Conflict, IdempotencyMismatch, NotFound
from models import Conversation, IdempotencyKey, InsightRow, InsightTopic
from schemas import Analysis, ConversationIn, Status

MAX_RESCUES = 3  # a row whose owner died this often is taken to be the cause
IDEMPOTENCY_TTL = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Accepted:
    """Where an accepted conversation is; a `duplicate` was stored before, a `conflict` was not stored at all."""

    conversation_id: str
    result: Literal["accepted", "duplicate", "conflict"]


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A client's `Idempotency-Key` and what it came with, both hashed."""

    key_hash: str
    body_hash: str

    @classmethod
    def of(cls, *, client: str, route: str, key: str, body: bytes) -> "Idempotency":
        return cls(_hash(f"{client}\n{route}\n{key}".encode()), _hash(body))


@dataclass(frozen=True, slots=True)
class Claim:
    """A conversation in the hands of one owner until its lease ends."""

    conversation_id: str
    lease_epoch: int
    text: str
    author: str | None
    timestamp: datetime
    created_at: datetime
    attempts: int
    rescues: int


@dataclass(frozen=True, slots=True)
class Completed:
    claim: Claim
    analysis: Analysis
    model: str


@dataclass(frozen=True, slots=True)
class Skipped:
    claim: Claim
    reason: str


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


def accept(
    session: WriteSession,
    conversations: Sequence[ConversationIn],
    *,
    now: datetime,
    idempotency: Idempotency | None = None,
) -> list[Accepted]:
    """Store what is new as pending, due at once; say of each conversation where it is, in the order given.

    Raises: IdempotencyMismatch when the key was used with another body.
    """
    if idempotency is not None and (earlier := _recall_answer(session, idempotency, now=now)) is not None:
        return earlier
    known = _find_external_ids(session, [c.external_id for c in conversations if c.external_id is not None])
    outcomes: list[Accepted] = []
    rows: list[dict[str, Any]] = []
    for conversation in conversations:
        row = _new_row(conversation, now=now)
        earlier_one = known.get(conversation.external_id) if conversation.external_id is not None else None
        if earlier_one is None:
            rows.append(row)
            outcomes.append(Accepted(row["id"], "accepted"))
            if conversation.external_id is not None:
                known[conversation.external_id] = (row["id"], row["content_hash"])
        else:
            same = earlier_one[1] == row["content_hash"]
            outcomes.append(Accepted(earlier_one[0], "duplicate" if same else "conflict"))
    if rows:
        session.execute(insert(Conversation), rows)
    if idempotency is not None:
        _remember_answer(session, idempotency, outcomes, now=now)
    return outcomes


def claim_batch(session: WriteSession, *, limit: int, now: datetime, lease: timedelta) -> list[Claim]:
    """Take up to `limit` due conversations until `now + lease`, longest due first.

    One statement claims, so no two workers get the same row. A row that was still claimed by a dead owner counts a
    rescue; one rescued more than MAX_RESCUES times is failed here as poison and not returned.
    Source: https://www.postgresql.org/docs/current/sql-select.html (SKIP LOCKED)
    """
    due = (
        select(Conversation.id)
        .where(Conversation.due_at <= now)
        .order_by(Conversation.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    statement = (
        update(Conversation)
        .where(Conversation.id.in_(due.scalar_subquery()))
        .values(
            status=Status.PROCESSING,
            due_at=now + lease,
            lease_epoch=Conversation.lease_epoch + 1,
            rescues=Conversation.rescues + case((Conversation.status == Status.PROCESSING, 1), else_=0),
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
        )
    )
    claims = [_to_claim(row) for row in session.execute(statement)]
    claims.sort(key=lambda claim: claim.conversation_id)
    poison = [claim for claim in claims if claim.rescues > MAX_RESCUES]
    for claim in poison:
        _save_failed(session, Failed(claim, "poison", f"The service died {claim.rescues} times while it had this row."))
    return [claim for claim in claims if claim.rescues <= MAX_RESCUES]


def save_outcomes(session: WriteSession, outcomes: Sequence[Outcome], *, now: datetime) -> list[Claim]:
    """Move each claimed row on, in one transaction; returns the claims that the fence refused (taken over)."""
    held = _still_held(session, [outcome.claim for outcome in outcomes])
    fenced = [outcome.claim for outcome in outcomes if outcome.claim.conversation_id not in held]
    outcomes = [outcome for outcome in outcomes if outcome.claim.conversation_id in held]
    _save_completed(session, [outcome for outcome in outcomes if isinstance(outcome, Completed)], now=now)
    for outcome in outcomes:
        match outcome:
            case Completed():
                pass
            case Skipped():
                _move(session, outcome.claim, status=Status.SKIPPED, due_at=None, skip_reason=outcome.reason)
            case Failed():
                _save_failed(session, outcome)
            case Released():
                spent = outcome.claim.attempts + int(outcome.spent_attempt)
                _move(session, outcome.claim, status=Status.PENDING, due_at=outcome.due_at, attempts=spent)
    return fenced


def renew_leases(session: WriteSession, claims: Sequence[Claim], *, until: datetime) -> None:
    held = _still_held(session, claims)
    session.execute(update(Conversation).where(Conversation.id.in_(held)).values(due_at=until))


def release_abandoned(session: WriteSession, *, now: datetime) -> int:
    """Make every claimed row due at once; only for the one who holds the queue alone. Returns how many there were."""
    statement = (
        update(Conversation)
        .where(Conversation.due_at.is_not(None), Conversation.status == Status.PROCESSING)
        .values(due_at=now)
    )
    return session.execute(statement).rowcount


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
    return session.execute(_retry_statement(now).where(Conversation.status == Status.FAILED)).rowcount


def purge_idempotency_keys(session: WriteSession, *, now: datetime) -> int:
    return session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < now - IDEMPOTENCY_TTL)).rowcount


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
    )


def _new_row(conversation: ConversationIn, *, now: datetime) -> dict[str, Any]:
    return {
        "id": _new_conversation_id(now),
        "text": conversation.text,
        "author": conversation.author,
        "timestamp": conversation.timestamp or now,
        "raw_data": conversation.raw_data,
        "external_id": conversation.external_id,
        "content_hash": None if conversation.external_id is None else _content_hash(conversation),
        "status": Status.PENDING,
        "created_at": now,
        "due_at": now,
    }


def _new_conversation_id(now: datetime) -> str:
    """`conv_`, 48 bits of milliseconds so that inserts stay in order, 80 random bits so that none meets another."""
    return f"conv_{int(now.timestamp() * 1000):012x}{secrets.token_hex(10)}"


def _content_hash(conversation: ConversationIn) -> str:
    """Of what was sent: a timestamp left out stays left out, so that sending again later is still the same."""
    sent = conversation.model_dump(mode="json", exclude={"external_id"})
    return _hash(orjson.dumps(sent, option=orjson.OPT_SORT_KEYS))


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _find_external_ids(session: WriteSession, external_ids: Sequence[str]) -> dict[str, tuple[str, str]]:
    if not external_ids:
        return {}
    statement = select(Conversation.external_id, Conversation.id, Conversation.content_hash).where(
        Conversation.external_id.in_(external_ids)
    )
    return {str(row[0]): (row[1], str(row[2])) for row in session.execute(statement)}


def _recall_answer(session: WriteSession, idempotency: Idempotency, *, now: datetime) -> list[Accepted] | None:
    row = session.execute(
        select(IdempotencyKey.body_hash, IdempotencyKey.outcomes).where(
            IdempotencyKey.key_hash == idempotency.key_hash, IdempotencyKey.created_at >= now - IDEMPOTENCY_TTL
        )
    ).one_or_none()
    if row is None:
        return None
    if row.body_hash != idempotency.body_hash:
        raise IdempotencyMismatch("This Idempotency-Key was used with another body; use a new key for a new request.")
    return [Accepted(conversation_id, result) for conversation_id, result in row.outcomes]


def _remember_answer(
    session: WriteSession, idempotency: Idempotency, outcomes: Sequence[Accepted], *, now: datetime
) -> None:
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.key_hash == idempotency.key_hash))  # an expired one
    answer = [[outcome.conversation_id, outcome.result] for outcome in outcomes]
    row = {"key_hash": idempotency.key_hash, "body_hash": idempotency.body_hash, "outcomes": answer, "created_at": now}
    session.execute(insert(IdempotencyKey), [row])


def _still_held(session: WriteSession, claims: Sequence[Claim]) -> set[str]:
    """The fence: ids whose row is still processing under the epoch of the claim; locked until the commit."""
    if not claims:
        return set()
    epochs = {claim.conversation_id: claim.lease_epoch for claim in claims}
    statement = (
        select(Conversation.id, Conversation.lease_epoch)
        .where(Conversation.id.in_(epochs), Conversation.status == Status.PROCESSING)
        .with_for_update()
    )
    return {row.id for row in session.execute(statement) if row.lease_epoch == epochs[row.id]}


def _save_completed(session: WriteSession, outcomes: Sequence[Completed], *, now: datetime) -> None:
    if not outcomes:
        return
    ids = [outcome.claim.conversation_id for outcome in outcomes]
    session.execute(
        update(Conversation)
        .where(Conversation.id.in_(ids))
        .values(status=Status.COMPLETED, due_at=None, raw_answer=None)
    )
    rows = [_insight_row(outcome, now=now) for outcome in outcomes]
    insight_ids = session.scalars(insert(InsightRow).returning(InsightRow.id, sort_by_parameter_order=True), rows).all()
    topics = [
        {"topic": topic, "timestamp": outcome.claim.timestamp, "insight_id": insight_id}
        for outcome, insight_id in zip(outcomes, insight_ids, strict=True)
        for topic in dict.fromkeys(outcome.analysis.clusters)
    ]
    session.execute(insert(InsightTopic), topics)


def _insight_row(outcome: Completed, *, now: datetime) -> dict[str, Any]:
    claim, analysis = outcome.claim, outcome.analysis
    clusters = list(analysis.clusters)
    return {
        "conversation_id": claim.conversation_id,
        "timestamp": claim.timestamp,
        "text": claim.text,
        "author": claim.author,
        "sentiment": analysis.sentiment,
        "sentiment_score": analysis.sentiment_score,
        "clusters": clusters,
        "confidence": round(analysis.confidence, 2),  # two decimals make counts by min_confidence exact
        "reasoning": analysis.reasoning,
        "grok_analysis": {"summary": analysis.summary, "language": analysis.language},
        "model": outcome.model,
        "created_at": now,
    }


def _save_failed(session: WriteSession, outcome: Failed) -> None:
    _move(
        session,
        outcome.claim,
        status=Status.FAILED,
        due_at=None,
        error_code=outcome.code,
        error=outcome.error,
        raw_answer=outcome.raw_answer,
        attempts=outcome.claim.attempts + int(outcome.code == "reply_invalid"),
    )


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
