"""Whether a file is a sound database of this service, and what is in it."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from database import find_damage_of_log, known_versions

_COUNTS = "SELECT (SELECT count(*) FROM conversations), (SELECT count(*) FROM insights)"


class Refused(Exception):
    """What was asked for cannot be done, in a sentence that says what to do."""


@dataclass(frozen=True, slots=True)
class Content:
    conversations: int
    insights: int
    size_bytes: int

    def __str__(self) -> str:
        megabytes = self.size_bytes / 1_000_000
        return f"{self.conversations:,} conversations, {self.insights:,} insights, {megabytes:,.1f} MB"


def check(file: Path) -> Content:
    """Read all of it. Raises: Refused, when it is damaged or no database of this version of the service."""
    if not file.is_file():
        raise Refused(f"{file} is no file.")
    if (damage := find_damage_of_log(file)) is not None:
        raise Refused(f"{file} is damaged: {damage}.")
    try:
        with closing(connect(file, "ro")) as connection:
            return _check(connection, file)
    except sqlite3.Error as error:
        raise Refused(f"{file} is no sound database: {error}.") from None


def connect(file: Path, mode: str) -> sqlite3.Connection:
    uri = f"{file.resolve().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30)


def _check(connection: sqlite3.Connection, file: Path) -> Content:
    problems = [row[0] for row in connection.execute("PRAGMA integrity_check(3)")]
    if problems != ["ok"]:
        raise Refused(f"{file} is damaged: {'; '.join(problems)}")
    if connection.execute("PRAGMA foreign_key_check").fetchone() is not None:
        raise Refused(f"{file} is damaged: rows refer to rows that are not there.")
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if not {"alembic_version", "conversations", "insights"} <= tables:
        raise Refused(f"{file} is no database of this service.")
    version = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    if version is None or version[0] not in known_versions():
        raise Refused(f"{file} was made by a newer version of the service: use that one.")
    conversations, insights = connection.execute(_COUNTS).fetchone()
    return Content(conversations, insights, file.stat().st_size)
