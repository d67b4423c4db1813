"""The analysis cache, the account of calls to Grok, and what is tallied."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from models import UtcDateTime

revision: str = "20261120_cache_and_costs"
down_revision: str | None = "20261120_initial"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "analysis_cache",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("conversation_id", sa.Text(), nullable=False),
        sa.Column("analysis", sa.JSON(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversations.id"],
            name=op.f("fk_analysis_cache_conversation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_analysis_cache")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_analysis_cache_conversation_id", "analysis_cache", ["conversation_id"])
    op.create_index("ix_analysis_cache_created_at", "analysis_cache", ["created_at"])
    op.create_table(
        "grok_calls",
        sa.Column("id", _ROW_ID, nullable=False),
        sa.Column("caller", sa.Text(), nullable=False),
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("conversations", sa.BigInteger(), nullable=False),
        sa.Column("reserved_ticks", sa.BigInteger(), nullable=False),
        sa.Column("called_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint("reserved_ticks >= 0", name=op.f("ck_grok_calls_reserved_not_negative")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_grok_calls")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_grok_calls_called_at", "grok_calls", ["called_at"])
    op.create_index("ix_grok_calls_day", "grok_calls", ["day", "reserved_ticks"])
    op.create_table(
        "grok_usage",
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        *(
            sa.Column(name, sa.BigInteger(), nullable=False)
            for name in (
                "calls",
                "unreported_calls",
                "conversations",
                "uncached_tokens",
                "cached_tokens",
                "output_tokens",
                "reasoning_tokens",
                "cost_ticks",
            )
        ),
        sa.PrimaryKeyConstraint("day", "model", name=op.f("pk_grok_usage")),
    )
    op.create_table(
        "tallies",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_tallies")),
    )


def downgrade() -> None:
    for table in ("tallies", "grok_usage", "grok_calls", "analysis_cache"):
        op.drop_table(table)
