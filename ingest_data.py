"""Loads CSV files of conversations into the service over its bulk endpoint; `--help` lists the options."""

import asyncio
import hashlib
import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Annotated

import orjson
import typer
from pydantic import ValidationError

from loader.bulk_client import (
    MAX_BATCH_ITEMS,
    Batch,
    BulkClient,
    Item,
    Outcome,
    Patience,
    ServiceRefusedError,
    ServiceUnreachableError,
    connect,
    gather_batches,
    post_all,
)
from loader.csv_formats import MappingError, parse_columns
from loader.csv_order import join_threads, shuffle_rows
from loader.csv_rows import Plan, Rejected, Row, RowReader, survey_file
from loader.csv_source import Source, SourceError, find_sources
from loader.load_journal import Journal, open_journal
from loader.load_report import FileReport, Meter, create_console, print_plan, print_sample, print_summary
from settings import Settings

_FIRST_PATIENCE_S, _LATER_PATIENCE_S = 5.0, 120.0  # a server that never answered is not there; another may restart
_LARGE_BYTES = 64 * 1024 * 1024  # some seconds of silence
_SAMPLE = (
    ("maria_k", "Three weeks and my parcel still says 'in transit'. Nobody answers the chat. Where is it?"),
    ("jonas.w", "Huge thanks to Priya from your support team, she fixed my login in two minutes. Brilliant!"),
    ("tomsbikes", "I was charged twice for the March invoice. Please refund one of them."),
    ("ada_ops", "The dashboard has been down since 9 this morning and your status page says all green."),
    ("lena_reads", "Do you ship to Norway, and how long does it usually take?"),
    ("old_harbour", "The kettle arrived with a cracked lid. This is the second one. Not impressed."),
    ("nightshift42", "Password reset mails never arrive, I have tried four times since yesterday."),
    ("sunny_b", "Love the new dark mode, my eyes thank you!"),
    ("flybynight", "Flight cancelled at midnight, no hotel, and the desk was closed. Stranded with two kids."),
    ("petra_m", "It would be great if reports could be exported as a spreadsheet."),
)


class ExitCode(IntEnum):
    OK = 0
    FAILURE = 1
    USAGE = 2
    ROWS_REJECTED = 3
    UNREACHABLE = 4
    INTERRUPTED = 130


class UsageError(Exception):
    """Options that do not fit together or do not fit the file."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line; each field is one option, with its help."""

    files: Annotated[list[str] | None, typer.Argument(metavar="FILE", help="CSV, .gz or .zip; - is stdin.")] = None
    sample: Annotated[bool, typer.Option("--sample", help="Send 10 built-in conversations.")] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show mapping, counts and 3 rows; contact nobody.")] = False
    columns: Annotated[
        str | None, typer.Option(metavar="ROLE=COLUMN,...", help="text, author, timestamp, id; by name or number.")
    ] = None
    inbound_only: Annotated[bool, typer.Option("--inbound-only", help="twcs: only what customers wrote.")] = False
    threads: Annotated[bool, typer.Option("--threads", help="twcs: a thread is one conversation.")] = False
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many rows.")] = None
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Another order, the same every time.")] = False
    sample_rows: Annotated[int | None, typer.Option(min=1, help="So many rows, drawn from the whole file.")] = None
    seed: Annotated[int, typer.Option(help="Decides --shuffle and --sample-rows.")] = 0
    api_url: Annotated[str | None, typer.Option(help="Where the service is. Default: API_URL.")] = None
    api_key: Annotated[str | None, typer.Option(envvar="INSIGHTS_API_KEY", help="Sent as X-API-Key.")] = None
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Requests at a time.")] = 4
    batch_size: Annotated[int, typer.Option(min=1, max=MAX_BATCH_ITEMS, help="Conversations a request.")] = 500
    max_wait: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds to go on without success. Default: 5 at first contact, later 120."),
    ] = None
    resume: Annotated[bool, typer.Option(help="Go on where an interrupted load of the same file stopped.")] = True


