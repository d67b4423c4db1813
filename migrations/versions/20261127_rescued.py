"""An index of the open conversations whose owners died, of which there are hardly any: each claim asks for the next."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "20261127_rescued"
down_revision: str | None = "20261126_tenths"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_WHERE = "rescues > 0 AND due_at IS NOT NULL"


def upgrade() -> None:
    op.create_index(
        "ix_conversations_rescued",
        "conversations",
        ["due_at"],
        sqlite_where=sa.text(_WHERE),
        postgresql_where=sa.text(_WHERE),
    )


def downgrade() -> None:
    op.drop_index("ix_conversations_rescued", table_name="conversations")
