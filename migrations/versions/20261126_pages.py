"""Indexes for pages of insights: one covers a walk along the time, one leaps to a sentiment and a confidence.

The index of sentiments goes: the walk serves what is common, the leap what is rare.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "20261126_pages"
down_revision: str | None = "20261126_second_thoughts"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.drop_index("ix_insights_timestamp", "insights")
    op.drop_index("ix_insights_sentiment", "insights")
    op.create_index(
        "ix_insights_timestamp", "insights", ["timestamp", "id", "sentiment", "confidence", "sentiment_score"]
    )
    op.create_index("ix_insights_judged", "insights", ["sentiment", "confidence", "timestamp", "id"])
    columns = ["topic", "sentiment", "confidence", "timestamp", "insight_id"]
    op.create_index("ix_insight_topics_judged", "insight_topics", columns)


def downgrade() -> None:
    op.drop_index("ix_insight_topics_judged", "insight_topics")
    op.drop_index("ix_insights_judged", "insights")
    op.drop_index("ix_insights_timestamp", "insights")
    op.create_index("ix_insights_timestamp", "insights", ["timestamp", "id"])
    op.create_index("ix_insights_sentiment", "insights", ["sentiment", "timestamp", "id", "confidence"])
