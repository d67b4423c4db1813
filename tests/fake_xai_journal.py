"""The fake xAI's journal: how often it was called, when, and with which texts; the truth that tests compare with."""

from collections import deque
from dataclasses import dataclass, field, fields
from pathlib import Path

import orjson

from tests.fake_xai_answers import Json

CHAT = "/v1/chat/completions"


@dataclass(slots=True)
class Call:
    """What the journal keeps of a request. `answered_at` stays None when the caller left before the end."""

    number: int
    arrived_at: float
    complete_at: float
    path: str
    key_end: str
    conversation: str | None
    in_flight: int
    model: str | None = None
    effort: str | None = None
    texts: list[str] = field(default_factory=list[str])
    ids: list[int] = field(default_factory=list[int])
    valid: bool | None = None  # None where there is no schema to be valid by
    problem: str | None = None
    fault: str | None = None
    status: int | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    cost_ticks: int = 0
    answered_at: float | None = None
    payload: Json | None = None  # in memory only


_WRITTEN = tuple(one.name for one in fields(Call) if one.name != "payload")


class Journal:
    """Every call in the order of arrival, in memory and, when a file is named, one line each at its arrival.

    A second line with `number` and `answered_at` follows when the answer was handed out. Lines are only ever added.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.calls: list[Call] = []
        self._file = file

    @classmethod
    def load(cls, file: Path) -> "Journal":
        """What a fake in another process has written so far."""
        journal = cls()
        whole_lines, _, _ = file.read_bytes().rpartition(b"\n")  # the last one may be half written
        for line in whole_lines.splitlines():
            members = orjson.loads(line)
            if "path" in members:
                journal.calls.append(Call(**members))
            else:
                journal.calls[members["number"] - 1].answered_at = members["answered_at"]
        return journal

    @property
    def chats(self) -> list[Call]:
        return [call for call in self.calls if call.path == CHAT]

    @property
    def paths(self) -> list[str]:
        return [call.path for call in self.calls]

    def texts(self) -> list[str]:
        return [text for call in self.calls for text in call.texts]

    def times_called(self, text: str) -> int:
        """How many calls carried this text."""
        return sum(text in call.texts for call in self.calls)

    def calls_in_busiest_window(self, window_s: float = 1.0) -> int:
        """The most calls that arrived within any `window_s`, wherever it begins; its end is not part of it."""
        most, recent = 0, deque[float]()
        for arrived_at in sorted(call.arrived_at for call in self.calls):
            recent.append(arrived_at)
            while recent[0] <= arrived_at - window_s:
                recent.popleft()
            most = max(most, len(recent))
        return most

    def write(self, call: Call) -> None:
        self._write_line({name: getattr(call, name) for name in _WRITTEN})

    def write_answered(self, call: Call) -> None:
        self._write_line({"number": call.number, "answered_at": call.answered_at})

    def _write_line(self, line: Json) -> None:
        if self._file is not None:
            with self._file.open("ab") as opened:
                opened.write(orjson.dumps(line) + b"\n")
