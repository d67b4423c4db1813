"""Make a backup: one moment of the database, whatever is written meanwhile.

`VACUUM INTO` reads in one transaction, so the copy holds exactly what was committed when it began, and nothing that was
erased before. The log grows meanwhile; it is emptied when the copy is done.
Source: https://www.sqlite.org/lang_vacuum.html (VACUUM with an INTO clause)
"""

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from backups.checking import Content, Refused, check, connect
from database import BEING_REPLACED, Presence

_TELL_EVERY_S = 2.0
_LOOK_EVERY_STEPS = 10_000  # of SQLite's machine: some milliseconds


def make(database_file: Path, backup: Path, *, tell: Callable[[str], None]) -> Content:
    """A checked copy at `backup`, all of it or none. Raises: Refused; OSError, sqlite3.Error."""
    if backup.exists():
        raise Refused(f"{backup} is there already: choose another name, or remove it.")
    if not database_file.is_file():
        raise Refused(f"There is no database at {database_file}: see DATABASE_URL.")
    if not backup.parent.is_dir():
        raise Refused(f"There is no folder {backup.parent}.")
    part = part_of(backup)
    presence = Presence(database_file)
    if not presence.join():
        raise Refused(BEING_REPLACED)
    try:
        copy(database_file, part, mode=database_file.stat().st_mode, tell=tell)
        content = check(part)
        put_in_place(part, backup)
    finally:
        part.unlink(missing_ok=True)
        presence.leave()
    return content


def part_of(file: Path) -> Path:
    """Where a file grows before it gets its name; what a killed process left of it is removed."""
    for left in file.parent.glob(f".{file.name}.*.part*"):
        pid = left.name.removeprefix(f".{file.name}.").partition(".")[0]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            left.unlink(missing_ok=True)
    return file.with_name(f".{file.name}.{os.getpid()}.part")


def copy(source: Path, part: Path, *, mode: int, tell: Callable[[str], None]) -> None:
    """What is committed in `source`, its log included, on disk. Raises: Refused; OSError, sqlite3.Error."""
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # nobody else reads it meanwhile
    try:
        os.fchmod(descriptor, mode & 0o777)
    finally:
        os.close(descriptor)
    with closing(connect(source, "ro")) as connection:
        connection.set_progress_handler(_progress(source, part, tell), _LOOK_EVERY_STEPS)
        try:
            connection.execute("VACUUM INTO ?", (str(part),))
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL:
                raise Refused(f"The disk of {part.parent} is full.") from None
            raise
    sync(part)


def sync(path: Path) -> None:
    """Have a file's bytes, or a folder's names, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_in_place(part: Path, file: Path) -> None:
    """Give a finished file its name, which nothing may have yet."""
    try:
        os.link(part, file)
    except FileExistsError:
        raise Refused(f"{file} is there already: choose another name, or remove it.") from None
    except OSError:  # a file system without hard links
        part.rename(file)
    sync(file.parent)


def _progress(database_file: Path, part: Path, tell: Callable[[str], None]) -> Callable[[], None]:
    tell_at = time.monotonic() + _TELL_EVERY_S

    def look() -> None:
        nonlocal tell_at
        if time.monotonic() >= tell_at and part.exists():
            tell_at = time.monotonic() + _TELL_EVERY_S
            done, whole = part.stat().st_size / 1_000_000, database_file.stat().st_size / 1_000_000
            tell(f"{done:,.0f} MB of at most {whole:,.0f} MB")

    return look
