"""What is counted for the operator, in the transaction in which it happens; and the INSERT that knows conflicts."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite

from database import WriteSession
from models import TallyRow


def add_tallies(session: WriteSession, counts: Mapping[str, int]) -> None:
    """Count what happened, in its own transaction; names in one order, so that replicas do not lock crosswise."""
    if not counts:
        return
    rows = [{"name": name, "count": count} for name, count in sorted(counts.items())]
    statement = insert_of(session)(TallyRow).values(rows)
    more = {"count": TallyRow.count + statement.excluded.count}
    session.execute(statement.on_conflict_do_update(index_elements=["name"], set_=more))


def insert_of(session: WriteSession) -> Any:
    """The dialect's own INSERT: only that has ON CONFLICT."""
    return postgresql.insert if session.dialect.name == "postgresql" else sqlite.insert
