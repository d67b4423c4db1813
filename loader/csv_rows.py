"""A file's records as conversations: read once to learn its ids and dates, then again to make what is sent."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field

import ftfy
import orjson

from loader.csv_formats import ColumnMap, detect_columns
from loader.csv_ids import MAX_NAME_CHARS, MISSING, Identity, IdSurvey, Repeats, cell_at, content_of, read_id
from loader.csv_records import (
    Record,
    Shape,
    choose_dialect,
    learn_shape,
    modal_width,
    read_head,
    read_records,
    split_head,
)
from loader.csv_source import LineReader, Source, TextForm, survey_text
from loader.csv_times import DayOrder, DayOrderSurvey, read_moment

_MAX_TEXT_CHARS = 10_000  # what the service takes
_MAX_RAW_DATA_BYTES = 60_000  # the service takes 64 KB
_CUT_VALUE_CHARS = 1_000
_MOJIBAKE = re.compile("[ÂÃâð][^\\x00-\\x7f]|[âð]€|Ã.|ï»¿|ï¿½")
_GUARD = re.compile(r"=(?=[@+=\-\"'])|'(?=[=@+\-][^']*$)")

Payload = dict[str, object]


@dataclass(frozen=True, slots=True)
class Row:
    """One conversation ready to send; `key`, `parent` and `inbound` tie the tweets of a thread together."""

    line: int
    payload: Payload
    key: str | None = None
    parent: str | None = None
    inbound: bool | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that cannot be sent, and why."""

    line: int
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What the first reading of a file decided; `notes` are sentences for the user."""

    source: Source
    form: TextForm
    shape: Shape
    columns: ColumnMap
    row_count: int
    id_at: int | None
    day_order: DayOrder
    notes: tuple[str, ...]
    repeated: Repeats = field(repr=False)


def survey_file(source: Source, overrides: Mapping[str, str] | None = None) -> Plan:
    """Read a file once, in constant memory, and decide how it is loaded.

    Raises SourceError when it is no table, MappingError when no column holds text.
    """
    form = survey_text(source)
    head = read_head(LineReader(source, form))
    dialect = choose_dialect(head)
    sample = split_head(head, dialect)
    columns = detect_columns(sample, width=modal_width(sample), overrides=overrides)
    shape = learn_shape(sample, dialect, width=modal_width(sample), text_at=columns.text_at)
    survey = _Survey(columns)
    for record in _body(LineReader(source, form), shape, skip_first=columns.has_header):
        survey.observe(record)
    id_at, notes = survey.choose_id()
    return Plan(
        source=source,
        form=form,
        shape=shape,
        columns=columns,
        row_count=survey.row_count,
        id_at=id_at,
        day_order=survey.dates.order,
        notes=tuple(filter(None, (*_text_notes(form, columns), *notes, survey.dates.doubt))),
        repeated=survey.repeats,
    )


class RowReader:
    """The second reading, once: each record as a Row or a Rejected, in file order, with ids the same every time."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.repairs: Counter[str] = Counter()
        self.lines = LineReader(plan.source, plan.form)
        self._identity = Identity(plan.columns, plan.id_at, repeated=plan.repeated)

    @property
    def bytes_read(self) -> int:
        return self.lines.bytes_read

    def __iter__(self) -> Iterator[Row | Rejected]:
        with closing(self._identity):
            for record in _body(self.lines, self.plan.shape, skip_first=self.plan.columns.has_header):
                if record.repair:
                    self.repairs[record.repair] += 1
                yield self._make(record)

    def _make(self, record: Record) -> Row | Rejected:
        text = self._clean(cell_at(record.cells, self.plan.columns.text_at))
        reason = record.fault or _text_fault(text)
        if reason:
            return Rejected(record.line, reason, text or " ".join(filter(None, record.cells)))
        columns, cells = self.plan.columns, record.cells
        payload: Payload = {"text": text}
        author = self._author(cell_at(cells, columns.author_at))
        if author:
            payload["author"] = author
        moment = self._moment(cell_at(cells, columns.time_at))
        if moment:
            payload["timestamp"] = moment
        raw_data = self._raw_data(cells, keep_time=moment is None)
        if raw_data:
            payload["raw_data"] = raw_data
        payload["external_id"] = self._identity.name(cells, payload)
        return Row(
            record.line,
            payload,
            key=read_id(cell_at(cells, columns.id_at[0])) if columns.id_at else None,
            parent=read_id(cell_at(cells, columns.parent_at)),
            inbound=_truth(cell_at(cells, columns.inbound_at)),
        )

    def _clean(self, cell: str) -> str:
        """A text as it was written: without the guard of a spreadsheet, mojibake undone, entities left alone."""
        text = cell.strip()
        if not text.isascii():
            text = self._undo_mojibake(text)
        if text[:1] in {"=", "'"} and _GUARD.match(text):
            self.repairs["formula guard"] += 1
            text = text[1:].strip()
            if text[:1] == '"' == text[-1:] and len(text) > 1:
                text = text[1:-1]
        return text

    def _undo_mojibake(self, text: str) -> str:
        if not _MOJIBAKE.search(text):
            return text
        if self.plan.form.encoding == "mac_roman":
            text = text.replace("â€ù", "”")  # its third byte has no place in cp1252, so ftfy cannot know it
        mended = ftfy.fix_encoding(text)
        self.repairs["mojibake"] += mended != text
        return mended

    def _author(self, cell: str) -> str | None:
        author = cell.strip() if cell.isascii() else self._undo_mojibake(cell.strip())
        if author.lower() in MISSING or not author.strip("#"):
            return None
        if len(author) > MAX_NAME_CHARS:
            self.repairs["author cut to 255 characters"] += 1
        return author[:MAX_NAME_CHARS].strip()

    def _moment(self, cell: str) -> str | None:
        if cell.strip().lower() in MISSING:
            return None
        moment = read_moment(cell, self.plan.day_order)
        if moment is None:
            self.repairs["unreadable date left out"] += 1
        return moment

    def _raw_data(self, cells: list[str], *, keep_time: bool) -> Payload:
        """The other columns that say something, by name; long values are cut where all together would be too large."""
        columns = self.plan.columns
        used = {columns.text_at, columns.author_at, None if keep_time else columns.time_at, self.plan.id_at}
        kept: Payload = {}
        for at, name in enumerate(columns.names[: len(cells)]):
            value = cells[at].strip()
            if at in used or at in columns.index_at or value.lower() in MISSING or not value.strip("#"):
                continue
            kept[name if name not in kept else f"{name}_{at + 1}"] = (
                value if value.isascii() else self._undo_mojibake(value)
            )
        if sum(map(len, cells)) > _MAX_RAW_DATA_BYTES // 6 and len(orjson.dumps(kept)) > _MAX_RAW_DATA_BYTES:
            self.repairs["other columns cut to 64 KB"] += 1
            return _shorten(kept)
        return kept


