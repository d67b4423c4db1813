"""Where Alembic runs the migrations: on the connection and in the transaction that `database` opened."""

from alembic import context

from models import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
context.run_migrations()
