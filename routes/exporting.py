"""Files of insights: every match as CSV or as one JSON object a line, a page at a time, so that memory stays flat."""

import asyncio
import csv
import io
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

import orjson

import queries
from answers import Insight
from database import Database
from errors import Overloaded
from parameters import Format, InsightQuery, Position
from routes.streams import PatientStream

MEDIA_TYPES = {Format.CSV: "text/csv; charset=utf-8", Format.JSONL: "application/x-ndjson"}
COLUMNS = (
    "conversation_id",
    "timestamp",
    "text",
    "author",
    "sentiment",
    "sentiment_score",
    "confidence",
    "clusters",
    "summary",
    "reasoning",
    "language",
    "model",
    "injection_suspected",
    "corrected",
)
_PAGE = 500  # insights: some milliseconds of a reader's time
_PAGE_OF_WORDS = 5_000  # each page finds all matches of `q` anew, to put them in order
_TRIES = 5
_PAUSE_S = 1.0
# How a spreadsheet knows a formula; OWASP, "CSV Injection".
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # full-width ones, too


class Files:
    """Where files come from, and the places of those that are being written."""

    MOST = 4  # each keeps one of the four readers busy for as long as its client is fast

    def __init__(self, database: Database) -> None:
        self.database = database
        self.open_count = 0

    @contextmanager
    def place(self) -> Generator[None, None, None]:
        """Raises: Overloaded, when every place is taken."""
        if self.open_count >= self.MOST:
            raise Overloaded(f"{self.MOST} files are being written; ask again after the wait.", retry_after_s=5)
        self.open_count += 1
        try:
            yield
        finally:
            self.open_count -= 1


class InsightsFile(PatientStream):
    """`X-Total-Count` says how many insights match."""

    def __init__(self, files: Files, query: InsightQuery, *, form: Format, total_count: int) -> None:
        name = f"insights-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.{form}"
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Total-Count": str(total_count)}
        rows = _write(files.database, query, form=form)
        super().__init__(rows, files.place(), headers=headers, media_type=MEDIA_TYPES[form])


def to_csv(insights: Sequence[Insight]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(map(_cells, insights))
    return text.getvalue().encode()


def to_jsonl(insights: Sequence[Insight]) -> bytes:
    return b"".join(orjson.dumps(one, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE) for one in insights)


def neutral(cell: str) -> str:
    """The text, but never a formula: a quote before it makes spreadsheets take it as it is."""
    return f"'{cell}" if cell.startswith(_FORMULA_STARTS) else cell


_WRITERS: dict[Format, Callable[[Sequence[Insight]], bytes]] = {Format.CSV: to_csv, Format.JSONL: to_jsonl}


def _cells(insight: Insight) -> list[object]:
    analysis = insight["grok_analysis"]
    return [
        insight["conversation_id"],
        insight["timestamp"].isoformat().replace("+00:00", "Z"),
        neutral(insight["text"]),
        neutral(insight["author"] or ""),
        analysis["sentiment"],
        analysis["sentiment_score"],
        analysis["confidence"],
        neutral(";".join(analysis["clusters"])),
        neutral(analysis["summary"]),
        neutral(analysis["reasoning"]),
        neutral(analysis["language"]),
        neutral(analysis["model"]),
        str(analysis["injection_suspected"]).lower(),
        str(analysis["corrected"]).lower(),
    ]


async def _write(database: Database, query: InsightQuery, *, form: Format) -> AsyncGenerator[bytes, None]:
    """A short read for each page: a reader that stays would let the WAL grow for as long as the file is."""
    if form is Format.CSV:
        yield ",".join(COLUMNS).encode() + b"\r\n"
    after = query.cursor
    while True:
        insights, after = await _read_patiently(database, query, after=after)
        if insights:
            yield await asyncio.to_thread(_WRITERS[form], insights)
        if after is None:
            return


async def _read_patiently(
    database: Database, query: InsightQuery, *, after: Position | None
) -> tuple[list[Insight], Position | None]:
    """The status is sent: a database that is busy for a moment must not break the file off."""
    page = partial(queries.next_insights, wanted=query, after=after, limit=_PAGE if query.q is None else _PAGE_OF_WORDS)
    for _ in range(_TRIES - 1):
        try:
            return await database.read(page)
        except Overloaded:
            await asyncio.sleep(_PAUSE_S)
    return await database.read(page)
