"""Bring the tables to this version in one transaction: whatever ends the process, all steps are done or none."""

import time
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from database.engine import PATIENCE_S, begin_immediate
from database.failures import translate, translated
from errors import DatabaseBusy, StorageUnusable

MIGRATIONS = Path(__file__).parent.with_name("migrations")


def migrate(engine: Engine) -> None:
    """Nothing is locked nor written when the tables are up to date, so that a full disk does not stop a start."""
    with translated(), engine.connect() as connection:
        revision = version_of(connection)
        if revision == newest_version():
            return
        if revision is not None and revision not in known_versions():
            raise StorageUnusable("The database was made by a newer version of the service: run that one.")
        _begin_alone(connection)
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except DBAPIError as error:
            if translate(error) is not None:  # the disk, the lock, the network
                raise
            raise StorageUnusable("Its tables are not the service's: is it the database of another program?") from error
        connection.exec_driver_sql("COMMIT")


def version_of(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


@cache
def newest_version() -> str | None:
    return ScriptDirectory(str(MIGRATIONS)).get_current_head()


@cache
def known_versions() -> frozenset[str]:
    return frozenset(script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions())


def _begin_alone(connection: Connection) -> None:
    """Replicas may start together: the first one migrates, the others find it done."""
    if connection.dialect.name != "sqlite":
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7431)").close()
        return
    patience_ends_at = time.monotonic() + PATIENCE_S
    if not begin_immediate(connection, lambda _error: time.monotonic() < patience_ends_at):
        raise DatabaseBusy("The database is locked by another process.")
