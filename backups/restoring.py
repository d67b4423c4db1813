"""Put a backup in the place of the database; at every moment there is a whole one, and the old one is kept."""

import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from backups.checking import Content, Refused, check, connect
from backups.making import copy, part_of, sync
from database import Presence, damage_of


@dataclass(frozen=True, slots=True)
class Restored:
    content: Content
    kept: Path | None  # the old database


def restore(database_file: Path, backup: Path, *, now: datetime) -> Restored:
    """Raises: Refused, when somebody has the database open or the backup is not sound; OSError."""
    there = check(backup)
    if database_file.exists() and backup.samefile(database_file):
        raise Refused("That file is the database itself.")
    database_file = database_file.resolve()
    database_file.parent.mkdir(parents=True, exist_ok=True)
    presence = Presence(database_file)
    if not presence.be_alone():
        raise Refused("The service, or another program of it, has the database open: stop it first.")
    part = part_of(database_file)
    try:
        like = database_file.stat() if database_file.exists() else backup.stat()
        copy(backup, part, mode=like.st_mode, tell=lambda _line: None)
        if os.geteuid() == 0:
            os.chown(part, like.st_uid, like.st_gid)  # the service's user goes on with it
        content = check(part)
        if (content.conversations, content.insights) != (there.conversations, there.insights):
            raise Refused(f"{backup} is being changed: end the program that does.")
        kept = database_file.with_name(f"{database_file.name}.before-restore-{now:%Y%m%dT%H%M%S.%fZ}")
        had_one = _keep_old(database_file, kept)
        part.replace(database_file)
        _beside(database_file, "-shm").unlink(missing_ok=True)
        sync(database_file.parent)
    finally:
        part.unlink(missing_ok=True)
        presence.leave()
    return Restored(content, kept if had_one else None)


def _keep_old(database_file: Path, kept: Path) -> bool:
    """Another name for the old file, which keeps its own until the new one takes it; and no log left beside that.

    A log would be played back into the new file. That of a sound database is folded into it before; what is left of a
    damaged one is kept as it is, file and log, for SQLite would cut off what it cannot use.
    """
    wal = _beside(database_file, "-wal")
    if not (database_file.exists() or wal.exists()):
        return False
    if damage_of(database_file) is None:
        _fold(database_file)
    if database_file.exists():
        _copy_or_link(database_file, kept)
    if wal.exists():
        _copy_or_link(wal, _beside(kept, "-wal"))
        sync(kept.parent)
        wal.unlink()
    sync(kept.parent)
    return True


def _fold(database_file: Path) -> None:
    """Two files cannot be renamed in one step: what is in one of them is whole whatever ends this process."""
    try:
        with closing(connect(database_file, "rw")) as connection:
            busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.Error:
        return  # it is damaged after all: kept as it is, with its log
    if busy:
        raise Refused("Another program reads the database: end it first.")


def _copy_or_link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        raise Refused(f"{target} is there already: try again.") from None
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)
        sync(target)


def _beside(file: Path, ending: str) -> Path:
    return file.with_name(file.name + ending)
