"""Take conversations in: what is new becomes a pending row, what was sent before is recognised."""

import hashlib
import os
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import orjson
from sqlalchemy import delete, insert, select

from database import WriteSession
from errors import IdempotencyMismatch
from models import Conversation, IdempotencyKey
from schemas import ConversationIn, Status
from survival import pass_by

IDEMPOTENCY_TTL = timedelta(hours=24)
_MOST_PARAMETERS = 500  # of one IN list
_INSERT_CONVERSATIONS = insert(Conversation).returning(Conversation.id)
# Ids must be unique, not secret; the kernel's random bytes would be a system call for each row.
_RANDOM = random.Random(secrets.randbits(256))
os.register_at_fork(after_in_child=lambda: _RANDOM.seed(secrets.randbits(256)))  # two processes draw other ids


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
class Submission:
    """What one request sent: conversations, checked, and its idempotency key if it had one."""

    conversations: Sequence[ConversationIn]
    idempotency: Idempotency | None = None


def accept(
    session: WriteSession, *, submissions: Sequence[Submission], now: datetime
) -> list[list[Accepted] | IdempotencyMismatch]:
    """Store what is new as pending, due at once; say for each submission where its conversations are, in order.

    All new rows go in by one statement. A submission whose key was used with another body gets the mismatch instead.
    """
    known = _find_external_ids(session, submissions)
    rows: list[dict[str, Any]] = []
    answers = [_accept_one(session, submission, known=known, rows=rows, now=now) for submission in submissions]
    if rows:
        rows.sort(key=lambda row: row["external_id"] or "")  # replicas that store the same ones lock nothing crosswise
        # RETURNING makes SQLAlchemy send one INSERT with many VALUES: one statement, one change of thread
        session.execute(_INSERT_CONVERSATIONS, rows)
    pass_by("in_acceptance")
    return answers


def purge_idempotency_keys(session: WriteSession, *, now: datetime) -> int:
    return session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < now - IDEMPOTENCY_TTL)).rowcount


def _accept_one(
    session: WriteSession,
    submission: Submission,
    *,
    known: dict[str, tuple[str, str]],
    rows: list[dict[str, Any]],
    now: datetime,
) -> list[Accepted] | IdempotencyMismatch:
    """Add the submission's new rows to `rows`, and its external ids to `known`."""
    if submission.idempotency is not None:
        try:
            earlier = _recall_answer(session, submission.idempotency, now=now)
        except IdempotencyMismatch as mismatch:
            return mismatch
        if earlier is not None:
            return earlier
    outcomes = [_place(conversation, known=known, rows=rows, now=now) for conversation in submission.conversations]
    if submission.idempotency is not None:
        _remember_answer(session, submission.idempotency, outcomes, now=now)
    return outcomes


def _place(
    conversation: ConversationIn, *, known: dict[str, tuple[str, str]], rows: list[dict[str, Any]], now: datetime
) -> Accepted:
    row = _new_row(conversation, now=now)
    external_id = conversation.external_id
    if external_id is not None:
        if (earlier := known.get(external_id)) is not None:
            return Accepted(earlier[0], "duplicate" if earlier[1] == row["content_hash"] else "conflict")
        known[external_id] = (row["id"], row["content_hash"])
    rows.append(row)
    return Accepted(row["id"], "accepted")


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
    return f"{_id_prefix(now)}{_RANDOM.getrandbits(80):020x}"


def first_id_of(moment: datetime) -> str:
    """No id that was made at this moment or later sorts before it."""
    return f"{_id_prefix(moment)}{0:020x}"


def _id_prefix(moment: datetime) -> str:
    return f"conv_{max(0, int(moment.timestamp() * 1000)):012x}"


def _content_hash(conversation: ConversationIn) -> str:
    """Of what was sent: a timestamp left out stays left out, so that sending again later is still the same."""
    sent = conversation.model_dump(mode="json", exclude={"external_id"})
    return _hash(orjson.dumps(sent, option=orjson.OPT_SORT_KEYS))


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _find_external_ids(session: WriteSession, submissions: Sequence[Submission]) -> dict[str, tuple[str, str]]:
    """Id and content hash of every conversation that is stored under one of the submissions' external ids."""
    wanted = [c.external_id for submission in submissions for c in submission.conversations if c.external_id]
    found: dict[str, tuple[str, str]] = {}
    for start in range(0, len(wanted), _MOST_PARAMETERS):
        statement = select(Conversation.external_id, Conversation.id, Conversation.content_hash).where(
            Conversation.external_id.in_(wanted[start : start + _MOST_PARAMETERS])
        )
        found |= {str(row[0]): (row[1], str(row[2])) for row in session.execute(statement)}
    return found


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
    # Only one that has expired: what a replica has stored since we looked must be in the way of ours.
    expired = IdempotencyKey.created_at < now - IDEMPOTENCY_TTL
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.key_hash == idempotency.key_hash, expired))
    answer = [[outcome.conversation_id, outcome.result] for outcome in outcomes]
    row = {"key_hash": idempotency.key_hash, "body_hash": idempotency.body_hash, "outcomes": answer, "created_at": now}
    session.execute(insert(IdempotencyKey), [row])
