"""Moves a `twcs.csv` file in time, so that its newest row is written now or at a chosen moment.

    python samples/shift_to_now.py [IN.csv] [OUT.csv|-] [--end 2026-01-20T10:00:00Z]

Trends and alerts look at the last hours and days, and a sample is older every day. Every `created_at` is moved by
one constant, so gaps between rows stay; every other byte (quotes, newlines, order, BOM) is copied as it is.
The file is read twice, once for its newest moment and once to copy, a record at a time: size does not matter.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, NamedTuple

SAMPLE = Path(__file__).with_name("support_conversations.csv")
DATE_FORMAT = "%a %b %d %H:%M:%S %z %Y"
MAX_RECORD_BYTES = 1_000_000  # a tweet has under 2 kB; past this a quote was opened and never closed
_BOM = b"\xef\xbb\xbf"
_CLOSING_QUOTE = re.compile(rb'(?:[^"]|"")*+"(?!")')
_FIELD = re.compile(rb'"(?:[^"]|"")*+"[^,\r\n]*|[^,\r\n]*')


class SampleError(ValueError):
    """A file or a moment that cannot be shifted; its sentence says which and why."""


def shift_rows(records: Iterable[bytes], by: timedelta) -> Iterator[bytes]:
    """Copy the header and every record, each `created_at` moved by `by` and in the zone it had.

    Raises: `SampleError` when the column is missing, a date cannot be read, or the result is no date.
    """
    for row in _dated(records):
        if row.at is None:
            yield row.record
            continue
        try:
            moved = row.at + by
        except OverflowError as exc:
            raise SampleError(f"{row.at:%Y-%m-%d} moved by {by} is outside the calendar") from exc
        yield row.record[: row.start] + moved.strftime(DATE_FORMAT).encode() + row.record[row.end :]


def newest_at(records: Iterable[bytes]) -> datetime:
    """The latest `created_at`. Raises: `SampleError`, also when there is no row."""
    newest = max((row.at for row in _dated(records) if row.at is not None), default=None)
    if newest is None:
        raise SampleError("there is no row to shift")
    return newest


def read_records(stream: BinaryIO) -> Iterator[bytes]:
    """Cut a CSV into its records, line ends included; a newline between quotes does not end one."""
    parts: list[bytes] = []
    size = 0
    for line in stream:
        parts.append(line)
        size += len(line)
        if _ends_inside_quotes(line, inside=len(parts) > 1):
            if size > MAX_RECORD_BYTES:
                raise SampleError(f"a quote is opened and not closed: {parts[0][:60]!r}")
            continue
        yield b"".join(parts)
        parts.clear()
        size = 0
    if parts:
        raise SampleError(f"the file ends inside a quoted field: {parts[0][:60]!r}")


def _ends_inside_quotes(line: bytes, *, inside: bool) -> bool:
    """Whether a quoted field is open at the end; only a quote that begins a field opens one, as `csv` has it."""
    position = 0
    while True:
        if inside:
            closing = _CLOSING_QUOTE.match(line, position)
            if closing is None:
                return True
            position = closing.end()
        elif line.startswith(b'"', position):
            inside, position = True, position + 1
            continue
        comma = line.find(b",", position)
        if comma < 0:
            return False
        inside, position = False, comma + 1


class _Dated(NamedTuple):
    """A record, the span of its date without quotes, and the date: none in the header and in a blank line."""

    record: bytes
    start: int = 0
    end: int = 0
    at: datetime | None = None


def _dated(records: Iterable[bytes]) -> Iterator[_Dated]:
    column: int | None = None
    for number, record in enumerate(records, start=1):
        if column is None:
            column = _date_column(record)
            yield _Dated(record)
        elif not record.strip():
            yield _Dated(record)
        else:
            start, end = _span(record, column)
            try:
                at = _parse(record[start:end])
            except SampleError as exc:
                raise SampleError(f"record {number}: {exc}") from exc
            yield _Dated(record, start, end, at)
    if column is None:
        raise SampleError("the file is empty")


def _date_column(header: bytes) -> int:
    names = [name.strip().strip(b'"') for name in header.removeprefix(_BOM).split(b",")]
    if b"created_at" not in names:
        raise SampleError("the first line has no column created_at: this is not a file in the format of twcs.csv")
    return names.index(b"created_at")


def _span(record: bytes, column: int) -> tuple[int, int]:
    """Where a field stands in its record, its quotes left out; (0, 0) of an absent field reads as an empty date."""
    start = end = 0
    for index in range(column + 1):
        if index and record[end : end + 1] != b",":
            return 0, 0
        start = end + 1 if index else 0
        field = _FIELD.match(record, start)
        assert field is not None, "the pattern matches the empty field"
        end = field.end()
    quoted = end - start >= 2 and record[start:end].startswith(b'"') and record[start:end].endswith(b'"')
    return (start + 1, end - 1) if quoted else (start, end)


def _parse(written: bytes) -> datetime:
    text = written.decode("utf-8", "replace")
    try:
        return datetime.strptime(text, DATE_FORMAT)  # noqa: DTZ007 - the format has %z, so the moment is aware
    except ValueError as exc:
        raise SampleError(f"{text!r} is not a date like 'Tue Oct 31 22:10:47 +0000 2017'") from exc


def _shift_file(source: Path, target: str, end: datetime) -> timedelta:
    if target != "-" and Path(target).exists() and source.samefile(target):
        raise SampleError("IN and OUT are the same file: choose another name for OUT")
    with source.open("rb") as stream:
        by = end - newest_at(read_records(stream))
    with source.open("rb") as stream:
        shifted = shift_rows(read_records(stream), by)
        if target == "-":
            sys.stdout.buffer.writelines(shifted)
            sys.stdout.buffer.flush()
            return by
        with Path(target).open("wb") as out:
            out.writelines(shifted)
    return by


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{text!r} is not a moment like 2026-01-20T10:00:00Z") from exc
    if moment.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} has no zone: write {text}Z for UTC")
    return moment.replace(microsecond=0)


def main(arguments: list[str] | None = None) -> int:
    """Shift IN to OUT and say on stderr by how much. Returns the exit status: 0, or 1 with one sentence on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=Path, default=SAMPLE, metavar="IN.csv")
    parser.add_argument("target", nargs="?", default="-", metavar="OUT.csv", help="- is the standard output (default)")
    parser.add_argument("--end", type=_moment, help="when the newest row is written (default: now)")
    chosen = parser.parse_args(arguments)
    end: datetime = chosen.end or datetime.now(UTC).replace(microsecond=0)
    try:
        by = _shift_file(chosen.source, chosen.target, end)
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SampleError as exc:
        print(f"shift_to_now: {chosen.source}: {exc}", file=sys.stderr)
        return 1
    except OSError as exc:
        print(f"shift_to_now: {exc.filename}: {exc.strerror}", file=sys.stderr)
        return 1
    print(f"every created_at moved by {by}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