def _body(lines: LineReader, shape: Shape, *, skip_first: bool) -> Iterator[Record]:
    records = read_records(lines, shape)
    if skip_first:
        next(records, None)
    return records


def _truth(cell: str) -> bool | None:
    return {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}.get(cell.strip().lower())


def _text_fault(text: str) -> str | None:
    if not text or text.lower() in {"nan", "null"}:
        return "the text is empty"
    if len(text) > _MAX_TEXT_CHARS:
        return f"the text has more than {_MAX_TEXT_CHARS} characters"
    if not text.strip("#") and len(text) > 3:
        return "the text is ####, a spreadsheet's mark for a column too narrow"
    return None


def _shorten(kept: Payload) -> Payload:
    short: Payload = {name[:100]: str(value)[:_CUT_VALUE_CHARS] for name, value in kept.items()}
    while len(orjson.dumps(short)) > _MAX_RAW_DATA_BYTES:
        short.popitem()
    return short


def _text_notes(form: TextForm, columns: ColumnMap) -> Iterator[str]:
    if form.undecoded_count:
        yield f"{form.undecoded_count} bytes are not {form.encoding} and were replaced"
    if form.nul_count:
        yield f"{form.nul_count} NUL characters were left out"
    if columns.index_at:
        yield f"index columns left out: {', '.join(columns.names[at] for at in sorted(columns.index_at))}"


class _Survey:
    """What the first reading counts: rows, the order of dates, and whether each id column can be trusted."""

    def __init__(self, columns: ColumnMap) -> None:
        self.row_count = 0
        self.dates = DayOrderSurvey()
        self.repeats = Repeats()
        self._columns = columns
        self._ids = {at: IdSurvey() for at in columns.id_at}

    def observe(self, record: Record) -> None:
        self.row_count += 1
        if record.fault is not None:
            return
        columns, cells = self._columns, record.cells
        if columns.time_at is not None:
            self.dates.observe(cell_at(cells, columns.time_at).strip())
        content = content_of(cells, columns)
        self.repeats.add(content)
        for at, survey in self._ids.items():
            value = survey.observe(cell_at(cells, at), content)
            if value is not None:
                self.repeats.add(f"{at}={value}")

    def choose_id(self) -> tuple[int | None, list[str]]:
        """The first id column that can be trusted, and what is wrong with those before it."""
        notes: list[str] = []
        for at, survey in self._ids.items():
            fault = survey.fault()
            if fault is None:
                return at, [note + f"; {self._columns.names[at]} is the key instead" for note in notes]
            notes.append(f"{self._columns.names[at]} is lossy ({fault})")
        return None, [note + ": rows are keyed by content and position" for note in notes]
