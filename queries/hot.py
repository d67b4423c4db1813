"""Statements that every answer waits for: built once a shape and a dialect, then run past SQLAlchemy.

Its share of a statement that adds up a few counters is more than the database's own (100 to 200 us against 30). Only
for whole numbers and words: what comes back is as the driver gives it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import ClauseElement, ColumnElement, Dialect, SQLColumnExpression, bindparam, false

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
        cursor = session.exec_driver_sql(text, parameters).cursor
        assert cursor is not None
        return cursor.fetchall()

    def _build(self, dialect: Dialect) -> tuple[str, Sequence[str]]:
        compiled: Any = self._statement.compile(dialect=dialect)
        names = compiled.positiontup if dialect.positional else list(compiled.params)
        built = self._built[dialect.name] = (compiled.string, names)
        return built


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
