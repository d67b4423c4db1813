"""The keys that open the service now: those of the settings, and those of a file that is read again when it changes."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from access.key_file import Signature, read_keys, sign
from access.keys import EVERY_SCOPE, Key, KeysInvalid, Scope, digest_of, parse_entry
from telemetry import get_logger

log = get_logger()

_LOOK_EVERY_S = 1.0  # what a revoked key has left, at most
_MAKE_ONE = "python -m access create --name NAME --scope read"


def open_keys(
    entries: Sequence[str],
    file: Path | None,
    *,
    production: bool,
    allow_anonymous: bool,
    monotonic: Callable[[], float],
    now: Callable[[], datetime],
) -> "KeyRing":
    """The ring of what API_KEYS and API_KEYS_FILE name. Raises: KeysInvalid, with a sentence for the operator."""
    if production and not entries and file is None and not allow_anonymous:
        raise KeysInvalid(
            "ENVIRONMENT=production and neither API_KEYS nor API_KEYS_FILE:\n"
            "whoever reaches the service could read and erase everything.\n"
            f"Make a key with `{_MAKE_ONE} --file keys.txt` and set API_KEYS_FILE=keys.txt,\n"
            "or let everybody in with ALLOW_ANONYMOUS=true."
        )
    keys = tuple(_read_entry(entry, place, production=production) for place, entry in enumerate(entries, start=1))
    watched = None if file is None else WatchedFile(file, monotonic=monotonic)
    return KeyRing(keys, watched, now)


def _read_entry(entry: str, place: int, *, production: bool) -> Key:
    """An entry, or outside production a key itself, which opens everything."""
    if ":" in entry:
        try:
            return parse_entry(entry)
        except KeysInvalid as error:
            raise KeysInvalid(f"API_KEYS: entry {place} {error}; make one with `{_MAKE_ONE}`.") from None
    if production:
        raise KeysInvalid(
            f"API_KEYS: entry {place} is a key itself, and ENVIRONMENT=production takes only its SHA-256.\n"
            f"Make another with `{_MAKE_ONE}`, and put the entry that it prints in the key's place."
        )
    return Key(f"API_KEYS {place}", EVERY_SCOPE, digest_of(entry.encode()))  # a blank: no entry can have this name


class WatchedFile:
    """Its keys, looked up once more when it has changed; what cannot be read changes nothing."""

    def __init__(self, path: Path, *, monotonic: Callable[[], float]) -> None:
        """Raises: KeysInvalid: a start without its keys is no start."""
        self._path = path.absolute()
        self._monotonic = monotonic
        self._looked_at = monotonic()
        self._seen = self._look()
        self._keys = read_keys(self._path)

    @property
    def keys(self) -> tuple[Key, ...]:
        """At most one look a second, which costs some microseconds."""
        now = self._monotonic()
        if now - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at = now
            if (seen := self._look()) != self._seen:
                self._seen = seen
                self._read_again()
        return self._keys

    def _look(self) -> Signature | None:
        try:
            return sign(self._path.stat())
        except OSError:
            return None

    def _read_again(self) -> None:
        try:
            self._keys = read_keys(self._path)
        except KeysInvalid as error:
            log.error("keys_unusable", details=f"{error} The keys that it held before stay in use.")
        else:
            log.info("keys_read", keys=len(self._keys))


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what they may."""

    client: str  # whose share of the limit it is: by the key's name, else an address
    scopes: frozenset[Scope] = EVERY_SCOPE
    key_name: str | None = None
    is_welcome: Callable[[], bool] = lambda: True  # still, for what takes long: a key can be revoked meanwhile


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Who has which key; without any configured the service is open to everybody."""

    _keys: tuple[Key, ...]
    _file: WatchedFile | None
    _now: Callable[[], datetime]

    @property
    def asks(self) -> bool:
        """Whether a key is asked for. Decided once: an emptied file opens nothing."""
        return bool(self._keys) or self._file is not None

    def find(self, sent: bytes) -> Key | None:
        """The key that was sent, if it is one of ours and has not expired."""
        digest = digest_of(sent)
        found = None
        for key in self._live():
            if secrets.compare_digest(key.digest, digest):
                found = key  # and on: how long it takes says nothing of where it stands
        return found

    def holds(self, key: Key) -> bool:
        """Whether a key that was found still opens something."""
        return key in self._live()

    def _live(self) -> list[Key]:
        keys = self._keys if self._file is None else (*self._keys, *self._file.keys)
        today = self._now().date()
        return [key for key in keys if not key.has_expired(today)]
