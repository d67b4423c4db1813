"""Counters of topics that are found together: of every two and three, instead of the exact set of an insight.

How many insights have any of some topics is then a sum over those topics alone, however many sets there are.
"""

from collections.abc import Iterator, Sequence

from alembic import op

revision: str = "20261126_sets"
down_revision: str | None = "20261126_pages"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_DAY_US = 24 * 3_600_000_000


def upgrade() -> None:
    op.execute("DELETE FROM insight_counts WHERE topic LIKE '%+%'")
    pairs = "insights i JOIN insight_topics a ON a.insight_id = i.id JOIN insight_topics b ON b.insight_id = i.id"
    ordered = _before("a", "b")
    for statement in _count("a.topic || '+' || b.topic", f"{pairs} AND {ordered}"):
        op.execute(statement)
    triples = f"{pairs} AND {ordered} JOIN insight_topics c ON c.insight_id = i.id AND {_before('b', 'c')}"
    for statement in _count("a.topic || '+' || b.topic || '+' || c.topic", triples):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DELETE FROM insight_counts WHERE topic LIKE '%+%'")
    ordered = "(SELECT insight_id, topic FROM insight_topics ORDER BY insight_id, topic)"
    whole = "group_concat(topic, '+')"
    if _on_postgresql():
        ordered, whole = "insight_topics", "string_agg(topic, '+' ORDER BY topic COLLATE \"C\")"
    sets = f"(SELECT insight_id, {whole} AS topics FROM {ordered} s GROUP BY insight_id HAVING count(*) > 1)"  # noqa: S608 - our own names alone
    for statement in _count("s.topics", f"insights i JOIN {sets} s ON s.insight_id = i.id"):
        op.execute(statement)


def _on_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def _before(first: str, second: str) -> str:
    """Sorted as Python sorts, by code point."""
    collation = ' COLLATE "C"' if _on_postgresql() else ""
    return f"{first}.topic{collation} < {second}.topic{collation}"


def _count(topic: str, rows: str) -> Iterator[str]:
    """By day, with each confidence and without."""
    since = "CAST(extract(epoch FROM i.timestamp) * 1000000 AS bigint)" if _on_postgresql() else "i.timestamp"
    day = f"({since} - (({since} % {_DAY_US}) + {_DAY_US}) % {_DAY_US}) / {_DAY_US}"  # rounded down before 1970 too
    for confidence in ("-1", "CAST(round(i.confidence * 100) AS bigint)"):
        yield (
            "INSERT INTO insight_counts (span, topic, sentiment, confidence, period, count, score_sum, confidence_sum)"  # noqa: S608 - our own names alone
            f" SELECT 'day', {topic}, i.sentiment, {confidence}, {day}, count(*),"
            " sum(CAST(round(i.sentiment_score * 10000) AS bigint)), sum(CAST(round(i.confidence * 100) AS bigint))"
            f" FROM {rows} GROUP BY 2, 3, 4, 5"
        )
