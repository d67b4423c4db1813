"""Files, archives and stdin as lines of text: what is not a CSV is refused, encoding and newlines are found first."""

import codecs
import gzip
import io
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

import ftfy

_CHUNK_BYTES = 1 << 20
_HEAD_BYTES = 64 * 1024
_MAX_LINE_CHARS = 64 * 1024 * 1024  # a longer line is no table; it bounds the memory of a file without newlines
_MAX_FRAGMENTS = 2_000  # enough to tell encodings apart, small enough to score at once
_UNDECODED = re.compile("[\udc80-\udcff]")
_HIGH_BYTES = re.compile(rb"[^\r\n\x80-\xff]{0,24}[\x80-\xff]+[^\r\n]{0,24}")
_TYPOGRAPHIC = frozenset("‘’“”–—…•™®©€£°´«»·¡¿ \u00a0")  # noqa: RUF001 - these very characters
_SINGLE_BYTE_ENCODINGS = ("cp1252", "mac_roman", "latin-1")
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


class SourceError(Exception):
    """A file that cannot be loaded; the sentence says what it is and what to do."""


class RowEnd(StrEnum):
    LF = "LF"
    CRLF = "CRLF"
    CR = "CR"


@dataclass(frozen=True, slots=True)
class Source:
    """One stream of rows on disk: a file, a gzip file, or one member of a zip archive."""

    name: str
    path: Path
    member: str | None = None

    def open(self) -> BinaryIO:
        if self.member is not None:
            with zipfile.ZipFile(self.path) as archive:  # the member keeps the file open
                return io.BufferedReader(archive.open(self.member))  # type: ignore[type-var]  # typeshed: no readinto
        with self.path.open("rb") as stream:
            packed = stream.read(2) == b"\x1f\x8b"
        return io.BufferedReader(gzip.GzipFile(self.path)) if packed else self.path.open("rb")


@dataclass(frozen=True, slots=True)
class TextForm:
    """How the bytes of a source become lines."""

    encoding: str
    row_end: RowEnd
    size_bytes: int
    undecoded_count: int = 0
    nul_count: int = 0


def find_sources(argument: str, spool: Path) -> list[Source]:
    """What one FILE argument stands for; stdin (`-`) is first kept in `spool`, because a load reads twice.

    Raises SourceError for what does not exist, holds nothing, or is a workbook.
    """
    path = _spool_stdin(spool) if argument == "-" else Path(argument)
    name = "stdin" if argument == "-" else argument
    if path.is_dir():
        raise SourceError(f"{name} is a folder: name the CSV files in it.")
    if not path.exists():
        raise SourceError(f"{name} does not exist.")
    if not zipfile.is_zipfile(path) or not _starts_with(path, b"PK"):
        return [Source(name, path)]
    return _list_members(name, path)


def survey_text(source: Source) -> TextForm:
    """Read a source once and find its encoding and newlines.

    Strict UTF-8 first, then mostly valid UTF-8, then the likeliest of cp1252, Mac-Roman and Latin-1.
    Raises SourceError when the bytes are no table at all.
    """
    try:
        with source.open() as stream:
            head = stream.read(_HEAD_BYTES)
            _refuse_foreign(source.name, head)
            encoding = _declared_encoding(head)
            tally = _Tally(encoding)
            tally.add(head)
            while chunk := stream.read(_CHUNK_BYTES):
                tally.add(chunk)
            return tally.conclude()
    except (OSError, EOFError, zipfile.BadZipFile, RuntimeError, UnicodeDecodeError) as exc:
        raise SourceError(f"{source.name} cannot be read: {exc}.") from exc


class LineReader:
    """The lines of a source with their ends, in constant memory; `bytes_read` follows for the progress bar."""

    def __init__(self, source: Source, form: TextForm) -> None:
        self._source = source
        self._form = form
        self.bytes_read = 0

    def __iter__(self) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder(self._form.encoding)(
            "strict" if self._form.encoding.startswith("utf-8") and not self._form.undecoded_count else "replace"
        )
        end = "\r" if self._form.row_end is RowEnd.CR else "\n"
        rest = ""
        with self._source.open() as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                self.bytes_read += len(chunk)
                lines = (rest + decoder.decode(chunk).replace("\0", "")).split(end)
                rest = lines.pop()
                if len(rest) > _MAX_LINE_CHARS:
                    raise SourceError(f"{self._source.name} has a line of more than 64 million characters.")
                for line in lines:
                    yield line + "\n"
        rest += decoder.decode(b"", final=True).replace("\0", "")
        if rest:
            yield rest


def _spool_stdin(spool: Path) -> Path:
    path = spool / "stdin.csv"
    with path.open("wb") as kept:
        shutil.copyfileobj(sys.stdin.buffer, kept, _CHUNK_BYTES)
    return path


def _starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(magic)) == magic


def _list_members(name: str, path: Path) -> list[Source]:
    with zipfile.ZipFile(path) as archive:
        members = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    if "[Content_Types].xml" in members:
        raise SourceError(f"{name} is a spreadsheet workbook, not a CSV: save the sheet as CSV UTF-8 first.")
    members = [member for member in members if not member.startswith("__MACOSX/") and Path(member).name[0] != "."]
    tables = [member for member in members if Path(member).suffix.lower() in {".csv", ".tsv", ".txt", ".tab"}]
    chosen = tables or members[:1]
    if not chosen:
        raise SourceError(f"{name} is an empty zip archive.")
    return [Source(f"{name}!{member}" if len(chosen) > 1 else name, path, member) for member in chosen]


