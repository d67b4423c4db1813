"""A key as it is stored: its client's name, what it opens, its SHA-256, and when it ends.

    name:scope+scope:sha256hex[:YYYY-MM-DD]

The key itself is 256 random bits, shown once to whoever makes it. There is nothing to guess, so its hash needs no salt
and no slow function.
"""

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum

_PREFIX = "ins_"  # tells a scanner of leaked secrets, and people, what it is
_KEY_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Scope(StrEnum):
    """What a key can open; none of them holds another."""

    INGEST = "ingest"
    READ = "read"
    CHAT = "chat"
    ADMIN = "admin"


EVERY_SCOPE = frozenset(Scope)


class KeysInvalid(ValueError):
    """Keys that cannot be used; the sentence says where and what to do, and repeats nothing of them."""


@dataclass(frozen=True, slots=True)
class Key:
    """Several keys of one name are one client: it has one share of the limit, whichever it uses."""

    name: str
    scopes: frozenset[Scope]
    digest: str = field(repr=False)  # not secret, but nobody's business: it names the key to whoever has it
    expires: date | None = None  # the first day, in UTC, on which it opens nothing any more

    def __str__(self) -> str:
        parts = [self.name, "+".join(scope for scope in Scope if scope in self.scopes), self.digest]
        return ":".join([*parts, *([self.expires.isoformat()] if self.expires else [])])

    def has_expired(self, today: date) -> bool:
        return self.expires is not None and today >= self.expires


def make_key(name: str, scopes: Iterable[Scope], *, expires: date | None = None) -> tuple[str, Key]:
    """A new key: what the client sends, and what is stored of it. Raises: KeysInvalid for the name."""
    if not _NAME.fullmatch(name):
        raise KeysInvalid("A name has 1 to 64 letters, digits, points, hyphens or underscores.")
    sent = _PREFIX + secrets.token_urlsafe(_KEY_BYTES)
    return sent, Key(name, frozenset(scopes), digest_of(sent.encode()), expires)


def digest_of(sent: bytes) -> str:
    return hashlib.sha256(sent).hexdigest()


def parse_entry(entry: str) -> Key:
    """Raises: KeysInvalid."""
    name, *rest = entry.split(":")
    if not 2 <= len(rest) <= 3:
        raise KeysInvalid("is not of the form name:scope+scope:sha256[:YYYY-MM-DD]")
    if not _NAME.fullmatch(name):
        raise KeysInvalid("has a name that is not 1 to 64 letters, digits, points, hyphens or underscores")
    if not _DIGEST.fullmatch(rest[1]):
        raise KeysInvalid("has no SHA-256 (64 of 0-9 and a-f) in its third place")
    return Key(name, _parse_scopes(rest[0]), rest[1], _parse_day(rest[2]) if len(rest) > 2 else None)


def _parse_scopes(words: str) -> frozenset[Scope]:
    try:
        return frozenset(Scope(word) for word in words.split("+"))
    except ValueError:
        raise KeysInvalid(f"has a scope that is none of {', '.join(Scope)}") from None


def _parse_day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise KeysInvalid("ends in what is not a date like 2027-01-31") from None
