"""Orders to read conversations again: kept until the last of them has been sent back to the queue.

A conversation that is read again keeps its insight until there is a new one, and the fence lets only the newest claim
save: a newer result is never overwritten by an older one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update

from database import WriteSession
from errors import Conflict, NotFound
from models import Conversation, ReanalysisRow
from parameters import Position
from schemas import Status


@dataclass(frozen=True, slots=True)
class Step:
    """The next conversations of an order, newest first, from after `since` up to `until`.

    What was said of a text since `ordered_at` may answer an equal one.
    """

    order: int
    ordered_at: datetime
    since: Position | None
    until: Position
    conversation_ids: Sequence[str]


def order_reanalysis(session: WriteSession, filters: Mapping[str, Any], *, matched: int, now: datetime) -> int:
    """Returns its number."""
    row = {"filters": dict(filters), "requested_at": now, "matched": matched}
    return session.scalars(insert(ReanalysisRow).returning(ReanalysisRow.id), [row]).one()


def requeue(session: WriteSession, step: Step, *, now: datetime) -> int:
    """Send these back to pending, once: 0 when the order was taken further, or ended, in the meantime."""
    since = step.since
    place = ReanalysisRow.insight_id.is_(None) if since is None else ReanalysisRow.insight_id == since.row_id
    moved = session.execute(
        update(ReanalysisRow)
        .where(ReanalysisRow.id == step.order, ReanalysisRow.ended_at.is_(None), place)
        .values(timestamp=step.until.timestamp, insight_id=step.until.row_id)
    ).rowcount
    if not moved:
        return 0
    again = {"status": Status.PENDING, "due_at": now, "reread_at": step.ordered_at, "attempts": 0, "rescues": 0}
    ready = (Conversation.id.in_(step.conversation_ids), Conversation.status == Status.COMPLETED)
    sent = session.execute(update(Conversation).where(*ready).values(**again)).rowcount
    counted = {"requeued": ReanalysisRow.requeued + sent}
    session.execute(update(ReanalysisRow).where(ReanalysisRow.id == step.order).values(**counted))
    return sent


def end_reanalysis(session: WriteSession, order: int, *, now: datetime) -> None:
    """What has been sent back is read; nothing more is. Raises: NotFound; Conflict, when it has ended."""
    left = update(ReanalysisRow).where(ReanalysisRow.id == order, ReanalysisRow.ended_at.is_(None))
    if session.execute(left.values(ended_at=now)).rowcount:
        return
    if session.scalar(select(ReanalysisRow.id).where(ReanalysisRow.id == order)) is None:
        raise NotFound("There is no reanalysis with this number.")
    raise Conflict("This reanalysis has ended: nothing is left to be stopped.")
