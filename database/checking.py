"""Whether a SQLite file is damaged, found out before anything opens it: a start must not build on what is broken.

SQLite itself says nothing when the end of its log is damaged or lost: it takes what is whole and forgets the rest, as
it must after a crash. But what was committed is known twice: from the index of the log (`-shm`), which a killed process
leaves behind, and from later commits in the log itself.
Source: https://www.sqlite.org/fileformat2.html#the_write_ahead_log, https://www.sqlite.org/walformat.html
"""

import sqlite3
import struct
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from database.presence import Presence
from telemetry import get_logger

log = get_logger()

_MOST_S = 5.0  # of a start; then the rest is left unread, see docs/adr/0017
_INTERRUPT_EVERY_S = 0.05
_MOST_LOG_BYTES = 64 * 1024 * 1024  # of a log that is summed up: a second
_WAL_HEADER, _FRAME_HEADER = 32, 24
_INDEX_HEADER = 48  # twice, then how far the log has been folded into the file
_BIG_ENDIAN_SUMS = 0x377F0683
_HOST_ORDER = "<" if sys.byteorder == "little" else ">"


def find_damage(file: Path, *, most_s: float = _MOST_S) -> str | None:
    """What is wrong with the file, in words, or None; changes nothing.

    Whoever has it open already has checked it, so then nothing is read. Raises: OSError.
    """
    return _if_first(file, lambda: damage_of(file, most_s=most_s)) if file.parent.is_dir() else None


def find_damage_of_log(file: Path) -> str | None:
    """The same of its log alone, of which SQLite itself says nothing."""
    wal = _beside(file, "-wal")
    if not _size_of(wal):
        return None
    return _if_first(file, lambda: _damage_of_log(*_log_of(file)))


def _if_first(file: Path, look: Callable[[], str | None]) -> str | None:
    presence = Presence(file)
    try:
        return look() if presence.be_first() else None
    finally:
        presence.leave()


def damage_of(file: Path, *, most_s: float = _MOST_S) -> str | None:
    """The same for who knows that nobody has it open."""
    wal, shm = _log_of(file)
    if not _size_of(file):
        if wal:
            return "the file is empty or gone, but its log is there"
        if file.exists() and _beside(file, ".lock").exists():
            return "the file is empty, but it has been in use"
        return None
    return _damage_of_log(wal, shm) or _damage_of_pages(file, most_s)


def _log_of(file: Path) -> tuple[bytes, bytes]:
    shm = _beside(file, "-shm")
    index = _bytes(shm, 2 * _INDEX_HEADER + 4) if _is_of_this_boot(shm) else b""
    return _bytes(_beside(file, "-wal"), _MOST_LOG_BYTES), index


def _is_of_this_boot(path: Path) -> bool:
    """The index of the log is never synced: after a power failure it may be older than the log it is about."""
    try:
        boot_at = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return path.stat().st_mtime > boot_at
    except (AttributeError, FileNotFoundError):  # the clock is Linux's
        return False


def _damage_of_log(wal: bytes, shm: bytes) -> str | None:
    frames = _Frames.of(wal)
    index = _Index.of(shm)
    if index is not None and index.frames > index.folded:
        begins_anew = len(wal) >= _WAL_HEADER and wal[16:24] != index.salt  # and what was before has been folded
        if not begins_anew and frames.whole < index.frames and len(wal) < _MOST_LOG_BYTES:
            return "the end of its log (-wal) is damaged or missing"
    return "its log (-wal) is damaged before its end" if frames.committed_later else None


def _damage_of_pages(file: Path, most_s: float) -> str | None:
    is_late = threading.Event()
    try:
        uri = f"{file.resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as connection, _interrupted(connection, is_late, after_s=most_s):
            found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.DatabaseError as error:
        found = str(error)
        if error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            return found
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            return None  # it is met again when the file is opened
    if found == "ok":
        return None
    if is_late.is_set():  # what was left half read looks as if its other pages belonged to nothing
        log.warning("check_cut_short", seconds=most_s, remedy=f"python -m backups check {file} reads all of it")
        return None
    return found.replace("\n", " ")


