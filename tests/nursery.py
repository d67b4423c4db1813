"""Services that start in a tenth of the time: forked from a process that has imported them, each a process of its own.

A start takes about a second, nearly all of it imports, and a thousand kills need a thousand starts. `python -m
tests.nursery` reads a request a line and answers it in a line: `start` gives a pid, `poll` the status of its end.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class Nursery:
    """Where services are forked; its children are killed with it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(self, *, environment: Mapping[str, str], folder: Path, log: Path) -> "Forked":
        request = {"environment": dict(environment), "folder": str(folder), "log": str(log)}
        return Forked(self, self.ask(start=request))

    def ask(self, **request: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


class Forked:
    """As much of `subprocess.Popen` as a service's owner needs."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self._nursery = nursery
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._nursery.ask(poll=self.pid)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        ends_at = time.monotonic() + (timeout or 60)
        while (code := self.poll()) is None:
            if time.monotonic() > ends_at:
                raise subprocess.TimeoutExpired(["service"], timeout or 60)
            time.sleep(0.005)
        return code


@contextmanager
def running_nursery() -> Generator[Nursery, None, None]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.nursery"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Nursery(process)


def _serve() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own handler forgets one that comes while it forks
    importlib.import_module("main")  # what every child would import

    for line in sys.stdin:
        request = json.loads(line)
        answer = _fork(**request["start"]) if "start" in request else _poll(request["poll"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _poll(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def _fork(*, environment: dict[str, str], folder: str, log: str) -> int:
    if pid := os.fork():
        return pid
    code = 1
    try:
        code = _become_service(environment=environment, folder=folder, log=log)
    finally:
        sys.stderr.flush()
        os._exit(code)


def _become_service(*, environment: dict[str, str], folder: str, log: str) -> int:
    import main  # noqa: PLC0415 - has been imported

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    try:
        main.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


if __name__ == "__main__":
    _serve()
