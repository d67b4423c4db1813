"""The columns by which insights are found, of all or of those of a topic; and how to keep an index out of a plan.

SQLite plans without knowing how many rows match, so the plan of a hot query is in its words. Hot statements are built
once for each shape, and get their values as parameters: building one costs more than running it.
"""

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, UnaryExpression
from sqlalchemy.sql.operators import custom_op

from models import InsightRow, InsightTopic

_PLUS = custom_op[Any]("+")


@dataclass(frozen=True, slots=True)
class Rows:
    """Where insights are looked up: among all, or among those of a topic."""

    id: ColumnElement[int]
    timestamp: ColumnElement[Any]
    sentiment: ColumnElement[str]
    confidence: ColumnElement[float]

    def walked(self, dialect: str) -> "Rows":
        """The same rows, found by their time alone: what else is asked of them only leaves some out."""
        sentiment, confidence = unindexed(self.sentiment, dialect), unindexed(self.confidence, dialect)
        return replace(self, sentiment=sentiment, confidence=confidence)

    def leapt_to(self, dialect: str) -> "Rows":
        """The same rows, found by sentiment and confidence: they are put in order afterwards."""
        return replace(self, timestamp=unindexed(self.timestamp, dialect))


_INSIGHTS, _TOPICS = InsightRow.__table__.c, InsightTopic.__table__.c
ALL = Rows(_INSIGHTS.id, _INSIGHTS.timestamp, _INSIGHTS.sentiment, _INSIGHTS.confidence)
OF_TOPIC = Rows(_TOPICS.insight_id, _TOPICS.timestamp, _TOPICS.sentiment, _TOPICS.confidence)


def unindexed(column: ColumnElement[Any], dialect: str) -> ColumnElement[Any]:
    """The column, but not for choosing an index.

    Source: https://www.sqlite.org/queryplanner.html (the unary "+" operator)
    """
    return UnaryExpression(column, operator=_PLUS, type_=column.type) if dialect == "sqlite" else column
