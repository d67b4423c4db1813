"""How often each topic was found, those of the file and those that only insights have; all from the counters."""

from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy import select

from answers import TopicCount, TopicCounts
from database import ReadSession
from models import ALL_TOPICS, TallyRow
from parameters import TopicsQuery
from queries.counting import count_alone
from queries.sums import Sums, feelings_of, sum_by_topic
from schemas import Tally
from topics import FALLBACK, Topic


def count_topics(session: ReadSession, query: TopicsQuery, *, topics: Sequence[Topic]) -> TopicCounts:
    """The topics of the file in its order, then those that it does not have, the most frequent first."""
    start, end = query.start_time, query.end_time
    sums = sum_by_topic(session, start=start, end=end)
    insights = sums.pop(ALL_TOPICS, Sums()).count
    untagged = count_alone(session, FALLBACK, start=start, end=end)
    return {
        "period": {"start_time": start, "end_time": end},
        "totals": {
            "insights": insights,
            "untagged": {"count": untagged, "share": round(untagged / insights, 4) if insights else None},
            "unlisted_labels": session.scalar(select(TallyRow.count).where(TallyRow.name == Tally.UNLISTED)) or 0,
        },
        "topics": [*_listed(topics, sums), *_unlisted(topics, sums)],
    }


def _listed(topics: Sequence[Topic], sums: Mapping[str, Sums]) -> Iterator[TopicCount]:
    for topic in topics:
        feelings = feelings_of(sums.get(topic.id, Sums()))
        yield {"id": topic.id, "name": topic.name, "description": topic.description, "listed": True, **feelings}


def _unlisted(topics: Sequence[Topic], sums: Mapping[str, Sums]) -> Iterator[TopicCount]:
    for topic_id in sorted(sums.keys() - {topic.id for topic in topics}, key=lambda known: (-sums[known].count, known)):
        yield {"id": topic_id, "name": None, "description": None, "listed": False, **feelings_of(sums[topic_id])}