@dataclass(slots=True)
class Load:
    """One run of the command: where it sends, what it has done."""

    options: Options
    api_url: str
    overrides: dict[str, str]
    reports: list[FileReport] = field(default_factory=list[FileReport])
    worst: ExitCode = ExitCode.OK

    def note(self, code: ExitCode) -> None:
        severity = (ExitCode.OK, ExitCode.ROWS_REJECTED, ExitCode.USAGE, ExitCode.FAILURE, ExitCode.UNREACHABLE)
        self.worst = max(self.worst, code, key=severity.index)


def run(options: Options) -> ExitCode:
    """Load every source and print the summary; a file at fault does not stop the next, a missing server does."""
    try:
        load = _prepare(options)
    except (UsageError, MappingError) as exc:
        return _fail(ExitCode.USAGE, exc)
    try:
        _load_files(load)
        if options.sample and load.worst is not ExitCode.UNREACHABLE:
            load.note(_load_sample(load))
    except KeyboardInterrupt:
        _say("interrupted: the same command goes on from here, and nothing is loaded twice.")
        load.worst = ExitCode.INTERRUPTED
    if load.reports and not options.dry_run:
        print_summary(create_console(stderr=False), load.reports)
    return load.worst


def main() -> None:
    typer.run(as_command(run))


def as_command(work: Callable[[Options], ExitCode]) -> Callable[..., None]:
    """A typer command whose options are the fields of Options."""

    def command(**chosen: object) -> None:
        raise typer.Exit(work(Options(**chosen)))  # type: ignore[arg-type]  # typer has checked them against the fields

    command.__dict__["__signature__"] = inspect.signature(Options)
    command.__doc__ = "Load CSV files of conversations into the Insights Platform API."
    return command


def _say(sentence: object) -> None:
    create_console(stderr=True).print(str(sentence), markup=False, highlight=False, soft_wrap=True)


def _fail(code: ExitCode, exc: Exception) -> ExitCode:
    _say(f"error: {exc}")
    return code


def _prepare(options: Options) -> Load:
    if not options.files and not options.sample:
        raise UsageError("name at least one FILE, or --sample; --help lists the options.")
    overrides = parse_columns(options.columns) if options.columns else {}
    if options.api_url or options.dry_run:
        return Load(options, (options.api_url or "").rstrip("/"), overrides)
    try:
        return Load(options, Settings().api_url.rstrip("/"), overrides)
    except ValidationError as exc:
        wrong = ", ".join(".".join(map(str, problem["loc"])) for problem in exc.errors())
        raise UsageError(f"settings are not valid ({wrong}); correct them, or pass --api-url.") from exc


def _load_files(load: Load) -> None:
    with TemporaryDirectory(prefix="ingest_data-") as spool:
        for source in _find_all(load, Path(spool)):
            load.note(_load_one(load, source))
            if load.worst is ExitCode.UNREACHABLE:
                return


def _find_all(load: Load, spool: Path) -> Iterator[Source]:
    for argument in load.options.files or []:
        if argument.endswith(".rejected.csv"):
            _say(f"{argument} is left out: it lists what an earlier load did not take; rename it to load it.")
            continue
        try:
            yield from find_sources(argument, spool)
        except (SourceError, OSError) as exc:
            load.note(_fail(ExitCode.FAILURE, exc))


def _load_one(load: Load, source: Source) -> ExitCode:
    try:
        if source.path.stat().st_size > _LARGE_BYTES:
            _say(f"{source.name}: a large file; it is read once before the first row is sent.")
        plan = survey_file(source, load.overrides)
        _check_options(load.options, plan)
        if load.options.dry_run:
            return _show_plan(load, plan)
        return _send_file(load, plan)
    except (UsageError, MappingError) as exc:
        usage = isinstance(exc, UsageError) or bool(load.overrides)
        return _fail(ExitCode.USAGE if usage else ExitCode.FAILURE, ValueError(f"{source.name}: {exc}"))
    except (SourceError, ServiceRefusedError, OSError) as exc:
        return _fail(ExitCode.FAILURE, exc)
    except ServiceUnreachableError as exc:
        return _fail(ExitCode.UNREACHABLE, ValueError(f"{load.api_url} is not reachable: {exc}"))


