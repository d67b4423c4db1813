"""What a unit of work is handed: the type says whether it may write."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NewType

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

ReadSession = NewType("ReadSession", Connection)  # queries take this
WriteSession = NewType("WriteSession", ReadSession)  # store takes this: handing it a ReadSession does not type-check


@contextmanager
def driver_of(connection: Connection, statement: str) -> Generator[Any, None, None]:
    """The driver's own connection, for a short statement: SQLAlchemy's share of it is more than the database's.

    Raises: DBAPIError.
    """
    driver_errors = connection.dialect.loaded_dbapi.Error
    try:
        yield connection.connection.driver_connection
    except driver_errors as error:
        raise DBAPIError.instance(statement, None, error, driver_errors, dialect=connection.dialect) from error