@contextmanager
def _interrupted(
    connection: sqlite3.Connection, is_late: threading.Event, *, after_s: float
) -> Generator[None, None, None]:
    """A whole tree is checked in one step of SQLite's machine, which looks for an interrupt at every page of it.

    Again and again, for one that comes before the first step is forgotten.
    """
    is_over = threading.Event()

    def interrupt() -> None:
        wait_s = after_s
        while not is_over.wait(wait_s):
            is_late.set()
            connection.interrupt()
            wait_s = _INTERRUPT_EVERY_S

    interrupting = threading.Thread(target=interrupt, name="interrupting", daemon=True)
    interrupting.start()
    try:
        yield
    finally:
        is_over.set()
        interrupting.join()  # an interrupt must not meet a closed connection


@dataclass(frozen=True, slots=True)
class _Frames:
    """Of a log: how many are whole, from the first on, and whether more than one commit follows after these."""

    whole: int
    committed_later: bool

    @classmethod
    def of(cls, wal: bytes) -> "_Frames":
        if len(wal) < _WAL_HEADER + _FRAME_HEADER:
            return cls(0, committed_later=False)
        magic, _, page_size = struct.unpack(">III", wal[:12])
        order = ">" if magic == _BIG_ENDIAN_SUMS else "<"
        salt, sums = wal[16:24], _sums(wal[:24], (0, 0), order)
        header_is_whole = struct.pack(">II", *sums) == wal[24:32]
        if not header_is_whole:  # what follows says of itself how it was
            page_size, salt = 4096, wal[40:48]
        size = _FRAME_HEADER + page_size
        if page_size < 512 or size > len(wal):
            return cls(0, committed_later=False)
        starts = range(_WAL_HEADER, len(wal) - size + 1, size)
        whole = 0
        for start in starts if header_is_whole else ():
            frame = wal[start : start + size]
            sums = _sums(frame[24:], _sums(frame[:8], sums, order), order)
            if frame[8:16] != salt or struct.pack(">II", *sums) != frame[16:24]:
                break
            whole += 1
        rest = [wal[start : start + 16] for start in starts[whole:]]
        return cls(whole, committed_later=_committed_later([head[4:8] for head in rest if head[8:16] == salt]))


def _committed_later(commits: list[bytes]) -> bool:
    """A crash can tear one commit, and what it had begun to write is last: something after a commit was synced."""
    ends = [number for number, pages in enumerate(commits) if pages != bytes(4)]
    return bool(ends) and ends[0] < len(commits) - 1


@dataclass(frozen=True, slots=True)
class _Index:
    """What a process that was killed left in `-shm`: so many frames were committed, so many are in the file, too."""

    frames: int
    folded: int
    salt: bytes

    @classmethod
    def of(cls, shm: bytes) -> "_Index | None":
        header = shm[:_INDEX_HEADER]
        if len(shm) < 2 * _INDEX_HEADER + 4 or header != shm[_INDEX_HEADER : 2 * _INDEX_HEADER]:
            return None
        if struct.pack("=II", *_sums(header[:40], (0, 0), _HOST_ORDER)) != header[40:48]:
            return None
        [frames] = struct.unpack("=I", header[16:20])
        [folded] = struct.unpack("=I", shm[2 * _INDEX_HEADER : 2 * _INDEX_HEADER + 4])
        return cls(frames, folded, header[32:40])


def _sums(words: bytes, sums: tuple[int, int], order: str) -> tuple[int, int]:
    one, two = sums
    numbers = iter(struct.unpack(f"{order}{len(words) // 4}I", words))
    for first, second in zip(numbers, numbers, strict=True):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return one, two


def _bytes(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except FileNotFoundError:  # also when the last process to have it open has just put it away
        return b""


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _beside(file: Path, ending: str) -> Path:
    return file.with_name(file.name + ending)