def _check_options(options: Options, plan: Plan) -> None:
    columns = plan.columns
    if options.inbound_only and columns.inbound_at is None:
        raise UsageError("--inbound-only needs the column `inbound` of twcs.csv.")
    if options.threads and (columns.parent_at is None or not columns.id_at):
        raise UsageError("--threads needs the columns `tweet_id` and `in_response_to_tweet_id` of twcs.csv.")


def _show_plan(load: Load, plan: Plan) -> ExitCode:
    reader = RowReader(plan)
    shown: list[Row] = []
    report = _start_report(plan)
    for row in _select_rows(load.options, reader):
        if isinstance(row, Rejected):
            report.rejected_count += 1
            report.reasons[row.reason] += 1
            continue
        report.accepted_count += 1
        if len(shown) < 3:
            shown.append(row)
    _explain_difference(load.options, report, sent_count=report.accepted_count + report.rejected_count)
    report.repairs = reader.repairs
    print_plan(create_console(stderr=False), plan, rows=shown, report=report)
    return ExitCode.OK


def _start_report(plan: Plan) -> FileReport:
    return FileReport(plan.source.name, read_count=plan.row_count, notes=list(plan.notes))


def _select_rows(options: Options, reader: RowReader) -> Iterator[Row | Rejected]:
    """The rows to send, in the order to send them; the same every time, so that a load can be resumed by count."""
    rows: Iterator[Row | Rejected] = iter(reader)
    if options.threads:
        rows = join_threads(rows, inbound_only=options.inbound_only)
    elif options.inbound_only:
        rows = (row for row in rows if isinstance(row, Rejected) or row.inbound)
    if options.shuffle or options.sample_rows:
        rows = shuffle_rows(rows, seed=options.seed)
    ends = [end for end in (options.limit, options.sample_rows) if end is not None]
    return islice(rows, min(ends)) if ends else rows


def _send_file(load: Load, plan: Plan) -> ExitCode:
    journal = _open_journal(load, plan)
    report = _start_report(plan)
    load.reports.append(report)
    if journal.resumed:
        report.notes.append(f"went on after row {journal.tally.end}; --no-resume starts over")
        _say(f"{report.name}: {report.notes[-1]}")
    reader = RowReader(plan)
    started_at, first_end = monotonic(), journal.tally.end
    try:
        asyncio.run(_post_file(load, reader, journal=journal))
    except BaseException:  # Ctrl-C too: what was answered is kept
        journal.commit()
        raise
    else:
        journal.finish()
        _explain_difference(load.options, report, sent_count=journal.tally.end)
    finally:
        _complete_report(report, journal, repairs=reader.repairs)
        report.rate_per_s = (journal.tally.end - first_end) / max(monotonic() - started_at, 1e-3)
    return ExitCode.ROWS_REJECTED if report.rejected_count else ExitCode.OK


def _open_journal(load: Load, plan: Plan) -> Journal:
    source = plan.source
    from_stdin = source.name == "stdin"
    member = "" if source.member is None or "!" not in source.name else f".{Path(source.member).name}"
    name = "stdin" if from_stdin else source.path.name + member
    journal = open_journal(
        None if from_stdin else source.path, name, fingerprint=_fingerprint(load, source), resume=load.options.resume
    )
    if not from_stdin and journal.rejected_path.parent != source.path.parent:
        _say(f"{source.path.parent} cannot be written: progress and rejected rows go to the current folder.")
    return journal