def _refuse_foreign(name: str, head: bytes) -> None:
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if not start:
        raise SourceError(f"{name} is empty.")
    if start[:9].lower() == b"<!doctype" or start[:5].lower() in {b"<html", b"<?xml"}:
        raise SourceError(
            f"{name} is a saved HTML page, not a CSV: the download link led to a web page; get the raw file instead."
        )
    if start.startswith(b"version https://git-lfs"):
        raise SourceError(
            f"{name} is a git-LFS pointer, not the CSV itself: run `git lfs pull` or download the real file."
        )
    for magic, kind in (
        (b"%PDF", "a PDF document"),
        (b"PAR1", "a Parquet file"),
        (b"SQLite format 3", "a SQLite database"),
        (b'{"', "JSON"),
        (b"[{", "JSON"),
        (b"PK\x03\x04", "a damaged zip archive"),
        (b"\xd0\xcf\x11\xe0", "an old spreadsheet workbook (.xls)"),
    ):
        if start.startswith(magic):
            raise SourceError(f"{name} is {kind}, not a CSV: export it as CSV UTF-8 first.")


def _declared_encoding(head: bytes) -> str:
    for bom, encoding in _BOMS:
        if head.startswith(bom):
            return encoding
    if head[1::2].count(0) > len(head) * 0.2:  # Latin text in UTF-16: every second byte is NUL
        return "utf-16-le"
    if head[::2].count(0) > len(head) * 0.2:
        return "utf-16-be"
    return "utf-8"


@dataclass(slots=True)
class _Tally:
    """What one pass over the bytes counts."""

    encoding: str
    size_bytes: int = 0
    undecoded_count: int = 0
    wide_count: int = 0
    nul_count: int = 0
    ends: dict[RowEnd, int] = field(default_factory=lambda: dict.fromkeys(RowEnd, 0))
    first_end: RowEnd | None = None
    fragments: list[bytes] = field(default_factory=list[bytes])
    _decoder: codecs.IncrementalDecoder = field(init=False)
    _quoted: bool = False
    _held: str = ""

    def __post_init__(self) -> None:
        errors = "surrogateescape" if self.encoding.startswith("utf-8") else "replace"
        self._decoder = codecs.getincrementaldecoder(self.encoding)(errors)

    def add(self, chunk: bytes) -> None:
        self.size_bytes += len(chunk)
        text = self._held + self._decoder.decode(chunk)
        self._held = "\r" if text.endswith("\r") else ""  # its LF may open the next chunk
        text = text[:-1] if self._held else text
        self._count(text)
        if not chunk.isascii() and self.encoding.startswith("utf-8"):
            self.undecoded_count += len(_UNDECODED.findall(text))
            self.wide_count += len(text) - len(text.encode("ascii", "ignore"))
            if self.undecoded_count and len(self.fragments) < _MAX_FRAGMENTS:
                self.fragments.extend(_HIGH_BYTES.findall(chunk))

    def conclude(self) -> TextForm:
        cut_count = len(self._decoder.decode(b"", final=True))  # a last character the file's end cut in two
        self._count(self._held)
        valid_count = self.wide_count - self.undecoded_count
        if self.undecoded_count and valid_count < 4 * self.undecoded_count:  # not even mostly UTF-8
            encoding = _likeliest_encoding(self.fragments[:_MAX_FRAGMENTS])
            return TextForm(encoding, self._row_end(), self.size_bytes, 0, self.nul_count)
        undecoded_count = self.undecoded_count + cut_count
        return TextForm(self.encoding, self._row_end(), self.size_bytes, undecoded_count, self.nul_count)

    def _count(self, text: str) -> None:
        crlf = text.count("\r\n")
        self.ends[RowEnd.CRLF] += crlf
        self.ends[RowEnd.LF] += text.count("\n") - crlf
        self.ends[RowEnd.CR] += text.count("\r") - crlf
        self.nul_count += text.count("\0")
        if self.first_end is None:
            self._find_first_end(text)

    def _find_first_end(self, text: str) -> None:
        for match in re.finditer(r'"|\r\n|\r|\n', text):
            if match[0] == '"':
                self._quoted = not self._quoted
            elif not self._quoted:
                self.first_end = {"\r\n": RowEnd.CRLF, "\r": RowEnd.CR, "\n": RowEnd.LF}[match[0]]
                return

    def _row_end(self) -> RowEnd:
        """CR ends rows only where the first row ends so and most others do; a lone CR elsewhere is damage."""
        others = self.ends[RowEnd.LF] + self.ends[RowEnd.CRLF]
        if self.first_end in {RowEnd.CR, None} and self.ends[RowEnd.CR] > others:
            return RowEnd.CR
        return RowEnd.CRLF if self.first_end is RowEnd.CRLF else RowEnd.LF


def _likeliest_encoding(fragments: list[bytes]) -> str:
    scores = {encoding: _implausibility(fragments, encoding) for encoding in _SINGLE_BYTE_ENCODINGS}
    return min(_SINGLE_BYTE_ENCODINGS, key=lambda encoding: scores[encoding])


def _implausibility(fragments: list[bytes], encoding: str) -> float:
    penalty = 0.0
    for fragment in fragments:
        text = ftfy.fix_encoding(fragment.decode(encoding, "replace"))
        for before, character in zip(" " + text, text, strict=False):
            if not character.isascii():
                penalty += _oddness(character, before)
    return penalty


def _oddness(character: str, before: str) -> float:
    """How little a character belongs after another in ordinary writing; a capital inside a word is a sign."""
    if character in _TYPOGRAPHIC or ord(character) > 0x2E7F:  # emoji and East Asian signs only come out right
        return 0.0
    if "\x80" <= character <= "\x9f" or character == "\ufffd":
        return 10.0
    if not character.isalpha():
        return 3.0
    if character.isupper():
        return 2.0 if before.islower() else 1.0
    return 0.5
