"""Where everything is kept: one thread that writes with group commit, a small pool that reads, and the migrations."""

from database.access import Database
from database.checking import damage_of, find_damage, find_damage_of_log
from database.engine import file_of, parse_database_url
from database.migrating import MIGRATIONS, known_versions
from database.presence import BEING_REPLACED, Presence
from database.sessions import ReadSession, WriteSession, driver_of
from database.wal import check_room_to_vacuum, log_of

__all__ = [
    "BEING_REPLACED",
    "MIGRATIONS",
    "Database",
    "Presence",
    "ReadSession",
    "WriteSession",
    "check_room_to_vacuum",
    "damage_of",
    "driver_of",
    "file_of",
    "find_damage",
    "find_damage_of_log",
    "known_versions",
    "log_of",
    "parse_database_url",
]
