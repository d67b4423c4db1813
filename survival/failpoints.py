"""Points of the code where a test has the process killed, an exception raised or time pass; off, a point costs nothing.

    FAILPOINTS=after_claim:kill@3,before_checkpoint:pause=2

arms two of them: killed at the third claim, and the thread that passes is held up for 2 s before every checkpoint.
`kill=0.003` kills 3 ms later, in the midst of what comes next; `raise` raises FailpointReached.
"""

import os
import re
import signal
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Literal, get_args

Failpoint = Literal[
    "in_acceptance",  # rows are written, the transaction goes on
    "after_acceptance",  # it is committed, nobody has been answered
    "before_claim",
    "after_claim",
    "after_call",  # Grok has answered, nothing is saved
    "after_save",
    "before_commit",  # of any transaction
    "after_commit",
    "before_checkpoint",
    "in_migration",  # after each version, before the commit
]
FAILPOINTS: tuple[str, ...] = get_args(Failpoint)
_SPELLING = re.compile(
    r"(?P<name>\w+):(?:(?P<action>kill|raise)|(?P<timed>kill|pause)=(?P<seconds>\d{1,4}(?:\.\d{1,6})?))(?:@(?P<nth>[1-9]\d{0,8}))?"
)


class FailpointReached(Exception):
    """What `raise` raises."""


@dataclass(slots=True)
class Armed:
    """What happens at one point: at its `nth` passing, or at each."""

    name: str
    action: str
    seconds: float
    nth: int | None
    passings: "count[int]" = field(default_factory=lambda: count(1))

    def pass_by(self) -> None:
        if self.nth not in {None, next(self.passings)}:
            return
        match self.action:
            case "kill" if self.seconds:
                threading.Thread(target=_kill, args=(self.seconds,), daemon=True).start()
            case "kill":
                _kill(0)
            case "raise":
                raise FailpointReached(self.name)
            case _:
                time.sleep(self.seconds)


_armed: dict[str, Armed] = {}  # of this process, as a kill is: see docs/adr/0015


def pass_by(name: Failpoint) -> None:
    if _armed and (armed := _armed.get(name)) is not None:
        armed.pass_by()


def arm(failpoints: Iterable[Armed]) -> None:
    """In place of those that were armed before; called by `main`, and by tests."""
    _armed.clear()
    _armed.update({each.name: each for each in failpoints})


def parse_failpoints(text: str) -> list[Armed]:
    """Raises ValueError, with a sentence for the user, for what is no failpoint or no action."""
    return [_parse(part.strip()) for part in text.split(",") if part.strip()]


def _parse(part: str) -> Armed:
    found = _SPELLING.fullmatch(part)
    if found is None:
        raise ValueError(f"FAILPOINTS: {part!r} must look like NAME:kill, NAME:kill=0.01, NAME:raise@3 or NAME:pause=2")
    if found["name"] not in FAILPOINTS:
        raise ValueError(f"FAILPOINTS: {found['name']!r} is none of {', '.join(FAILPOINTS)}")
    nth = found["nth"]
    return Armed(
        found["name"], found["action"] or found["timed"], float(found["seconds"] or 0), int(nth) if nth else None
    )


def _kill(after_s: float) -> None:
    """No handler runs, nothing is flushed: as the kernel kills, or the power fails for this process alone."""
    time.sleep(after_s)
    os.kill(os.getpid(), signal.SIGKILL)
