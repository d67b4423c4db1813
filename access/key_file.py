"""The file of keys: one entry a line, `#` before remarks; read whole or not at all, and replaced in one step."""

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from access.keys import Key, KeysInvalid, parse_entry

_TITLE = "# Keys of the Insights Platform API: name:scope+scope:sha256[:expires]. Changed by `python -m access`.\n"
_MOST_BYTES = 1_000_000
_OWNER_ONLY = 0o600

Signature = tuple[int, int, int]  # differs once the file was written or replaced


def sign(status: os.stat_result) -> Signature:
    return status.st_ino, status.st_mtime_ns, status.st_size


def read_keys(path: Path) -> tuple[Key, ...]:
    """Every key of the file; none where it holds only remarks, which closes the door to everybody.

    Raises: KeysInvalid, naming the line; also for a file of no bytes, which an editor may leave for a moment.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise KeysInvalid(f"{path}: cannot be read: {error.strerror}.") from None
    if not 0 < len(content) <= _MOST_BYTES:
        raise KeysInvalid(f"{path}: is {'larger than 1 MB' if content else 'empty; a file without keys has a remark'}.")
    try:
        return _parse(content.decode("utf-8-sig").splitlines())
    except UnicodeDecodeError:
        raise KeysInvalid(f"{path}: is not UTF-8.") from None
    except KeysInvalid as error:
        raise KeysInvalid(f"{path}: {error}") from None


def _parse(lines: Sequence[str]) -> tuple[Key, ...]:
    found: dict[str, Key] = {}
    for number, line in enumerate(lines, start=1):
        if not (entry := line.partition("#")[0].strip()):
            continue
        try:
            key = parse_entry(entry)
        except KeysInvalid as error:
            raise KeysInvalid(f"line {number} {error}.") from None
        if key.digest in found:
            raise KeysInvalid(f"line {number} has a key that another line has, too; remove one.")
        found[key.digest] = key
    return tuple(found.values())


def add_key(path: Path, key: Key) -> None:
    """Append an entry, in a file that is made if there is none. Raises: KeysInvalid."""
    with _changing(path) as change:
        before = _read_text(path) if path.exists() and path.stat().st_size else ""
        change((before.rstrip("\n") + "\n" if before else _TITLE) + f"{key}\n")


def remove_keys(path: Path, name: str, *, but: str | None = None) -> tuple[Key, ...]:
    """Take the keys of a name out, but for those whose SHA-256 begins with `but`; those taken. Raises: KeysInvalid."""
    with _changing(path) as change:
        lines = _read_text(path).splitlines(keepends=True)
        named = [key for key in read_keys(path) if key.name == name]
        gone = tuple(key for key in named if but is None or not key.digest.startswith(but))
        digests = [key.digest for key in gone]
        kept = "".join(line for line in lines if not any(digest in line.partition("#")[0] for digest in digests))
        if gone:
            change(kept or _TITLE)
        return gone


def _read_text(path: Path) -> str:
    """Raises: KeysInvalid for a file that could not be read whole."""
    read_keys(path)
    return path.read_text(encoding="utf-8-sig")


@contextmanager
def _changing(path: Path) -> Generator[Callable[[str], None], None, None]:
    """Read and write within: the new file's name serves as the lock, so that of two changes at a time one is refused.

    Whoever reads meanwhile sees the file as it was or as it will be; its owner and mode stay.
    """
    path = path.resolve()
    new = _new_of(path)
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    except FileExistsError:
        raise KeysInvalid(f"{new} is there: another change is under way, or was broken off; then remove it.") from None
    except OSError as error:
        raise KeysInvalid(f"{new}: cannot be written: {error.strerror}.") from None
    ours = os.fstat(descriptor)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yield lambda text: _replace(path, text, by=file)
    except OSError as error:
        raise KeysInvalid(f"{path}: cannot be written: {error.strerror}.") from None
    finally:
        with suppress(FileNotFoundError):  # it has taken its place; what is there now may be the next one's
            if os.path.samestat(new.stat(), ours):
                new.unlink()


def _replace(path: Path, text: str, *, by: TextIO) -> None:
    by.write(text)
    by.flush()
    _be_like(path, by.fileno())
    os.fsync(by.fileno())
    _new_of(path).replace(path)


def _new_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _be_like(path: Path, descriptor: int) -> None:
    """Root may change the file of the service's user: it must stay readable to that user."""
    if path.exists():
        status = path.stat()
        os.fchmod(descriptor, status.st_mode & 0o777)
        if os.geteuid() == 0:
            os.fchown(descriptor, status.st_uid, status.st_gid)
