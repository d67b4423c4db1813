"""Where Alembic runs the migrations: on the connection and in the transaction that `database` opened."""

from typing import Any

from alembic import context

from models import Base
from survival import pass_by


def pass_version(*_: Any, **__: Any) -> None:
    pass_by("in_migration")


connection = context.config.attributes["connection"]
context.configure(
    connection=connection, target_metadata=Base.metadata, render_as_batch=True, on_version_apply=pass_version
)
context.run_migrations()
