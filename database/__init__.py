"""Where everything is kept: one thread that writes with group commit, a small pool that reads, and the migrations."""

from database.access import Database
from database.checking import find_damage
from database.engine import file_of, parse_database_url
from database.migrating import MIGRATIONS, known_versions
from database.presence import Presence
from database.sessions import ReadSession, WriteSession

__all__ = [
    "MIGRATIONS",
    "Database",
    "Presence",
    "ReadSession",
    "WriteSession",
    "file_of",
    "find_damage",
    "known_versions",
    "parse_database_url",
]
