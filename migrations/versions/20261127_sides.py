"""Counters of all three sentiments in one row: what is asked of a time is mostly asked of all of them."""

from collections.abc import Iterator, Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "20261127_sides"
down_revision: str | None = "20261127_rescued"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_SIDES = ("positive", "neutral", "negative")
_SUMS = ("score_sum", "confidence_sum")
_HOUR_US = 3_600_000_000


def upgrade() -> None:
    sides = ", ".join(f"sum(CASE sentiment WHEN '{side}' THEN count ELSE 0 END) AS {side}" for side in _SIDES)
    sums = ", ".join(f"sum({name}) AS {name}" for name in _SUMS)
    op.execute(
        f"CREATE TABLE insight_sides AS SELECT span, topic, confidence, period, {sides}, {sums}"  # noqa: S608 - our own names alone
        " FROM insight_counts GROUP BY 1, 2, 3, 4"
    )
    op.drop_table("insight_counts")
    _create(
        ("span", "topic"),
        ("confidence", "period"),
        (*_SIDES, *_SUMS),
        sa.CheckConstraint(
            "positive >= 0 AND neutral >= 0 AND negative >= 0", name=op.f("ck_insight_counts_counts_not_negative")
        ),
    )
    op.execute("INSERT INTO insight_counts SELECT * FROM insight_sides ORDER BY 1, 2, 3, 4")
    op.drop_table("insight_sides")


def downgrade() -> None:
    """What each sentiment added up to is no longer known: all insights are counted anew."""
    op.drop_table("insight_counts")
    _create(
        ("span", "topic", "sentiment"),
        ("confidence", "period"),
        ("count", *_SUMS),
        sa.CheckConstraint("count >= 0", name=op.f("ck_insight_counts_count_not_negative")),
    )
    for statement in _fill():
        op.execute(statement)


def _create(words: Sequence[str], numbers: Sequence[str], sums: Sequence[str], check: sa.CheckConstraint) -> None:
    op.create_table(
        "insight_counts",
        *(sa.Column(name, sa.Text(), nullable=False) for name in words),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in (*numbers, *sums)),
        sa.CheckConstraint("span IN ('hour', 'day')", name=op.f("ck_insight_counts_span_known")),
        check,
        sa.PrimaryKeyConstraint(*words, *numbers, name=op.f("pk_insight_counts")),
        sqlite_with_rowid=False,
    )


def _fill() -> Iterator[str]:
    """By hour under `*` and each topic; by day also under every two and three topics, with confidence and without."""
    one = "insights i JOIN insight_topics a ON a.insight_id = i.id"
    two = f"{one} JOIN insight_topics b ON b.insight_id = i.id AND {_before('a', 'b')}"
    three = f"{two} JOIN insight_topics c ON c.insight_id = i.id AND {_before('b', 'c')}"
    single = {"'*'": "insights i", "a.topic": one}
    for topic, rows in single.items():
        yield _count("hour", topic, "-1", rows)
    together = {"a.topic || '+' || b.topic": two, "a.topic || '+' || b.topic || '+' || c.topic": three}
    hundredths = "CAST(round(i.confidence * 100) AS bigint)"
    for topic, rows in (single | together).items():
        for confidence in ("-1", f"-2 - {hundredths} / 10", hundredths):
            yield _count("day", topic, confidence, rows)


def _on_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def _before(first: str, second: str) -> str:
    """Sorted as Python sorts, by code point."""
    collation = ' COLLATE "C"' if _on_postgresql() else ""
    return f"{first}.topic{collation} < {second}.topic{collation}"


def _count(span: str, topic: str, confidence: str, rows: str) -> str:
    length = _HOUR_US * (24 if span == "day" else 1)
    since = "CAST(extract(epoch FROM i.timestamp) * 1000000 AS bigint)" if _on_postgresql() else "i.timestamp"
    period = f"({since} - (({since} % {length}) + {length}) % {length}) / {length}"  # rounded down before 1970 too
    return (
        "INSERT INTO insight_counts (span, topic, sentiment, confidence, period, count, score_sum, confidence_sum)"  # noqa: S608 - our own names alone
        f" SELECT '{span}', {topic}, i.sentiment, {confidence}, {period}, count(*),"
        " sum(CAST(round(i.sentiment_score * 10000) AS bigint)), sum(CAST(round(i.confidence * 100) AS bigint))"
        f" FROM {rows} GROUP BY 2, 3, 4, 5"
    )
