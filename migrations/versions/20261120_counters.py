"""Counters of insights by hour and by day, filled from the insights there are; what a topic is filtered by beside it.

Scores are rounded to four decimals, as they are from now on: sums of whole ten-thousandths never drift.
"""

from collections.abc import Iterator, Sequence

import sqlalchemy as sa
from alembic import op

from models import UtcDateTime

revision: str = "20261120_counters"
down_revision: str | None = "20261120_cache_and_costs"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_HOUR_US = 3_600_000_000


def upgrade() -> None:
    _round_scores()
    _remake_topics(
        sa.Column("sentiment", sa.Text(), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        fill=", i.sentiment, i.confidence",
    )
    op.create_table(
        "insight_counts",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("span", "topic", "sentiment")),
        *(
            sa.Column(name, sa.BigInteger(), nullable=False)
            for name in ("confidence", "period", "count", "score_sum", "confidence_sum")
        ),
        sa.CheckConstraint("span IN ('hour', 'day')", name=op.f("ck_insight_counts_span_known")),
        sa.CheckConstraint("count >= 0", name=op.f("ck_insight_counts_count_not_negative")),
        sa.PrimaryKeyConstraint("span", "topic", "sentiment", "confidence", "period", name=op.f("pk_insight_counts")),
        sqlite_with_rowid=False,
    )
    for statement in _fill():
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("insight_counts")
    _remake_topics(fill="")


def _on_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def _round_scores() -> None:
    rounded = "CAST(round(CAST(sentiment_score AS numeric), 4) AS double precision)"
    if not _on_postgresql():
        rounded = "round(sentiment_score, 4)"
    op.execute(
        f"UPDATE insights SET sentiment_score = {rounded}, sentiment = CASE WHEN {rounded} > 0.1 THEN 'positive'"  # noqa: S608 - our own names alone
        f" WHEN {rounded} < -0.1 THEN 'negative' ELSE 'neutral' END"
    )


def _remake_topics(*columns: sa.Column[object], fill: str) -> None:
    """Names of constraints are one to a schema on PostgreSQL, so the old table goes before the new one comes."""
    op.execute("CREATE TABLE insight_topics_before AS SELECT topic, timestamp, insight_id FROM insight_topics")
    op.drop_table("insight_topics")
    op.create_table(
        "insight_topics",
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("timestamp", UtcDateTime(), nullable=False),
        sa.Column("insight_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        *columns,
        sa.ForeignKeyConstraint(
            ["insight_id"], ["insights.id"], name=op.f("fk_insight_topics_insight_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("topic", "timestamp", "insight_id", name=op.f("pk_insight_topics")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_insight_topics_insight_id", "insight_topics", ["insight_id"])
    op.execute(
        f"INSERT INTO insight_topics SELECT t.topic, t.timestamp, t.insight_id{fill}"  # noqa: S608 - our own names alone
        " FROM insight_topics_before t JOIN insights i ON i.id = t.insight_id ORDER BY t.topic, t.timestamp"
    )
    op.drop_table("insight_topics_before")


def _fill() -> Iterator[str]:
    """By hour under `*` and each topic; by day also under the set of topics, with each confidence and without."""
    joined = {"'*'": "insights i", "t.topic": "insights i JOIN insight_topics t ON t.insight_id = i.id"}
    ordered = "(SELECT insight_id, topic FROM insight_topics ORDER BY insight_id, topic)"
    whole = "group_concat(topic, '+')"
    if _on_postgresql():
        ordered, whole = "insight_topics", "string_agg(topic, '+' ORDER BY topic COLLATE \"C\")"
    sets = f"(SELECT insight_id, {whole} AS topics FROM {ordered} s GROUP BY insight_id HAVING count(*) > 1)"  # noqa: S608 - our own names alone
    for topic, rows in joined.items():
        yield _count("hour", topic, "-1", rows)
    joined["s.topics"] = f"insights i JOIN {sets} s ON s.insight_id = i.id"
    for topic, rows in joined.items():
        for confidence in ("-1", "CAST(round(i.confidence * 100) AS bigint)"):
            yield _count("day", topic, confidence, rows)


def _count(span: str, topic: str, confidence: str, rows: str) -> str:
    length = _HOUR_US * (24 if span == "day" else 1)
    since = "i.timestamp"
    if _on_postgresql():
        since = "CAST(extract(epoch FROM i.timestamp) * 1000000 AS bigint)"
    period = f"({since} - (({since} % {length}) + {length}) % {length}) / {length}"  # rounded down before 1970 too
    return (
        "INSERT INTO insight_counts (span, topic, sentiment, confidence, period, count, score_sum, confidence_sum)"  # noqa: S608 - our own names alone
        f" SELECT '{span}', {topic}, i.sentiment, {confidence}, {period}, count(*),"
        " sum(CAST(round(i.sentiment_score * 10000) AS bigint)), sum(CAST(round(i.confidence * 100) AS bigint))"
        f" FROM {rows} GROUP BY 2, 3, 4, 5"
    )