def _fingerprint(load: Load, source: Source) -> str:
    """Names the file as it is now and every option that decides which rows come when."""
    options, stat = load.options, source.path.stat()
    order = (options.inbound_only, options.threads, options.limit, options.shuffle, options.sample_rows, options.seed)
    parts = (stat.st_size, stat.st_mtime_ns, source.member, load.api_url, options.columns, *order)
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


async def _post_file(load: Load, reader: RowReader, *, journal: Journal) -> None:
    options, plan = load.options, reader.plan
    rows = map(_encode, islice(_select_rows(options, reader), journal.tally.end, None))
    batches = gather_batches(rows, max_items=options.batch_size, end=journal.tally.end)
    with Meter(create_console(stderr=True), plan.source.name, total_bytes=plan.form.size_bytes) as meter:

        def done(batch: Batch, outcome: Outcome) -> None:
            journal.record(batch, outcome)
            meter.show(reader.bytes_read, journal.tally.end)

        async with _connect(load, meter.tell) as client:
            await post_all(client, batches, concurrency=options.concurrency, done=done)


def _encode(row: Row | Rejected) -> Item | tuple[int, str, str]:
    if isinstance(row, Rejected):
        return (row.line, row.reason, row.text)
    return Item(row.line, orjson.dumps(row.payload))


def _connect(load: Load, tell: Callable[[str], None]) -> AbstractAsyncContextManager[BulkClient]:
    options = load.options
    told_s = options.max_wait
    patience = Patience(_FIRST_PATIENCE_S, _LATER_PATIENCE_S) if told_s is None else Patience(told_s, told_s)
    return connect(load.api_url, patience, api_key=options.api_key, concurrency=options.concurrency, tell=tell)


def _explain_difference(options: Options, report: FileReport, *, sent_count: int) -> None:
    """Rows read and rows sent differ on purpose: say by which option."""
    if options.threads:
        report.notes.append(f"{report.read_count} rows are {sent_count} conversations")
    else:
        report.left_out_count = report.read_count - sent_count


def _complete_report(report: FileReport, journal: Journal, *, repairs: Counter[str]) -> None:
    tally = journal.tally
    report.accepted_count, report.duplicate_count = tally.accepted_count, tally.duplicate_count
    report.rejected_count, report.repairs = tally.rejected_count, repairs
    report.reasons = journal.reasons
    if tally.version_count:
        report.notes.append(f"{tally.version_count} rows have an id stored before with other content: kept as versions")
    if tally.rejected_count:
        report.notes.append(f"{tally.rejected_count} rejected rows, with the reason of each: {journal.rejected_path}")


def _load_sample(load: Load) -> ExitCode:
    items = [
        Item(number, orjson.dumps({"text": text, "author": author, "external_id": f"sample:{number}"}))
        for number, (author, text) in enumerate(_SAMPLE, start=1)
    ]
    report = FileReport("built-in sample", read_count=len(items))
    if load.options.dry_run:
        print_sample(create_console(stderr=False), [item.body for item in items])
        return ExitCode.OK
    try:
        outcome = asyncio.run(_post_sample(load, items))
    except ServiceRefusedError as exc:
        return _fail(ExitCode.FAILURE, exc)
    except ServiceUnreachableError as exc:
        return _fail(ExitCode.UNREACHABLE, ValueError(f"{load.api_url} is not reachable: {exc}"))
    report.accepted_count, report.duplicate_count = outcome.accepted_count, outcome.duplicate_count
    report.rejected_count = len(outcome.refusals)
    report.notes.extend(f"line {refusal.item.line}: {refusal.reason}" for refusal in outcome.refusals)
    load.reports.append(report)
    return ExitCode.ROWS_REJECTED if outcome.refusals else ExitCode.OK


async def _post_sample(load: Load, items: list[Item]) -> Outcome:
    async with _connect(load, _say) as client:
        return await client.post(items)


if __name__ == "__main__":
    main()
