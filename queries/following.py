"""What a live stream follows: the insights that are new since its last turn, and the counts beside them.

A stream has a position: the id up to which it has been told everything. Ids rise as insights are written, but where
several processes write (PostgreSQL), a higher one may be seen first: its gap is waited for before anything beyond it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, exists, func, select

from answers import Insight
from database import ReadSession
from models import InsightRow, InsightTopic
from parameters import EventQuery, InsightFilter
from queries.counting import count_insights
from queries.insights import INSIGHT_COLUMNS, to_insight
from queries.reading import oldest_due, queue_depth

MOST_A_TURN = 100  # a turn is a second: more than anyone reads, and at most 1 MB of tweets
MOST_MISSED = 1_000  # ten turns to catch up with; whoever is further behind is better served by pages
GAP_FILLS_WITHIN = timedelta(seconds=5)  # a commit takes milliseconds; by then the id was rolled back or erased


@dataclass(frozen=True, slots=True)
class Followed:
    """What is new: `skipped` insights are passed over, up to the id `start`; then come `insights`, each with its id."""

    skipped: int
    start: int
    insights: list[tuple[int, Insight]]
    position: int


@dataclass(frozen=True, slots=True)
class LiveCounts:
    queue_size: int
    oldest_due_at: datetime | None
    insights_total: int


def follow_insights(session: ReadSession, query: EventQuery, *, after: int, now: datetime) -> Followed:
    """The next insights that match, at most MOST_A_TURN; who has missed more than MOST_MISSED gets only the newest."""
    newest = _newest_id(session)
    start = min(after, newest)  # the newest were erased, and SQLite gives their ids away again
    skipped = 0
    if newest - start > MOST_MISSED:
        skipped = newest - MOST_A_TURN - start
        start += skipped
    settled = _settled_id(session, after=start, now=now)
    statement = (
        select(*INSIGHT_COLUMNS)
        .where(InsightRow.id > start, InsightRow.id <= settled, *_matching(query))
        .order_by(InsightRow.id)
        .limit(MOST_A_TURN)
    )
    found = [(row.id, to_insight(row)) for row in session.execute(statement)]
    position = found[-1][0] if len(found) == MOST_A_TURN else settled
    return Followed(skipped, start, found, position)


def newest_position(session: ReadSession, *, now: datetime) -> int:
    """Where a stream begins that has been told nothing: at the newest insight, or before a gap that may yet fill."""
    return _settled_id(session, after=max(0, _newest_id(session) - MOST_A_TURN), now=now)


def count_live(session: ReadSession, *, now: datetime) -> LiveCounts:
    return LiveCounts(queue_depth(session), oldest_due(session, now=now), count_insights(session, InsightFilter()))


def _newest_id(session: ReadSession) -> int:
    return session.scalar(select(func.max(InsightRow.id))) or 0


def _settled_id(session: ReadSession, *, after: int, now: datetime) -> int:
    """The last id before which nothing can appear any more."""
    written = (
        select(InsightRow.id, InsightRow.created_at)
        .where(InsightRow.id > after)
        .order_by(InsightRow.id)
        .limit(MOST_MISSED)
    )
    settled = after
    for row in session.execute(written):
        if row.id > settled + 1 and now - row.created_at < GAP_FILLS_WITHIN:
            break
        settled = row.id
    return settled


def _matching(query: EventQuery) -> list[ColumnElement[bool]]:
    """Like the filters of `GET /insights`; topics are looked up insight by insight, for these are few."""
    wanted: list[ColumnElement[bool]] = []
    if query.min_confidence is not None:
        wanted.append(InsightRow.confidence >= query.min_confidence)
    if query.sentiment is not None:
        wanted.append(InsightRow.sentiment == query.sentiment)
    if query.topic:
        of_it = (
            InsightTopic.topic.in_(query.topic),
            InsightTopic.timestamp == InsightRow.timestamp,
            InsightTopic.insight_id == InsightRow.id,
        )
        wanted.append(exists().where(*of_it))
    return wanted
