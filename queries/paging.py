"""Which insights match, newest first, a page at a time: the way to them is chosen by what the counters say.

    words | author      their own index: what they match is read and put in order
    walk                along the time, leaving out what does not match: for filters that let enough pass
    leap                straight to what matches, by sentiment and confidence: for filters that let little pass

Each is taken where it reads less than the other: about the square root of (rows x page) at the most, however many
insights there are.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, Subquery, and_, bindparam, exists, func, or_, select, union
from sqlalchemy.orm import InstrumentedAttribute

from database import ReadSession
from models import InsightRow, InsightTopic
from parameters import InsightFilter, Position
from queries.columns import ALL, OF_TOPIC, Rows
from queries.counting import FIRST_MOMENT, LAST_MOMENT, count_insights, estimate, sentiments_of
from queries.hot import Hot
from queries.searching import holds_words, matching_ids

Columns = tuple[InstrumentedAttribute[Any], ...]
Page = Select[*tuple[Any, ...]]
Way = Literal["walk", "leap"]
_SHORT_WALK = 3_000  # rows, about half a millisecond
_MOST_ID = 2**63 - 1


def read_page(
    session: ReadSession,
    wanted: InsightFilter,
    *,
    columns: Columns,
    limit: int,
    after: Position | None,
    ways: tuple[Way, ...] | None = None,
) -> Sequence[Any]:
    """Up to `limit` insights past `after`, newest first, ties by id; these columns of them.

    `ways`, one for each topic in order or one for all, only where they are not to be chosen.
    """
    until = _until(wanted.end_time, after)
    values: dict[str, Any] = {"limit": limit, "until": until.timestamp, "until_id": until.row_id}
    if wanted.q is not None or wanted.author is not None:
        found = _newest(select(ALL.timestamp, ALL.id).where(*matches(session, wanted), _past(ALL)), ALL)
        return session.execute(_with_columns(columns, found.subquery()), values).all()
    topics: Sequence[str] = sorted(set(wanted.topic))
    values |= {
        "start": wanted.start_time or FIRST_MOMENT,
        "sentiments": sentiments_of(wanted),
        "min_confidence": wanted.min_confidence or 0.0,
    }
    ways = ways or _ways(session, wanted, topics, limit=limit)
    if topics:  # in one order of ways: fewer statements to build
        ways, topics = zip(*sorted(zip(ways, topics, strict=True)), strict=True)
        values |= {f"topic_{number}": topic for number, topic in enumerate(topics)}
    statement = _page_statement(session.dialect.name, columns, OF_TOPIC if topics else ALL, ways=ways)
    return statement.records(session, values)


def _until(end: datetime | None, after: Position | None) -> Position:
    """The earlier of where the time ends and where the page before ended: SQLite seeks by one bound only."""
    end_position = Position(LAST_MOMENT, _MOST_ID) if end is None else Position(end, -1)
    return end_position if after is None or after.timestamp >= end_position.timestamp else after


def matches(session: ReadSession, wanted: InsightFilter) -> list[ColumnElement[bool]]:
    """Every condition on `insights` itself."""
    conditions: list[ColumnElement[bool]] = []
    if wanted.start_time is not None:
        conditions.append(InsightRow.timestamp >= wanted.start_time)
    if wanted.end_time is not None:
        conditions.append(InsightRow.timestamp < wanted.end_time)
    if wanted.sentiment is not None:
        conditions.append(InsightRow.sentiment == wanted.sentiment)
    if wanted.min_confidence is not None:
        conditions.append(InsightRow.confidence >= wanted.min_confidence)
    if wanted.author is not None:
        conditions.append(InsightRow.author == wanted.author)
    if wanted.topic:
        has_topic = (InsightTopic.insight_id == InsightRow.id, InsightTopic.topic.in_(wanted.topic))
        conditions.append(exists().where(*has_topic))
    if wanted.q is not None:
        conditions.append(holds_words(session, wanted.q))
    return conditions


def count_matches(session: ReadSession, wanted: InsightFilter) -> int:
    """From the counters; what words and authors match is counted one by one."""
    if wanted.q is None and wanted.author is None:
        return count_insights(session, wanted)
    conditions = matches(session, wanted)
    if wanted.q is not None and len(conditions) == 1:
        return session.scalar(select(func.count()).select_from(matching_ids(session, wanted.q).subquery())) or 0
    return session.scalar(select(func.count()).select_from(InsightRow).where(*conditions)) or 0


def _ways(session: ReadSession, wanted: InsightFilter, topics: Sequence[str], *, limit: int) -> tuple[Way, ...]:
    """For all insights, or for each topic: walk, unless that reads more rows than there are that match at all times."""
    places = tuple(topics) or (None,)
    walking: tuple[Way, ...] = tuple("walk" for _ in places)
    if wanted.sentiment is None and wanted.min_confidence is None:
        return walking
    around = estimate(session, wanted.model_copy(update={"sentiment": None, "min_confidence": None}), topics=topics)
    if max(around.values()) <= _SHORT_WALK:
        return walking
    matching = estimate(session, wanted, topics=topics)
    walks = {place: min(around[place], limit * around[place] / max(1, matching[place])) for place in places}
    if max(walks.values()) <= _SHORT_WALK:
        return walking
    anytime = estimate(session, wanted.model_copy(update={"start_time": None, "end_time": None}), topics=topics)
    ways: list[Way] = ["leap" if _SHORT_WALK < walks[place] > anytime[place] else "walk" for place in places]
    return tuple(ways)


@lru_cache(maxsize=128)  # clients choose how many topics
def _page_statement(dialect: str, columns: Columns, rows: Rows, *, ways: tuple[Way, ...]) -> Hot:
    """One for each way and number of topics; all else is parameters, which say nothing where nothing was asked."""
    pages = [_page(rows, dialect, way=way, topic=f"topic_{number}") for number, way in enumerate(ways)]
    if len(pages) == 1:
        return Hot(_with_columns(columns, pages[0].subquery()))
    merged = union(*(page.subquery().select() for page in pages)).subquery()  # an insight may have several of them
    newest = select(merged).order_by(merged.c.timestamp.desc(), merged.c.id.desc()).limit(bindparam("limit"))
    return Hot(_with_columns(columns, newest.subquery()))


def _with_columns(columns: Columns, page: Subquery) -> Page:
    statement = select(*columns).select_from(page).join(InsightRow, InsightRow.id == page.c.id)
    return statement.order_by(page.c.timestamp.desc(), page.c.id.desc())


def _page(rows: Rows, dialect: str, *, way: Way, topic: str) -> Page:
    found = rows.walked(dialect) if way == "walk" else rows.leapt_to(dialect)
    conditions = [
        found.sentiment.in_(bindparam("sentiments", expanding=True)),
        found.confidence >= bindparam("min_confidence"),
        found.timestamp >= bindparam("start"),
        _past(found),
    ]
    if rows is OF_TOPIC:
        conditions.append(InsightTopic.topic == bindparam(topic))
    return _newest(select(rows.timestamp, rows.id.label("id")).where(*conditions), found)


def _newest(statement: Page, rows: Rows) -> Page:
    return statement.order_by(rows.timestamp.desc(), rows.id.desc()).limit(bindparam("limit"))


def _past(rows: Rows) -> ColumnElement[bool]:
    """The first condition walks the index, the second sorts out ties (a row value scans on SQLite)."""
    earlier = or_(rows.timestamp < bindparam("until"), rows.id < bindparam("until_id"))
    return and_(rows.timestamp <= bindparam("until"), earlier)
