import asyncio
from collections.abc import Callable, Generator
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Inspector, create_engine, inspect

from database import MIGRATIONS, Database, parse_database_url
from models import WORDS, Base

Schema = dict[str, dict[str, Any]]


@pytest.fixture
def connection(database_url: str) -> Generator[Connection]:
    """An empty database, migrated by nobody."""
    engine = create_engine(parse_database_url(database_url), isolation_level="AUTOCOMMIT")
    with engine.connect() as opened:
        yield opened
    engine.dispose()


def migrate(connection: Connection, revision: str) -> None:
    _run(command.upgrade, connection, revision)


def go_back(connection: Connection, revision: str) -> None:
    _run(command.downgrade, connection, revision)


def _run(step: Callable[[Config, str], None], connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    connection.exec_driver_sql("BEGIN")
    step(config, revision)
    connection.exec_driver_sql("COMMIT")


def revision_of(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def read_schema(connection: Connection) -> Schema:
    """Everything that the database itself says of its tables; the full-text index keeps its own beside them."""
    inspector = inspect(connection)
    names = (name for name in inspector.get_table_names() if name != "alembic_version" and not name.startswith(WORDS))
    return {name: _read_table(inspector, name) for name in names}


def _read_table(inspector: Inspector, name: str) -> dict[str, Any]:
    return {
        "columns": {
            column["name"]: (str(column["type"]), column["nullable"], column["default"])
            for column in inspector.get_columns(name)
        },
        "primary key": inspector.get_pk_constraint(name),
        "foreign keys": inspector.get_foreign_keys(name),
        "unique": inspector.get_unique_constraints(name),
        "checks": {check["name"]: check["sqltext"] for check in inspector.get_check_constraints(name)},
        "indexes": {
            index["name"]: (
                index["column_names"],
                index["unique"],
                {option: str(value) for option, value in index.get("dialect_options", {}).items()},
            )
            for index in inspector.get_indexes(name)
        },
        "options": inspector.get_table_options(name),
    }


def test_the_migrated_tables_are_those_of_the_models(connection: Connection) -> None:
    migrate(connection, "head")
    migrated = read_schema(connection)
    Base.metadata.drop_all(connection)
    Base.metadata.create_all(connection)

    assert migrated == read_schema(connection)
    assert set(migrated) == set(Base.metadata.tables)


def test_the_database_knows_every_check_of_the_models_by_name(connection: Connection) -> None:
    migrate(connection, "head")

    named = {name for table in read_schema(connection).values() for name in table["checks"]}

    assert len(named) == 18
    assert all(
        name.startswith(
            ("ck_conversations_", "ck_insights_", "ck_insight_counts_", "ck_grok_calls_", "ck_corrections_", "ck_reana")
        )
        for name in named
    )


def test_going_back_leaves_nothing_and_forward_again_all(connection: Connection) -> None:
    migrate(connection, "head")
    before = read_schema(connection)
    go_back(connection, "base")
    left = read_schema(connection)
    migrate(connection, "head")

    assert left == {}
    assert read_schema(connection) == before


def test_every_step_can_be_taken_back_and_again(connection: Connection) -> None:
    scripts = ScriptDirectory(str(MIGRATIONS))
    revisions = [script.revision for script in scripts.walk_revisions()][::-1]
    for earlier, revision in zip(["base", *revisions], revisions, strict=False):
        before = read_schema(connection)
        migrate(connection, revision)
        go_back(connection, earlier)
        assert read_schema(connection) == before
        migrate(connection, revision)

    assert revision_of(connection) == scripts.get_current_head()


def test_a_step_forward_or_back_keeps_the_conversations(connection: Connection) -> None:
    migrate(connection, "20261120_initial")
    insert = (
        "INSERT INTO conversations (id, text, timestamp, status, created_at, due_at) VALUES ('conv_1', 'late', {0})"
    )
    moment = "'2026-03-01T12:00:00Z'" if connection.dialect.name == "postgresql" else "1772366400000000"
    connection.exec_driver_sql(insert.format(f"{moment}, 'pending', {moment}, {moment}"))

    migrate(connection, "head")
    forward = connection.exec_driver_sql("SELECT id, status FROM conversations").all()
    go_back(connection, "20261120_initial")

    assert forward == [("conv_1", "pending")]
    assert connection.exec_driver_sql("SELECT id, status FROM conversations").all() == forward


def test_opening_the_database_brings_it_to_the_newest_schema(connection: Connection, database_url: str) -> None:
    async def open_twice() -> None:
        for _ in range(2):
            database = Database.connect(database_url)
            await database.open()
            await database.close()

    asyncio.run(open_twice())

    assert revision_of(connection) == ScriptDirectory(str(MIGRATIONS)).get_current_head()
    assert set(read_schema(connection)) == set(Base.metadata.tables)


@pytest.mark.unit
def test_the_history_is_one_line() -> None:
    scripts = ScriptDirectory(str(MIGRATIONS))

    assert len(scripts.get_heads()) == 1
    assert len(scripts.get_bases()) == 1
