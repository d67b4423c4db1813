"""The curl sessions of the API's page: read from their files, and run one after another against a service."""

import json
import os
import re
import shlex
import subprocess
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
from pydantic import JsonValue

from problems import title_of
from routes.openapi import EXAMPLE_REQUEST_ID

WRITTEN_URL = "http://localhost:8000"  # as the commands have it
NOW = datetime(2025, 1, 22, 9, tzinfo=UTC)  # what a moment of the run is shown as
_WIDTH = 110
_IDLE_WITHIN_S = 15.0
_CUT_OFF = 28  # curl's exit code for --max-time: how a stream is left that never ends
_SHOWN_HEADERS = ("content-type", "location", "link", "retry-after", "allow", "content-disposition", "x-total-count")
_COMMAND = re.compile(r"```bash\n(.*?)```\n", re.DOTALL)
# Every request of a session reports what it was, beside what the command prints.
_CURL = """curl() {
  command curl -q --silent --show-error --noproxy '*' --max-time 30 --dump-header "$HEADERS" \\
    --write-out '%{stderr}\\n%{method} %{url_effective}\\n' "$@"
}
"""


@dataclass(frozen=True, slots=True)
class Chapter:
    """A file of sessions: `name` is an operation's id, or something else; `parts` are words and the command after."""

    name: str
    parts: tuple[tuple[str, str], ...]
    rest: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """A command that was run, what it asked and what came back; nothing in it varies from run to run."""

    command: str
    method: str
    path: str
    status: int
    headers: tuple[tuple[str, str], ...]
    printed: str

    @property
    def media_type(self) -> str:
        return dict(self.headers).get("content-type", "").partition(";")[0]

    @property
    def value(self) -> Any:
        return json.loads(self.printed) if self._is_json else self.printed

    @property
    def _is_json(self) -> bool:
        return self.media_type.endswith(("/json", "+json"))  # lines of JSON are no JSON

    @property
    def sent(self) -> tuple[str, Any] | None:
        """Media type and body of the request, as the command has them."""
        words = shlex.split(self.command)
        bodies = [after for word, after in pairwise(words) if word in {"-d", "--data-binary"}]
        types = [match[1] for word in words if (match := re.fullmatch(r"(?i)content-type: *(\S+)", word))]
        if not bodies or not types:
            return None
        return types[0], json.loads(bodies[0]) if types[0].endswith("/json") else bodies[0]

    def shown(self) -> str:
        """As the page has it: status, the headers worth knowing, and the body, set over lines."""
        headers = [f"{name.title()}: {value}" for name, value in self.headers]
        body = lay_out(self.value) if self._is_json else self.printed.rstrip("\n")
        return "\n".join([f"HTTP/1.1 {self.status} {title_of(self.status)}", *headers, "", body]).rstrip() + "\n"


class SessionFailed(Exception):
    """A session cannot be run as it is written."""


def read_chapters(folder: Path) -> list[Chapter]:
    """In the order of the numbers that the files' names begin with."""
    return [_read_chapter(path) for path in sorted(folder.glob("*.md"))]


def _read_chapter(path: Path) -> Chapter:
    *pairs, rest = _COMMAND.split(path.read_text(encoding="utf-8"))
    parts = tuple(zip(pairs[::2], pairs[1::2], strict=True))
    return Chapter(path.stem.partition("-")[2], parts, rest)


