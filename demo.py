"""The demo (`make demo`): starts the service offline, loads conversations over HTTP, and prints what came of them.

`.demo/` keeps database, log and sample; the sample is moved to end when first loaded, and made again after a day.
"""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import httpx2
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from answers import ConversationPage, Health, Insight, InsightPage, TopicCounts
from schemas import Sentiment, Status

ROOT: Final = Path(__file__).resolve().parent
SAMPLE: Final = ROOT / "samples" / "support_conversations.csv"
HOST: Final = "127.0.0.1"
USUAL_PORT: Final = 8000
# What the children inherit: no key and no setting of the caller's, so that the demo is the same everywhere and free.
INHERITED: Final = {"PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "LD_LIBRARY_PATH", "TERM", "COLUMNS"}
_SAMPLE_FRESH_S = 24 * 3600.0
_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 15.0  # the service takes up to 8 s to finish what it has begun
_TELL_INTERVAL_S = 2.0
_MOST_INSIGHTS = 20_000  # the newest are enough to draw; counts are the service's own, of all
_URGENT_ROWS = 8
_BAR_CHARS = 40
_ROWS_REJECTED = 3  # the loader's exit code when some rows could not be taken; the others are stored

_INSIGHTS = TypeAdapter(InsightPage)
_CONVERSATIONS = TypeAdapter(ConversationPage)
_HEALTH = TypeAdapter(Health)
_TOPICS = TypeAdapter(TopicCounts)


class DemoError(Exception):
    """Why the demo cannot go on, in a sentence for its user."""

    def __init__(self, sentence: str, status: int = 1) -> None:
        super().__init__(sentence)
        self.status = status


class Source(NamedTuple):
    """What is loaded, and the folder for all that is made of it."""

    folder: Path
    csv: Path
    loader_options: tuple[str, ...]


class Service(NamedTuple):
    """The service, running as a child, and the way to ask it."""

    process: subprocess.Popen[bytes]
    http: httpx2.Client
    url: str
    log: Path

    def check(self) -> None:
        """Raises: DemoError with the end of its log, when it has died."""
        if (status := self.process.poll()) is not None:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
            raise DemoError("\n".join([f"The service ended with status {status}; the end of {self.log}:", *lines]))

    def get(self, path: str, **parameters: str | int) -> bytes:
        """The body of a 200, after as many waits as the rate limit asks for."""
        try:
            while (answer := self.http.get(path, params=parameters)).status_code == 429:
                time.sleep(float(answer.headers["Retry-After"]))
        except httpx2.TransportError as error:
            time.sleep(0.5)  # what kills a process closes its connections first
            self.check()
            raise DemoError(f"The service does not answer ({error}); see {self.log}.") from error
        if answer.status_code != 200:
            raise DemoError(f"GET {path} was answered with {answer.status_code}: {answer.text[:500]}")
        return answer.content

    def count_insights(self, **filters: str) -> int:
        return _INSIGHTS.validate_json(self.get("/api/v1/insights", limit=1, **filters))["metadata"]["total_count"]

    def fetch(self, **filters: str) -> Iterator[Insight]:
        """Insights, newest first, page by page; at most the newest 20,000."""
        for _ in range(_MOST_INSIGHTS // 1000):
            page = _INSIGHTS.validate_json(self.get("/api/v1/insights", limit=1000, **filters))
            yield from page["insights"]
            if (cursor := page["metadata"]["next_cursor"]) is None:
                return
            filters["cursor"] = cursor


def main() -> None:
    """Run the demo; Ctrl-C ends it and the service."""
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal without emoji shows a ? instead
    for signum in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) is signal.SIG_DFL:  # nohup has it ignored
            signal.signal(signum, lambda number, _frame: sys.exit(128 + number))
    sys.exit(run(Console() if sys.stdout.isatty() else Console(width=120)))


def run(console: Console) -> int:
    """The demo from start to end; its exit status. CSV, PORT and DEMO_EXIT in the environment say how."""
    serving = False
    try:
        with ExitStack() as stack:
            _lock(ROOT / ".demo", stack)
            source = prepare_own(Path(csv)) if (csv := os.environ.get("CSV")) else prepare_sample()
            service = stack.enter_context(start_service(source, console))
            load(source, service, console)
            await_analysis(service, console)
            found = show_findings(service, console)
            if os.environ.get("DEMO_EXIT", "") not in {"", "0"}:
                return 0 if found else 1
            _say(console, "Serving until Ctrl-C.")
            serving = True
            while True:
                service.check()
                time.sleep(0.5)
    except DemoError as error:
        _say(console, str(error))
        return error.status
    except KeyboardInterrupt:
        _say(console, "\nStopped.")
    return 0 if serving else 130


def prepare_sample() -> Source:
    """The sample, moved to end now, once a day: in between the file stays, and so loading it again adds nothing."""
    folder = ROOT / ".demo" / "sample"
    csv = folder / "conversations.csv"
    if not _is_fresh(csv):
        _empty(folder)  # the database too: the old times would conflict with the new
        part = csv.with_suffix(".part")  # so that the name stands for the whole file
        shift = [sys.executable, str(ROOT / "samples" / "shift_to_now.py"), str(SAMPLE), str(part)]
        moved = subprocess.run(shift, capture_output=True, text=True, check=False)  # noqa: S603 - our own program
        if moved.returncode:
            raise DemoError(f"The sample cannot be prepared: {moved.stderr.strip()}")
        part.rename(csv)
    return Source(folder, csv, ("--inbound-only",))


def prepare_own(csv: Path) -> Source:
    """The user's file as it is, with a database of its own; a file that has changed starts anew."""
    csv = csv.expanduser().resolve()
    if not csv.is_file():
        raise DemoError(f"CSV={csv} is not a file.", 2)
    made_from = f"{csv} {csv.stat().st_size} {csv.stat().st_mtime_ns}"
    folder = ROOT / ".demo" / "own"
    note = folder / "made_from.txt"
    if not note.is_file() or note.read_text(encoding="utf-8") != made_from:
        _empty(folder)
        note.write_text(made_from, encoding="utf-8")
    return Source(folder, csv, ("--no-resume",))


@contextmanager
def start_service(source: Source, console: Console) -> Generator[Service, None, None]:
    """The service on the usual port or a free one; in a session of its own, so that Ctrl-C reaches only the demo."""
    wanted = int(chosen) if (chosen := os.environ.get("PORT", "")).isdecimal() else USUAL_PORT
    if (port := _free_port(wanted)) != wanted:
        _say(console, f"Port {wanted} is taken, so the service listens on {port}.")
    settings = {"GROK_MODE": "mock", "HOST": HOST, "PORT": str(port), "TOPICS_FILE": str(ROOT / "topics.yaml")}
    settings["DATABASE_URL"] = f"sqlite:///{source.folder / 'insights.db'}"
    log = source.folder / "service.log"
    url = f"http://{HOST}:{port}"
    _say(console, f"Starting the service on {url} with the offline analyzer; its log: {log}")
    with log.open("wb") as output, httpx2.Client(base_url=url, timeout=30, trust_env=False) as http:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, str(ROOT / "main.py")],
            cwd=source.folder,  # not here: the user's .env may name a key or another database
            env=_inherited() | settings,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            service = Service(process, http, url, log)
            _await_ready(service)
            yield service
        finally:
            _end(process)


