"""Lines in, records out: the dialect is scored, and rows that bare CRs, stray quotes or commas tore are mended."""

import csv
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

MAX_FIELD_CHARS = 4 * 1024 * 1024  # a longer field is a swallowed file; it bounds the memory of one record
_HEAD_LINES = 2_000
_HEAD_CHARS = 2 * 1024 * 1024
_DELIMITERS = (",", "\t", ";", "|")
_NO_DELIMITER = "\x1f"  # one column: the commas in it are prose
_SWALLOW_LINES = 4  # longer records are looked into; tweets rarely have more lines

Repair = Literal["bare CR", "unbalanced quotes", "unquoted delimiter", "foreign delimiter", "short row"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How cells are told apart."""

    delimiter: str = ","
    escape: str | None = None
    skip_blank: bool = False

    def split(self, lines: Iterable[str], *, strict: bool = False) -> Iterator[list[str]]:
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            escapechar=self.escape,
            skipinitialspace=self.skip_blank,
            strict=strict,
        )

    def split_line(self, line: str) -> list[str]:
        """One line alone; an open quote ends with it."""
        try:
            return next(self.split([line.replace("\r", " ").rstrip("\n ")]))
        except (csv.Error, StopIteration):
            return []


@dataclass(frozen=True, slots=True)
class Shape:
    """What a whole row of this file looks like; `labels` are the values of the column `label_at`."""

    dialect: Dialect
    width: int
    text_at: int = 0
    label_at: int | None = None
    labels: frozenset[str] = frozenset()

    def fits(self, cells: list[str]) -> bool:
        return len(cells) == self.width and (self.label_at is None or cells[self.label_at].strip() in self.labels)

    def mend(self, cells: list[str]) -> list[str] | None:
        """Join a text that its own commas had split, so that the row fits again; None when it cannot."""
        for last in range(self.text_at + 1, len(cells)):
            joined = self.dialect.delimiter.join(cells[self.text_at : last + 1])
            mended = [*cells[: self.text_at], joined, *cells[last + 1 :]]
            while len(mended) > self.width and not mended[-1].strip():
                mended.pop()
            mended.extend([""] * (self.width - len(mended)))
            if self.fits(mended):
                return mended
        return None


@dataclass(frozen=True, slots=True)
class Record:
    """One row as read: where it starts, its cells, what was mended, or why it cannot be used."""

    line: int
    cells: list[str]
    repair: Repair | None = None
    fault: str | None = None


def read_head(lines: Iterable[str]) -> list[str]:
    """The first lines, enough to tell dialect and columns."""
    head: list[str] = []
    size = 0
    for line in islice(lines, _HEAD_LINES):
        head.append(line)
        size += len(line)
        if size > _HEAD_CHARS:
            break
    return head


def choose_dialect(head: list[str]) -> Dialect:
    """The dialect under which most rows have the same width; no delimiter where none divides the rows evenly.

    Variants (backslash escapes, a blank after the delimiter) only win where they divide more rows evenly.
    """
    text = "".join(head[:200])
    best, best_score = Dialect(_NO_DELIMITER), 0.6
    for delimiter in _DELIMITERS:
        variants = [Dialect(delimiter)]
        if '\\"' in text:
            variants.append(Dialect(delimiter, escape="\\"))
        if f'{delimiter} "' in text:
            variants.append(Dialect(delimiter, skip_blank=True))
        for dialect in variants:
            score = _evenness(split_head(head, dialect))
            if score > best_score:
                best, best_score = dialect, score
    return best


def split_head(head: list[str], dialect: Dialect) -> list[list[str]]:
    """The rows of the head, without blank ones and without what follows an unreadable line."""
    return [record.cells for record in read_records(head, Shape(dialect, 0)) if record.fault is None]


def modal_width(rows: list[list[str]]) -> int:
    return Counter(len(row) for row in rows).most_common(1)[0][0] if rows else 0


def learn_shape(rows: list[list[str]], dialect: Dialect, *, width: int, text_at: int) -> Shape:
    """The shape of a file from its first rows: its width, and beside the text a column of few short values, if any."""
    shape = Shape(dialect, width, text_at)
    for column in (text_at + 1, text_at - 1):
        if 0 <= column < width <= 6:  # wide rows show damage by their width alone
            labels = _closed_set([row[column].strip() for row in rows if len(row) == width])
            if labels:
                return replace(shape, label_at=column, labels=labels)
    return shape


def read_records(lines: Iterable[str], shape: Shape) -> Iterator[Record]:
    """Every non-blank record, mended where it was torn; `line` counts physical lines from 1.

    A record that runs over lines which are whole rows themselves had an unbalanced quote: it is read line by line.
    """
    csv.field_size_limit(MAX_FIELD_CHARS)
    tape = _Tape(lines)
    held: tuple[Record, list[str]] | None = None
    while True:
        record = _next_record(tape, shape)
        if held is not None:
            if record is None:
                held = (_check_end(held[0], shape, lines=held[1]), held[1])
            if _worth_telling(held[0]):
                yield held[0]
        if record is None:
            return
        held = (record, tape.taken)


class _Tape:
    """A line iterator that remembers the lines of the record being read and takes lines back."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._returned: deque[str] = deque()
        self.taken: list[str] = []
        self.line_count = 0
        self.reader: Iterator[list[str]] | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._returned.popleft() if self._returned else next(self._lines)
        self.line_count += 1
        self.taken.append(line)
        return line

    def give_back(self, lines: list[str]) -> None:
        self._returned.extendleft(reversed(lines))
        self.line_count -= len(lines)
        self.reader = None


def _next_record(tape: _Tape, shape: Shape) -> Record | None:
    tape.taken = []
    line = tape.line_count + 1
    if tape.reader is None:
        tape.reader = shape.dialect.split(tape)
    try:
        cells = next(tape.reader)
    except StopIteration:
        return None
    except csv.Error as exc:
        tape.reader = None
        return _recover(tape, shape, line=line, too_large="field limit" in str(exc))
    if len(tape.taken) > 1 and _is_swallow(tape.taken, shape, cells=cells):
        return _release(tape, shape, line=line)
    if not shape.width or shape.fits(cells):
        return Record(line, cells)
    return _reshape(Record(line, cells), shape)


def _recover(tape: _Tape, shape: Shape, *, line: int, too_large: bool) -> Record:
    """A row the reader stumbled over: a bare CR outside quotes is a blank, an endless field is given up."""
    lines = tape.taken
    if too_large:
        if len(lines) > 1 and _is_swallow(lines[:1000], shape, cells=[]):
            return _release(tape, shape, line=line)
        return Record(line, [lines[0][:200]], fault=f"a field has more than {MAX_FIELD_CHARS} characters")
    try:
        cells = next(shape.dialect.split([_blank_out(text) for text in lines]))
    except (csv.Error, StopIteration):
        return Record(line, [lines[0]], fault="the row cannot be read as CSV")
    return _reshape(Record(line, cells, "bare CR"), shape)


def _blank_out(line: str) -> str:
    body = line.rstrip("\r\n")
    return body.replace("\r", " ").replace("\n", " ") + line[len(body) :]


def _is_swallow(lines: list[str], shape: Shape, *, cells: list[str]) -> bool:
    """Whether most lines inside a record are whole rows themselves."""
    if not shape.width or (shape.fits(cells) and len(lines) <= _SWALLOW_LINES):
        return False
    inner = lines[1:]
    row_count = sum(_read_alone(line, shape) is not None for line in inner)
    return row_count * 2 >= len(inner)


def _read_alone(line: str, shape: Shape) -> list[str] | None:
    """The cells of one line that is a whole row, divided by this file's delimiter or another; None when it is not."""
    if shape.width < 4 and shape.label_at is None:
        return None
    for delimiter in (shape.dialect.delimiter, *_DELIMITERS):
        cells = replace(shape.dialect, delimiter=delimiter).split_line(line)
        if len(cells) < 2:
            continue
        if shape.fits(cells):
            return cells
        mended = replace(shape, dialect=replace(shape.dialect, delimiter=delimiter)).mend(cells)
        padded = [*cells, *[""] * (shape.width - len(cells))]
        if shape.label_at is not None and shape.fits(padded):
            return padded
        if shape.label_at is not None and mended is not None:
            return mended
    return None


def _release(tape: _Tape, shape: Shape, *, line: int) -> Record:
    """Read the first line of a swallowed run alone and give the others back."""
    first, *others = tape.taken
    tape.give_back(others)
    tape.taken = [first]
    cells = _read_alone(first, shape) or shape.dialect.split_line(first)
    return Record(line, cells, "unbalanced quotes")


def _reshape(record: Record, shape: Shape) -> Record:
    """Bring a row of the wrong width back to the width, if it can be."""
    cells = record.cells
    if not shape.width or shape.fits(cells) or not any(cell.strip() for cell in cells):
        return record
    if len(cells) > shape.width and not any(cell.strip() for cell in cells[shape.width :]):
        return _reshape(replace(record, cells=cells[: shape.width]), shape)
    if len(cells) != shape.width or _has_spilled(cells, shape):
        mended = shape.mend(cells)
        if mended is not None:
            return replace(record, cells=mended, repair=record.repair or "unquoted delimiter")
    if len(cells) < shape.width:
        alone = _read_alone(shape.dialect.delimiter.join(cells), shape) if shape.label_at is not None else None
        if alone is not None:
            return replace(record, cells=alone, repair=record.repair or "foreign delimiter")
        padded = [*cells, *[""] * (shape.width - len(cells))]
        return replace(record, cells=padded, repair=record.repair or "short row")
    return record


def _has_spilled(cells: list[str], shape: Shape) -> bool:
    """Whether prose stands where a label belongs."""
    at = shape.text_at + 1
    return shape.label_at == at and len(cells[at]) > max(map(len, shape.labels), default=0)


def _check_end(record: Record, shape: Shape, *, lines: list[str]) -> Record:
    """The last record of a file that was cut off inside it is of no use: half a text would be read as a whole one."""
    if record.fault is not None or record.repair == "unbalanced quotes":
        return record
    probe = [*(_blank_out(line.rstrip("\r\n")) + "\n" for line in lines), "next"]
    if len(list(shape.dialect.split(probe))) == 1:  # the next row would still be inside the quotes
        return replace(record, fault="the file ends inside a quoted field: the row is cut off")
    if record.repair == "short row" and not lines[-1].endswith(("\n", "\r")):
        return replace(record, fault="the file ends in the middle of the row")
    return record


def _worth_telling(record: Record) -> bool:
    if record.line == 1 and "".join(record.cells) == "sep=":  # how spreadsheets name the delimiter
        return False
    return record.fault is not None or any(cell and not cell.isspace() for cell in record.cells)


def _closed_set(values: list[str]) -> frozenset[str]:
    """The few short values that fill most of a column; empty when the column is free text or numbers."""
    counts = Counter(value for value in values if value)
    total = sum(counts.values())
    common = [value for value, count in counts.most_common(8) if count >= total * 0.05 and len(value) <= 24]
    if total < 10 or sum(counts[value] for value in common) < total * 0.6 or not 2 <= len(common) <= 6:
        return frozenset()
    return frozenset(value for value in counts if value in common)


def _evenness(rows: list[list[str]]) -> float:
    """The share of rows that have the commonest width; 0 when that is one column, or when the first row is one."""
    width = modal_width(rows)
    if width < 2 or len(rows[0]) < 2:
        return 0.0
    return sum(len(row) == width for row in rows) / len(rows) + (0.1 if len(rows[0]) == width else 0.0)
