"""Statements that every answer waits for: built once a shape and a dialect, then handed to the driver itself.

SQLAlchemy's share of a statement that adds up a few counters is more than the database's own (100 to 200 us against
30). Only for whole numbers and words: what comes back is as the driver gives it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import ClauseElement, ColumnElement, Dialect, SQLColumnExpression, bindparam, false
from sqlalchemy.exc import DBAPIError

from database import ReadSession
from models import UtcDateTime

_MOMENT = UtcDateTime()


class Hot:
    """A statement whose parameters are all named; keep it as long as it is of use."""

    def __init__(self, statement: ClauseElement) -> None:
        self._statement = statement
        self._built: dict[str, tuple[str, Sequence[str]]] = {}

    def rows(self, session: ReadSession, values: Mapping[str, Any]) -> Sequence[tuple[Any, ...]]:
        dialect = session.dialect
        text, names = self._built.get(dialect.name) or self._build(dialect)
        given = {name: _bound(values[name], dialect) for name in names}
        parameters = tuple(given[name] for name in names) if dialect.positional else given
        return fetch(session, text, parameters)

    def _build(self, dialect: Dialect) -> tuple[str, Sequence[str]]:
        compiled: Any = self._statement.compile(dialect=dialect)
        names = compiled.positiontup if dialect.positional else list(compiled.params)
        built = self._built[dialect.name] = (compiled.string, names)
        return built


def fetch(session: ReadSession, text: str, parameters: Any) -> Sequence[tuple[Any, ...]]:
    """All rows, within the session's transaction. Raises: DBAPIError, as SQLAlchemy would."""
    driver: Any = session.connection.driver_connection
    try:
        rows: Sequence[tuple[Any, ...]] = driver.execute(text, parameters).fetchall()
    except session.dialect.loaded_dbapi.Error as error:
        base = session.dialect.loaded_dbapi.Error
        raise DBAPIError.instance(text, None, error, base, dialect=session.dialect) from error
    return rows


@lru_cache(maxsize=64)
def names_of(name: str, count: int) -> tuple[str, ...]:
    """What the parameters of a list are called."""
    return tuple(f"{name}_{number}" for number in range(count))


def one_of(column: SQLColumnExpression[Any], name: str, count: int) -> ColumnElement[bool]:
    """The column has one of `count` values, which `listed` gives; of no values it has none."""
    return column.in_([bindparam(each) for each in names_of(name, count)]) if count else false()


def listed(name: str, values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(names_of(name, len(values)), values, strict=True))


def _bound(value: Any, dialect: Dialect) -> Any:
    return _MOMENT.process_bind_param(value, dialect) if isinstance(value, datetime) else value