def _await_ready(service: Service) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        time.sleep(0.05)
        service.check()
        with suppress(httpx2.TransportError):
            if service.http.get("/ready").status_code == 200:
                return
    raise DemoError(f"The service was not ready within {_START_TIMEOUT_S:.0f} s; see {service.log}.")


def _inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in INHERITED}


def load(source: Source, service: Service, console: Console) -> None:
    """Run the loader, which shows its own progress and summary."""
    _say(console, f"Loading {source.csv}")
    command = [sys.executable, str(ROOT / "ingest_data.py"), str(source.csv), "--api-url", service.url]
    command += source.loader_options
    loader = subprocess.Popen(command, cwd=source.folder, env=_inherited())  # noqa: S603 - our own program
    try:
        status = loader.wait()
    except BaseException:  # Ctrl-C reached the loader too; nothing of ours may outlive us
        _end(loader)
        raise
    service.check()
    if status not in (0, _ROWS_REJECTED):
        raise DemoError(f"Loading ended with status {status}; the loader says why above.", status)


def await_analysis(service: Service, console: Console) -> None:
    """Until nothing waits, show what is left: a line that changes on a terminal, else a line every few seconds."""
    told_at = 0.0
    with console.status("Analyzing") as spinner:
        while (health := _HEALTH.validate_json(service.get("/health")))["queue_size"] != 0:
            if not health["worker_running"]:
                raise DemoError(f"The service no longer analyzes; see {service.log}.")
            left = health["queue_size"] or "some"
            sentence = f"Analyzing: {service.count_insights():,} insights, {left} conversations left"
            spinner.update(sentence)
            if not console.is_terminal and time.monotonic() - told_at >= _TELL_INTERVAL_S:
                told_at = time.monotonic()
                _say(console, sentence)
            time.sleep(0.25)
    told = [f"Analyzed: {service.count_insights():,} insights"]
    for status in (Status.SKIPPED, Status.FAILED):
        page = _CONVERSATIONS.validate_json(service.get("/api/v1/conversations", status=status, limit=1000))
        number, more = page["metadata"]["returned_count"], page["metadata"]["next_cursor"]
        told += [f"{number:,}{' and more' if more else ''} {status}"] if number else []
    _say(console, ", ".join(told) + "\n")


