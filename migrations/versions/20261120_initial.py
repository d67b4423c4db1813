"""The first tables: conversations, insights, their topics, idempotency keys."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from models import UtcDateTime

revision: str = "20261120_initial"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "conversations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=True),
        sa.Column("timestamp", UtcDateTime(), nullable=False),
        sa.Column("raw_data", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("external_id", sa.Text(), nullable=True),
        sa.Column("content_hash", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("due_at", UtcDateTime(), nullable=True),
        sa.Column("lease_epoch", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("rescues", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("raw_answer", sa.Text(), nullable=True),
        sa.Column("skip_reason", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(due_at IS NULL) = (status IN ('completed', 'failed', 'skipped'))",
            name=op.f("ck_conversations_due_while_open"),
        ),
        sa.CheckConstraint(
            "(status = 'failed') = (error IS NOT NULL AND error_code IS NOT NULL)",
            name=op.f("ck_conversations_failed_says_why"),
        ),
        sa.CheckConstraint(
            "(status = 'skipped') = (skip_reason IS NOT NULL)", name=op.f("ck_conversations_skipped_says_why")
        ),
        sa.CheckConstraint(
            "status <> 'processing' OR lease_epoch > 0", name=op.f("ck_conversations_processing_is_leased")
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'processing', 'completed', 'failed', 'skipped')",
            name=op.f("ck_conversations_status_known"),
        ),
        sa.CheckConstraint(
            "(external_id IS NULL) = (content_hash IS NULL)", name=op.f("ck_conversations_external_id_with_hash")
        ),
        sa.CheckConstraint("attempts >= 0 AND rescues >= 0", name=op.f("ck_conversations_counts_not_negative")),
        sa.CheckConstraint("length(text) BETWEEN 1 AND 10000", name=op.f("ck_conversations_text_length")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_conversations")),
    )
    with op.batch_alter_table("conversations", schema=None) as batch_op:
        batch_op.create_index(
            "ix_conversations_due_at",
            ["due_at"],
            unique=False,
            sqlite_where=sa.text("due_at IS NOT NULL"),
            postgresql_where=sa.text("due_at IS NOT NULL"),
        )
        batch_op.create_index(
            "ix_conversations_set_aside",
            ["status", "id"],
            unique=False,
            sqlite_where=sa.text("status IN ('failed', 'skipped')"),
            postgresql_where=sa.text("status IN ('failed', 'skipped')"),
        )
        batch_op.create_index(
            "uq_conversations_external_id",
            ["external_id"],
            unique=True,
            sqlite_where=sa.text("external_id IS NOT NULL"),
            postgresql_where=sa.text("external_id IS NOT NULL"),
        )

    op.create_table(
        "idempotency_keys",
        sa.Column("key_hash", sa.Text(), nullable=False),
        sa.Column("body_hash", sa.Text(), nullable=False),
        sa.Column("outcomes", sa.JSON(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("key_hash", name=op.f("pk_idempotency_keys")),
    )
    with op.batch_alter_table("idempotency_keys", schema=None) as batch_op:
        batch_op.create_index("ix_idempotency_keys_created_at", ["created_at"], unique=False)

    op.create_table(
        "insights",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("conversation_id", sa.Text(), nullable=False),
        sa.Column("timestamp", UtcDateTime(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=True),
        sa.Column("sentiment", sa.Text(), nullable=False),
        sa.Column("sentiment_score", sa.Double(), nullable=False),
        sa.Column("clusters", sa.JSON(), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("reasoning", sa.Text(), nullable=False),
        sa.Column("grok_analysis", sa.JSON(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint(
            "sentiment = CASE WHEN sentiment_score > 0.1 THEN 'positive'"
            " WHEN sentiment_score < -0.1 THEN 'negative' ELSE 'neutral' END",
            name=op.f("ck_insights_sentiment_matches_score"),
        ),
        sa.CheckConstraint("confidence BETWEEN 0 AND 1", name=op.f("ck_insights_confidence_in_range")),
        sa.CheckConstraint("sentiment_score BETWEEN -1 AND 1", name=op.f("ck_insights_score_in_range")),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversations.id"], name=op.f("fk_insights_conversation_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_insights")),
        sa.UniqueConstraint("conversation_id", name=op.f("uq_insights_conversation_id")),
    )
    with op.batch_alter_table("insights", schema=None) as batch_op:
        batch_op.create_index(
            "ix_insights_author",
            ["author", "timestamp", "id"],
            unique=False,
            sqlite_where=sa.text("author IS NOT NULL"),
            postgresql_where=sa.text("author IS NOT NULL"),
        )
        batch_op.create_index("ix_insights_sentiment", ["sentiment", "timestamp", "id", "confidence"], unique=False)
        batch_op.create_index("ix_insights_timestamp", ["timestamp", "id"], unique=False)

    op.create_table(
        "insight_topics",
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("timestamp", UtcDateTime(), nullable=False),
        sa.Column("insight_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.ForeignKeyConstraint(
            ["insight_id"], ["insights.id"], name=op.f("fk_insight_topics_insight_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("topic", "timestamp", "insight_id", name=op.f("pk_insight_topics")),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("insight_topics", schema=None) as batch_op:
        batch_op.create_index("ix_insight_topics_insight_id", ["insight_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("insight_topics", schema=None) as batch_op:
        batch_op.drop_index("ix_insight_topics_insight_id")

    op.drop_table("insight_topics")
    with op.batch_alter_table("insights", schema=None) as batch_op:
        batch_op.drop_index("ix_insights_timestamp")
        batch_op.drop_index("ix_insights_sentiment")
        batch_op.drop_index(
            "ix_insights_author",
            sqlite_where=sa.text("author IS NOT NULL"),
            postgresql_where=sa.text("author IS NOT NULL"),
        )

    op.drop_table("insights")
    with op.batch_alter_table("idempotency_keys", schema=None) as batch_op:
        batch_op.drop_index("ix_idempotency_keys_created_at")

    op.drop_table("idempotency_keys")
    with op.batch_alter_table("conversations", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_conversations_external_id",
            sqlite_where=sa.text("external_id IS NOT NULL"),
            postgresql_where=sa.text("external_id IS NOT NULL"),
        )
        batch_op.drop_index(
            "ix_conversations_set_aside",
            sqlite_where=sa.text("status IN ('failed', 'skipped')"),
            postgresql_where=sa.text("status IN ('failed', 'skipped')"),
        )
        batch_op.drop_index(
            "ix_conversations_due_at",
            sqlite_where=sa.text("due_at IS NOT NULL"),
            postgresql_where=sa.text("due_at IS NOT NULL"),
        )

    op.drop_table("conversations")
