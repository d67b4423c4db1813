"""Full text of insights: an FTS5 index on SQLite, which the store fills, and an expression index on PostgreSQL."""

from collections.abc import Sequence

from alembic import op

revision: str = "20261126_words"
down_revision: str | None = "20261120_counters"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_FTS5 = (
    """CREATE VIRTUAL TABLE insight_words
    USING fts5(text, content='insights', content_rowid='id', columnsize=0, tokenize='unicode61 remove_diacritics 2')""",
    """CREATE TRIGGER insight_words_erased AFTER DELETE ON insights
    BEGIN INSERT INTO insight_words(insight_words, rowid, text) VALUES ('delete', old.id, old.text); END""",
    "INSERT INTO insight_words(insight_words) VALUES ('rebuild')",
)


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for statement in _FTS5:
            op.execute(statement)
    else:
        op.execute("CREATE INDEX ix_insights_words ON insights USING gin (to_tsvector('simple', text))")


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER insight_words_erased")
        op.execute("DROP TABLE insight_words")
    else:
        op.execute("DROP INDEX ix_insights_words")
