"""Counters of a tenth of confidence, from those of each hundredth: a count adds up a few of them instead of many."""

from collections.abc import Sequence

from alembic import op

revision: str = "20261126_tenths"
down_revision: str | None = "20261126_sets"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.execute(
        "INSERT INTO insight_counts (span, topic, sentiment, confidence, period, count, score_sum, confidence_sum)"
        " SELECT span, topic, sentiment, -2 - confidence / 10, period, sum(count), sum(score_sum), sum(confidence_sum)"
        " FROM insight_counts WHERE confidence >= 0 GROUP BY 1, 2, 3, 4, 5"
    )


def downgrade() -> None:
    op.execute("DELETE FROM insight_counts WHERE confidence < -1")