def show_findings(service: Service, console: Console) -> bool:
    """Print all there is to see; whether there are insights."""
    total = service.count_insights()
    if total:
        negative = list(service.fetch(sentiment=Sentiment.NEGATIVE))
        console.print(_urgent_table(negative, console) if negative else "Nobody is unhappy.")
        counts = {feeling: service.count_insights(sentiment=feeling) for feeling in Sentiment}
        shares = ", ".join(f"{number:,} {feeling} ({100 * number / total:.0f} %)" for feeling, number in counts.items())
        _say(console, f"How customers feel: {shares}\n")
        console.print(_topic_table(service))
        if negative:
            show_times([insight["timestamp"] for insight in negative], negative, console)
    links = f"All endpoints, to try in the browser: {service.url}/docs"
    _say(console, f"{links}\ncurl '{service.url}/api/v1/insights?sentiment=negative&limit=5'")
    return bool(total)


def show_times(moments: Sequence[datetime], negative: Sequence[Insight], console: Console) -> None:
    """Negative insights over time, and the spike among them when there is one."""
    console.print(_time_table(moments))
    if (spike := find_spike(moments)) is not None:
        start, end = spike
        inside = [insight for insight in negative if start <= insight["timestamp"] < end]
        (topic, times), *_ = Counter(t for one in inside for t in one["grok_analysis"]["clusters"]).most_common(1)
        span = f"{start:%a %d %b %H:%M} to {end:%H:%M} UTC"
        _say(console, f"The spike: {len(inside)} negative insights, {span}; {times} of them {topic}.\n")


def find_spike(moments: Sequence[datetime]) -> tuple[datetime, datetime] | None:
    """The hours that stand out: from the busiest to both sides while there is a third of it; None when none does."""
    hours = Counter(moment.replace(minute=0, second=0, microsecond=0) for moment in moments)
    peak, peak_count = max(hours.items(), key=lambda pair: pair[1], default=(None, 0))
    usual = (len(moments) - peak_count) / max(1, len(hours) - 1)
    if peak is None or len(hours) < 3 or peak_count < max(5, 4 * usual):
        return None
    hour, start, end = timedelta(hours=1), peak, peak + timedelta(hours=1)
    while hours[start - hour] * 3 >= peak_count:
        start -= hour
    while hours[end] * 3 >= peak_count:
        end += hour
    return start, end


