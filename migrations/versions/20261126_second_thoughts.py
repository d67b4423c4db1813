"""Corrections by people, and orders to read conversations again.

Columns are added one by one: remaking a table on SQLite would erase what refers to its rows.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from models import UtcDateTime

revision: str = "20261126_second_thoughts"
down_revision: str | None = "20261126_words"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_REREAD = "CONSTRAINT ck_conversations_reread_while_open CHECK (reread_at IS NULL OR due_at IS NOT NULL)"


def upgrade() -> None:
    moment = "BIGINT" if op.get_bind().dialect.name == "sqlite" else "TIMESTAMP WITH TIME ZONE"
    op.execute(f"ALTER TABLE conversations ADD COLUMN reread_at {moment} {_REREAD}")
    op.execute(f"ALTER TABLE insights ADD COLUMN corrected_at {moment}")
    op.create_table(
        "corrections",
        sa.Column("conversation_id", sa.Text(), nullable=False),
        sa.Column("sentiment", sa.Text()),
        sa.Column("topics", sa.JSON()),
        sa.Column("note", sa.Text()),
        sa.Column("corrected_at", UtcDateTime(), nullable=False),
        sa.Column("model_score", sa.Double(), nullable=False),
        sa.Column("model_clusters", sa.JSON(), nullable=False),
        sa.Column("model_confidence", sa.Double(), nullable=False),
        sa.CheckConstraint(
            "sentiment IN ('positive', 'neutral', 'negative')", name=op.f("ck_corrections_sentiment_known")
        ),
        sa.CheckConstraint("sentiment IS NOT NULL OR topics IS NOT NULL", name=op.f("ck_corrections_says_something")),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["insights.conversation_id"],
            name=op.f("fk_corrections_conversation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("conversation_id", name=op.f("pk_corrections")),
    )
    op.create_table(
        "reanalyses",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("filters", sa.JSON(), nullable=False),
        sa.Column("requested_at", UtcDateTime(), nullable=False),
        sa.Column("matched", sa.BigInteger(), nullable=False),
        sa.Column("requeued", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("timestamp", UtcDateTime()),
        sa.Column("insight_id", sa.BigInteger()),
        sa.Column("ended_at", UtcDateTime()),
        sa.CheckConstraint("(timestamp IS NULL) = (insight_id IS NULL)", name=op.f("ck_reanalyses_place_is_whole")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reanalyses")),
    )
    open_ones = sa.text("ended_at IS NULL")
    op.create_index("ix_reanalyses_open", "reanalyses", ["id"], sqlite_where=open_ones, postgresql_where=open_ones)


def downgrade() -> None:
    op.execute(
        "UPDATE conversations SET status = 'completed', due_at = NULL, reread_at = NULL WHERE reread_at IS NOT NULL"
    )
    op.drop_table("reanalyses")
    op.drop_table("corrections")
    op.execute("ALTER TABLE insights DROP COLUMN corrected_at")
    op.execute("ALTER TABLE conversations DROP COLUMN reread_at")
