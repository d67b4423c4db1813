"""Corrections: what a person says of a conversation goes before what the model said, which is kept beside it.

model's answer --correct--> the correction is what reads see --withdraw--> the model's answer again
                                 ^ read again: the model's new answer is kept beside it
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select, update

from database import WriteSession
from errors import Conflict, NotFound
from models import Conversation, CorrectionRow
from schemas import CorrectionIn, Sentiment
from store.insights import Change, change_insights, find_insights, judged
from store.tallies import insert_of

# Nobody measured a score: a correction that contradicts the model gets the middle of what its label stands for.
_MIDDLES = {Sentiment.POSITIVE: 0.55, Sentiment.NEUTRAL: 0.0, Sentiment.NEGATIVE: -0.55}


@dataclass(frozen=True, slots=True)
class Correction:
    """What a person said; None where they said nothing."""

    sentiment: Sentiment | None
    topics: tuple[str, ...] | None

    def applied(self, *, score: float, confidence: float, clusters: Iterable[str]) -> dict[str, Any]:
        """The insight's columns: what the model said, but for what a person knows better."""
        if self.sentiment is not None:
            agrees = Sentiment.of_score(score) is self.sentiment
            score, confidence = score if agrees else _MIDDLES[self.sentiment], 1.0
        return judged(score=score, confidence=confidence, clusters=self.topics or clusters)


def correct(session: WriteSession, conversation_id: str, *, wanted: CorrectionIn, now: datetime) -> None:
    """Put a correction in the place of an earlier one, or of none.

    Raises: NotFound; Conflict, when the conversation has not been read yet.
    """
    stored = find_insights(session, [conversation_id]).get(conversation_id)
    if stored is None:
        raise _refusal(session, conversation_id)
    earlier = session.execute(select(CorrectionRow).where(_of(conversation_id))).mappings().one_or_none()
    said = {
        "model_score": stored.score if earlier is None else earlier["model_score"],
        "model_clusters": list(stored.clusters) if earlier is None else earlier["model_clusters"],
        "model_confidence": stored.confidence if earlier is None else earlier["model_confidence"],
    }
    topics = None if wanted.topics is None else list(wanted.topics)
    given = {"sentiment": wanted.sentiment, "topics": topics, "note": wanted.note, "corrected_at": now}
    statement = insert_of(session)(CorrectionRow).values(conversation_id=conversation_id, **given, **said)
    session.execute(statement.on_conflict_do_update(index_elements=["conversation_id"], set_=given))
    correction = Correction(wanted.sentiment, None if topics is None else tuple(topics))
    change_insights(session, [Change(stored, {**_applied(correction, said), "corrected_at": now})])


def withdraw_correction(session: WriteSession, conversation_id: str) -> None:
    """What the model said is true again. Raises: NotFound, when there is no correction."""
    stored = find_insights(session, [conversation_id]).get(conversation_id)  # locked before its correction is read
    said = session.execute(select(CorrectionRow).where(_of(conversation_id))).mappings().one_or_none()
    if stored is None or said is None:
        raise NotFound("There is no correction of a conversation with this id.")
    change_insights(session, [Change(stored, {**_applied(Correction(None, None), said), "corrected_at": None})])
    session.execute(delete(CorrectionRow).where(_of(conversation_id)))


def find_corrections(session: WriteSession, conversation_ids: Iterable[str]) -> dict[str, Correction]:
    columns = (CorrectionRow.conversation_id, CorrectionRow.sentiment, CorrectionRow.topics)
    statement = select(*columns).where(CorrectionRow.conversation_id.in_(conversation_ids))
    return {
        row.conversation_id: Correction(
            None if row.sentiment is None else Sentiment(row.sentiment),
            None if row.topics is None else tuple(row.topics),
        )
        for row in session.execute(statement)
    }


def keep_correction(
    session: WriteSession, conversation_id: str, correction: Correction, *, said: Mapping[str, Any]
) -> dict[str, Any]:
    """Put the model's new answer beside the correction; returns the columns that the correction makes of it."""
    score, confidence, clusters = said["sentiment_score"], said["confidence"], said["clusters"]
    answer = {"model_score": score, "model_confidence": confidence, "model_clusters": clusters}
    session.execute(update(CorrectionRow).where(_of(conversation_id)).values(**answer))
    return correction.applied(score=score, confidence=confidence, clusters=clusters)


def _applied(correction: Correction, said: Mapping[Any, Any]) -> dict[str, Any]:
    return correction.applied(
        score=said["model_score"], confidence=said["model_confidence"], clusters=said["model_clusters"]
    )


def _of(conversation_id: str) -> Any:
    return CorrectionRow.conversation_id == conversation_id


def _refusal(session: WriteSession, conversation_id: str) -> NotFound | Conflict:
    if session.scalar(select(Conversation.id).where(Conversation.id == conversation_id)) is None:
        return NotFound("There is no conversation with this id.")
    return Conflict("Only what has been read can be corrected; this conversation has no insight (yet).")