class Replay:
    """Runs commands against one service; `$ID` and `$CURSOR` in them are the last that were answered."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._steady = Steady(datetime.now(UTC).date())
        self._variables: dict[str, str] = {}

    def run(self, command: str) -> Exchange:
        """One request and its answer, once the service has read all that was sent.

        Raises: SessionFailed when the command fails, or makes more or less than one request.
        """
        with tempfile.TemporaryDirectory() as folder:
            headers = Path(folder) / "headers"
            ran = self._run_bash(command, headers)
            asked = re.findall(r"^([A-Z]+) (http\S+)$", ran.stderr, flags=re.MULTILINE)
            if ran.returncode not in {0, _CUT_OFF}:
                raise SessionFailed(f"{command}{ran.stderr}")
            if len(asked) != 1:
                raise SessionFailed(f"A block is one request of curl, not {len(asked)}:\n{command}")
            status, answered = _read_headers(headers.read_text(encoding="latin-1"))
        self._remember(ran.stdout)
        self._wait_until_idle()
        method, url = asked[0]
        return Exchange(
            command,
            method,
            httpx2.URL(url).path,
            status,
            tuple((name, self._steady(answered[name])) for name in _SHOWN_HEADERS if name in answered),
            self._steady(ran.stdout),
        )

    def _run_bash(self, command: str, headers: Path) -> subprocess.CompletedProcess[str]:
        script = _CURL + command.replace(WRITTEN_URL, self._url)
        environment = {**os.environ, **self._variables, "HEADERS": str(headers)}
        return subprocess.run(  # noqa: S603 - the commands are ours
            ["bash", "-u", "-o", "pipefail", "-c", script],  # noqa: S607 - the bash of who runs it
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def _remember(self, printed: str) -> None:
        for variable, name in (("ID", "conversation_id"), ("CURSOR", "next_cursor")):
            if (match := re.search(rf'"{name}":"([^"]+)"', printed)) is not None:
                self._variables[variable] = match[1]

    def _wait_until_idle(self) -> None:
        """What comes next may read what this one sent."""
        ends_at = time.monotonic() + _IDLE_WITHIN_S
        while self._is_busy():
            if time.monotonic() > ends_at:
                raise SessionFailed("The service did not finish what it was sent.")
            time.sleep(0.02)

    def _is_busy(self) -> bool:
        queue_size = httpx2.get(f"{self._url}/health", trust_env=False).json()["queue_size"]
        orders = httpx2.get(f"{self._url}/api/v1/reanalyses", trust_env=False).json()["reanalyses"]
        return bool(queue_size) or any(order["ended_at"] is None for order in orders)


class Steady:
    """Replaces what no two runs share: ids, cursors, request ids, the time of the run, and rates."""

    def __init__(self, today: date) -> None:
        self._runs_from = today - timedelta(days=1)
        self._names: dict[str, str] = {}
        self._rules: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
            (re.compile(r"conv_[0-9a-f]{32}"), self._id),
            (re.compile(r'(?<="next_cursor":")(?!conv_)[^"]+|(?<=cursor=)(?!conv_)[\w-]+'), self._cursor),
            (re.compile(r'(?<="request_id":")[^"]+'), lambda _: EXAMPLE_REQUEST_ID),
            (re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00))?"), self._moment),
            (re.compile(r"\d{8}T\d{6}Z"), lambda _: NOW.strftime("%Y%m%dT%H%M%SZ")),
            (re.compile(r'(?<="finished_per_second":)[\d.]+'), lambda _: "0.2"),
        )

    def __call__(self, text: str) -> str:
        for pattern, replace in self._rules:
            text = pattern.sub(replace, text)
        return text

    def _id(self, match: re.Match[str]) -> str:
        """Each id has one stand-in wherever it occurs, and of the same form."""
        return self._names.setdefault(match[0], f"conv_0194f9c2472c2a3277f8{len(self._names) + 1:012x}")

    def _cursor(self, match: re.Match[str]) -> str:
        name = urlsafe_b64encode(f"a cursor is opaque: {len(self._names) + 1}".encode()).decode().rstrip("=")
        return self._names.setdefault(match[0], name)

    def _moment(self, match: re.Match[str]) -> str:
        try:
            day = date.fromisoformat(match[0][:10])
        except ValueError:
            return match[0]
        if day < self._runs_from:
            return match[0]
        return NOW.strftime("%Y-%m-%dT%H:%M:%SZ") if "T" in match[0] else NOW.date().isoformat()


def lay_out(value: JsonValue, indent: int = 0) -> str:
    """JSON over lines: an object or a list stays on one line where it fits."""
    flat = json.dumps(value, ensure_ascii=False)
    if len(flat) + indent <= _WIDTH or not isinstance(value, dict | list):
        return flat
    inner = "\n" + " " * (indent + 2)
    items = _lay_out_items(value, indent + 2)
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}{inner}{(',' + inner).join(items)}\n{' ' * indent}{closing}"


def _lay_out_items(value: dict[str, JsonValue] | list[JsonValue], indent: int) -> Sequence[str]:
    if isinstance(value, dict):
        return [f"{json.dumps(name)}: {lay_out(item, indent)}" for name, item in value.items()]
    return [lay_out(item, indent) for item in value]


def _read_headers(dump: str) -> tuple[int, dict[str, str]]:
    """Status and headers, by their small names, of the last answer: `100 Continue` may have come before."""
    first, *lines = dump.strip().split("\n\n")[-1].splitlines()
    pairs = (line.partition(":") for line in lines)
    return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}
