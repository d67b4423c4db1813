"""Write a database anew in its place: unused room of its pages, where copies of what was erased may be, is gone."""

from contextlib import closing
from pathlib import Path

from backups.checking import Content, Refused, check, connect
from database import Presence, check_room_to_vacuum
from errors import StorageFull


def vacuum(database_file: Path) -> Content:
    """What is in it. Raises: Refused, when somebody has it open, it is not sound or there is no room for it; OSError,
    sqlite3.Error.
    """
    check(database_file)
    _check_room(database_file)
    presence = Presence(database_file)
    if not presence.be_alone():
        raise Refused("The service, or another program of it, has the database open: stop it first.")
    try:
        with closing(connect(database_file, "rw")) as connection:
            connection.execute("PRAGMA secure_delete=ON").close()
            connection.execute("VACUUM").close()
            if connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                raise Refused("Another program reads the database: end it first.")
    finally:
        presence.leave()
    return check(database_file)


def _check_room(database_file: Path) -> None:
    try:
        check_room_to_vacuum(database_file)
    except StorageFull as full:
        raise Refused(full.details) from full
