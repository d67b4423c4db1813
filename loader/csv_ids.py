"""Which name a row goes by: the file's own id where it can be trusted, else its content and position."""

import hashlib
import re
import sqlite3
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from loader.csv_formats import ColumnMap

MAX_NAME_CHARS = 255  # what the service takes
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "nil", "#n/a", "nat"})
_CONFLICT_SHARE = 0.05  # more rows than this with another row's id: the ids are lossy
_SAMPLED_IDS = 50_000  # bounds the memory of the id survey
_FILTER_BITS = 1 << 25  # 4 MB a filter; at 2.8 million rows 4 % look up the disk in vain
_E_NOTATION = re.compile(r"\d+(?:[.,]\d+)?[eE]\+?\d+")
_WHOLE_FLOAT = re.compile(r"(\d+)\.0+")
_STATUS_LINK = re.compile(r"https?://\S+/status(?:es)?/(\d+)")


def cell_at(cells: list[str], at: int | None) -> str:
    return cells[at] if at is not None and at < len(cells) else ""


def read_id(cell: str) -> str | None:
    """An id without what tools add to it (`3.0`, `="3"`, a link around it); None for a missing or rounded one."""
    value = cell.strip().strip("=\"'").strip()
    if value.lower() in MISSING or _E_NOTATION.fullmatch(value) or not value.strip("#"):
        return None
    whole = _WHOLE_FLOAT.fullmatch(value)
    link = _STATUS_LINK.match(value)
    return whole[1] if whole else link[1] if link else value


def content_of(cells: list[str], columns: ColumnMap) -> str:
    return "\x1f".join(
        (cell_at(cells, columns.text_at), cell_at(cells, columns.author_at), cell_at(cells, columns.time_at))
    )


@dataclass(slots=True)
class IdSurvey:
    """A sample of an id column, bounded by keeping only ids whose hash ends in ever more zero bits."""

    row_count: int = 0
    missing_count: int = 0
    rounded_count: int = 0
    long_count: int = 0
    trailing_zeros_count: int = 0
    sampled_count: int = 0
    conflict_count: int = 0
    _mask: int = 0
    _first: dict[str, int] = field(default_factory=dict[str, int])

    def observe(self, cell: str, content: str) -> str | None:
        self.row_count += 1
        value = read_id(cell)
        if value is None:
            self.rounded_count += _E_NOTATION.fullmatch(cell.strip()) is not None
            self.missing_count += 1
            return None
        if len(value) >= 16 and value.isdigit():
            self.long_count += 1
            self.trailing_zeros_count += value.endswith("000")
        if zlib.crc32(value.encode()) & self._mask == 0:
            self._sample(value, hash(content))
        return value

    def fault(self) -> str | None:
        """Why the ids cannot be keys; None when they can."""
        if self.rounded_count > 0.01 * self.row_count:
            return f"{self.rounded_count} of {self.row_count} are rounded to the form 5.7E+17"
        if self.missing_count > 0.5 * self.row_count:
            return f"{self.missing_count} of {self.row_count} are missing"
        if self.long_count > 0.5 * self.row_count and self.trailing_zeros_count > 0.9 * self.long_count:
            return "a spreadsheet rounded them to 15 digits"
        if self.conflict_count > _CONFLICT_SHARE * self.sampled_count:
            return f"about {len(self._first) * (self._mask + 1)} distinct values in {self.row_count} rows"
        return None

    def _sample(self, value: str, content_hash: int) -> None:
        self.sampled_count += 1
        if self._first.setdefault(value, content_hash) != content_hash:
            self.conflict_count += 1
        if len(self._first) > _SAMPLED_IDS:
            self._mask = self._mask * 2 + 1
            self._first = {key: kept for key, kept in self._first.items() if zlib.crc32(key.encode()) & self._mask == 0}
            self.sampled_count //= 2
            self.conflict_count //= 2


class Repeats:
    """Which values may occur more than once: two filters of fixed size, wrong only on the safe side."""

    def __init__(self) -> None:
        self._seen = bytearray(_FILTER_BITS // 8)
        self._again = bytearray(_FILTER_BITS // 8)

    def add(self, value: str) -> None:
        at, bit = self._place(value)
        if self._seen[at] & bit:
            self._again[at] |= bit
        self._seen[at] |= bit

    def __contains__(self, value: str) -> bool:
        at, bit = self._place(value)
        return bool(self._again[at] & bit)

    def _place(self, value: str) -> tuple[int, int]:
        slot = hash(value) % _FILTER_BITS
        return slot >> 3, 1 << (slot & 7)


class Identity:
    """The external id of each row: the file's own, or its content and position within equal content.

    A trusted id that comes again with other content gets that content's digest added, so that no row is lost.
    """

    def __init__(self, columns: ColumnMap, id_at: int | None, *, repeated: Repeats) -> None:
        self._columns = columns
        self._id_at = id_at
        self._repeated = repeated
        self._prefix = columns.prefix
        if id_at is not None and id_at != columns.id_at[0]:
            self._prefix += f"-{columns.names[id_at].strip('_')}"
        # a private file that SQLite removes: memory stays constant; a load that is broken off is closed by the garbage
        # collector, in whichever thread that runs
        self._disk = sqlite3.connect("", check_same_thread=False)
        self._disk.execute("CREATE TABLE seen (key TEXT PRIMARY KEY, content TEXT, n INTEGER) WITHOUT ROWID")

    def close(self) -> None:
        self._disk.close()

    def name(self, cells: list[str], payload: Mapping[str, object]) -> str:
        own_id = read_id(cell_at(cells, self._id_at))
        content = content_of(cells, self._columns)
        if own_id is None:
            return self._by_content(content)
        name = f"{self._prefix}:{own_id}"
        if len(name) > MAX_NAME_CHARS:
            name = f"{self._prefix}:{_digest(own_id)}"
        if f"{self._id_at}={own_id}" not in self._repeated:
            return name
        sent = _digest(orjson.dumps(payload))
        return name if self._first_content(name, sent) == sent else f"{name}~{sent}"

    def _by_content(self, content: str) -> str:
        digest = _digest(content)
        name = f"{self._columns.prefix}:h{digest}"
        if content not in self._repeated:
            return name
        count = "INSERT INTO seen VALUES (?, '', 1) ON CONFLICT (key) DO UPDATE SET n = n + 1 RETURNING n"
        position: int = self._disk.execute(count, (digest,)).fetchone()[0]
        return name if position == 1 else f"{name}-{position}"

    def _first_content(self, name: str, content: str) -> str:
        remember = "INSERT INTO seen VALUES (?, ?, 1) ON CONFLICT (key) DO UPDATE SET n = n + 1 RETURNING content"
        first: str = self._disk.execute(remember, (name, content)).fetchone()[0]
        return first


def _digest(*parts: object) -> str:
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=10).hexdigest()