def pick_urgent(negative: Sequence[Insight]) -> list[Insight]:
    """Whom to answer first: the lowest scores of the last day, or of the last days when that day has few."""
    newest, recent = negative[0]["timestamp"], list[Insight]()
    for days in (1, 3, 14, 36500):
        recent = [insight for insight in negative if newest - insight["timestamp"] <= timedelta(days=days)]
        if len(recent) >= _URGENT_ROWS:
            break
    return sorted(recent, key=lambda insight: insight["grok_analysis"]["sentiment_score"])[:_URGENT_ROWS]


def _urgent_table(negative: Sequence[Insight], console: Console) -> Table:
    table = Table("when (UTC)", "author", "score", "topics", "text", title="Answer these first", title_justify="left")
    for column in table.columns:
        column.no_wrap = True
    for insight in pick_urgent(negative):
        analysis = insight["grok_analysis"]
        when, score = f"{insight['timestamp']:%Y-%m-%d %H:%M}", f"{analysis['sentiment_score']:.2f}"
        text = _plain(insight["text"], console.width - 76)
        table.add_row(when, _plain(insight["author"] or "-", 12), score, "\n".join(analysis["clusters"]), text)
    return table


def _topic_table(service: Service) -> Table:
    table = Table("topic", "insights", "negative", "", title="What they write about", title_justify="left")
    found = _TOPICS.validate_json(service.get("/api/v1/topics"))["topics"]
    counts = sorted(
        ((topic["count"], topic["negative"], topic["id"]) for topic in found if topic["count"]), reverse=True
    )
    for number, negative, topic in counts:
        table.add_row(topic, f"{number:,}", f"{negative:,}", _bar(number, counts[0][0]))
    return table


def _time_table(moments: Sequence[datetime]) -> Table:
    """Per hour, day or month, whichever gives a readable number of rows."""
    span = max(moments) - min(moments)
    unit, form = ("month", "%Y-%m") if span > timedelta(days=40) else ("day", "%Y-%m-%d %a")
    if span < timedelta(days=2):
        unit, form = "hour", "%Y-%m-%d %H:00"
    counts = Counter(f"{moment:{form}}" for moment in moments)
    cut = f", the newest {_MOST_INSIGHTS:,}" if len(moments) >= _MOST_INSIGHTS else ""
    table = Table(f"{unit} (UTC)", "negative", "", title=f"Negative insights by {unit}{cut}", title_justify="left")
    for row in sorted(counts)[-48:]:
        table.add_row(row, str(counts[row]), _bar(counts[row], max(counts.values())))
    return table


def _bar(number: int, most: int) -> str:
    return "#" * max(round(_BAR_CHARS * number / most), number > 0)


def _plain(text: str, chars: int) -> Text:
    """One line of what a stranger wrote, without what could steer a terminal."""
    plain = Text("".join(char for char in " ".join(text.split()) if char.isprintable()))
    plain.truncate(max(chars, 12), overflow="ellipsis")
    return plain


def _say(console: Console, sentence: str) -> None:
    console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    console.file.flush()  # before a child writes to the same place


def _lock(folder: Path, stack: ExitStack) -> None:
    """Two demos must not share a database, of which one may remove the other's."""
    folder.mkdir(exist_ok=True)
    try:
        fcntl.flock(stack.enter_context((folder / "lock").open("w")), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DemoError("A demo is running here already: end it with Ctrl-C first.") from None


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):  # too slow, also for who pressed Ctrl-C twice
        process.kill()
        process.wait()


def _is_fresh(csv: Path) -> bool:
    made_at = csv.stat().st_mtime if csv.is_file() else 0.0
    return SAMPLE.stat().st_mtime < made_at <= time.time() < made_at + _SAMPLE_FRESH_S


def _free_port(wanted: int) -> int:
    """`wanted`, or another one when it is taken."""
    for port in (wanted, 0):
        with socket.socket() as listener, suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what was closed a moment ago is free
            listener.bind((HOST, port))
            free: int = listener.getsockname()[1]
            return free
    raise DemoError("There is no free port.")


if __name__ == "__main__":
    main()
