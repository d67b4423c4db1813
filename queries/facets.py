"""How what matches is spread over topics, sentiments and authors: each counted as if it were not filtered by itself."""

from collections.abc import Mapping

from sqlalchemy import func, select

from answers import FacetValue
from database import ReadSession
from models import InsightRow, InsightTopic
from parameters import Facet, InsightFilter, InsightQuery
from queries.counting import single_topics
from queries.paging import count_matches, matches
from schemas import Sentiment

_MOST_AUTHORS = 20


def count_facets(session: ReadSession, query: InsightQuery) -> dict[str, list[FacetValue]]:
    """Most frequent first. Topics and sentiments come from the counters; authors, and all of `q`, cost what matches."""
    counted = {Facet.TOPIC: _by_topic, Facet.SENTIMENT: _by_sentiment, Facet.AUTHOR: _by_author}
    return {str(facet): _in_order(counted[facet](session, query)) for facet in query.facet}


def _in_order(counts: Mapping[str, int]) -> list[FacetValue]:
    most_first = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"value": value, "count": count, "url": ""} for value, count in most_first if count]


def _by_topic(session: ReadSession, wanted: InsightFilter) -> dict[str, int]:
    if wanted.q is None and wanted.author is None:
        return {topic: count_matches(session, _with(wanted, topic=[topic])) for topic in single_topics(session)}
    statement = (
        select(InsightTopic.topic, func.count())
        .join(InsightRow, InsightRow.id == InsightTopic.insight_id)
        .where(*matches(session, _with(wanted, topic=[])))
        .group_by(InsightTopic.topic)
    )
    return {str(topic): count for topic, count in session.execute(statement)}


def _by_sentiment(session: ReadSession, wanted: InsightFilter) -> dict[str, int]:
    return {str(one): count_matches(session, _with(wanted, sentiment=one)) for one in Sentiment}


def _by_author(session: ReadSession, wanted: InsightFilter) -> dict[str, int]:
    many = func.count().label("many")
    statement = (
        select(InsightRow.author, many)
        .where(InsightRow.author.is_not(None), *matches(session, _with(wanted, author=None)))
        .group_by(InsightRow.author)
        .order_by(many.desc(), InsightRow.author)
        .limit(_MOST_AUTHORS)
    )
    return {str(author): count for author, count in session.execute(statement)}


def _with(wanted: InsightFilter, **other: object) -> InsightFilter:
    return wanted.model_copy(update=other)
