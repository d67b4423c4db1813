"""Statements that every answer waits for: built once a dialect, then handed to the driver itself.

SQLAlchemy's share of a statement that adds up a few counters is more than the database's own (100 to 200 us against
30), and to build one takes 2 to 5 ms. So questions differ by the values of a statement and the lengths of its lists.
"""

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import JSON, Dialect, TypeDecorator
from sqlalchemy.sql.selectable import SelectBase

from database import ReadSession, driver_of

Processor = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Text:
    """A statement for lists of certain lengths. `places`: the values in the order of the text, lists (True) at once.

    `names`: what the text calls each value, an element of a list too; None where it only counts them.
    """

    words: str
    places: Sequence[tuple[str, bool, Processor | None]]
    names: Sequence[str] | None

    def parameters(self, values: Mapping[str, Any]) -> Sequence[Any] | dict[str, Any]:
        found: list[Any] = []
        for name, is_list, process in self.places:
            value = values[name]
            if is_list:
                found += value
            else:
                found.append(value if process is None else process(value))
        return tuple(found) if self.names is None else dict(zip(self.names, found, strict=True))


class Hot:
    """A statement whose parameters are all named, lists of them (`expanding`) too; keep it as long as it is of use."""

    def __init__(self, statement: SelectBase) -> None:
        self._statement = statement
        self._built: dict[str, _Built] = {}

    def rows(self, session: ReadSession, values: Mapping[str, Any]) -> Sequence[tuple[Any, ...]]:
        """As the driver gives them: right for whole numbers and words. Values may hold more than is asked for."""
        return self._in_words_of(session.dialect).fetch(session, values)

    def records(self, session: ReadSession, values: Mapping[str, Any]) -> Sequence[Any]:
        """As the columns mean them, and by their names."""
        return self._in_words_of(session.dialect).records(session, values)

    def _in_words_of(self, dialect: Dialect) -> "_Built":
        built = self._built.get(dialect.name)
        if built is None:
            built = self._built[dialect.name] = _Built(self._statement, dialect)
        return built


class _Built:
    """A statement in the words of a dialect, and its text for lists of any length."""

    def __init__(self, statement: SelectBase, dialect: Dialect) -> None:
        self._compiled = statement.compile(dialect=dialect)
        self._columns = list(statement.selected_columns)
        self._dialect = dialect
        self._lists = [name for name, bind in self._compiled.binds.items() if bind.expanding]
        self._constants = {name: bind.value for name, bind in self._compiled.binds.items() if not bind.required}
        self._texts: dict[tuple[int, ...], _Text] = {}
        self._processors: tuple[Dialect | None, Sequence[tuple[int, Processor]]] = (None, ())

    def fetch(self, session: ReadSession, values: Mapping[str, Any]) -> Sequence[tuple[Any, ...]]:
        if self._constants:
            values = {**self._constants, **values}
        lengths = tuple([len(values[name]) for name in self._lists])
        text = self._texts.get(lengths) or self._expand(lengths, values)
        return fetch(session, text.words, text.parameters(values))

    def records(self, session: ReadSession, values: Mapping[str, Any]) -> Sequence[Any]:
        make, processors = self._record._make, self._result_processors(session.dialect)
        found: list[Any] = []
        for row in self.fetch(session, values):
            meant = list(row)
            for place, process in processors:
                meant[place] = process(meant[place])
            found.append(make(meant))
        return found

    def _expand(self, lengths: tuple[int, ...], values: Mapping[str, Any]) -> _Text:
        binds, by_place = self._compiled.binds, self._dialect.positional
        state = self._compiled.construct_expanded_state({name: values[name] for name in binds})
        order = self._compiled.positiontup or list(binds)
        places = [(name, binds[name].expanding, binds[name].type.bind_processor(self._dialect)) for name in order]
        names = [each for name in order for each in state.parameter_expansion.get(name, [name])]
        text = self._texts[lengths] = _Text(state.statement, places, None if by_place else names)
        return text

    def _result_processors(self, dialect: Dialect) -> Sequence[tuple[int, Processor]]:
        """By place, of columns that may come otherwise than they are meant; all other types are the driver's own.

        They belong to an engine: JSON is read as the engine was told to.
        """
        known, processors = self._processors
        if known is dialect:
            return processors
        kinds = [(place, column.type) for place, column in enumerate(self._columns)]
        ours = [(place, kind) for place, kind in kinds if isinstance(kind, (TypeDecorator, JSON))]
        found = [(place, kind.dialect_impl(dialect).result_processor(dialect, None)) for place, kind in ours]
        processors = [(place, processor) for place, processor in found if processor is not None]
        self._processors = dialect, processors
        return processors

    @cached_property
    def _record(self) -> Any:
        names = [str(column.key) for column in self._columns]
        return namedtuple("Record", names)  # noqa: PYI024 # pyright: ignore[reportUntypedNamedTuple] - names are data


def fetch(session: ReadSession, text: str, parameters: Any) -> Sequence[tuple[Any, ...]]:
    """All rows, within the session's transaction. Raises: DBAPIError."""
    with driver_of(session, text) as driver:
        rows: Sequence[tuple[Any, ...]] = driver.execute(text, parameters).fetchall()
    return rows
