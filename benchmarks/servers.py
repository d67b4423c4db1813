"""Servers under test as child processes: on a free port, paused while another is measured, killed at the end."""

import http.client
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.http_load import Address

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
START_TIMEOUT_S = 30.0
_SCHEDULED = 2  # of a process's clocks the one that counts time on a CPU
# What a child may inherit. A key or a limit in the caller's environment must not change what is measured.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class Server:
    name: str
    address: Address
    database: Path
    process: subprocess.Popen[bytes]

    def pause(self) -> None:
        """Stop it where it stands (SIGSTOP): its background work must not take CPU while another is measured."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL: what was only in its memory is gone."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def cpu_ms(self) -> float | None:
        """How long its threads have been on a CPU so far; None where the system does not say (Linux only).

        By the clock that clock_getcpuclockid(3) names, a microsecond's work: to read a file for each thread took half a
        millisecond, and the caches with it.
        """
        if sys.platform != "linux":
            return None
        try:
            return time.clock_gettime(~self.process.pid << 3 | _SCHEDULED) * 1000
        except OSError:  # it has ended
            return None

    def stored_ids(self) -> list[str]:
        with closing(sqlite3.connect(self.database)) as connection:
            return [row[0] for row in connection.execute("SELECT id FROM conversations")]

    def status_counts(self) -> dict[str, int]:
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=5)) as connection:
            return dict(connection.execute("SELECT status, count(*) FROM conversations GROUP BY status").fetchall())


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def service(folder: Path, **changed: str) -> Generator[Server, None, None]:
    """The project's service as a user starts it, with its limit out of the way; else by default, but for `changed`."""
    with service_on(folder / "service.db", **changed) as server:
        yield server


@contextmanager
def service_on(database: Path, **changed: str) -> Generator[Server, None, None]:
    """The same on a database of this name, which may be there already."""
    port = free_port()
    settings = {
        "DATABASE_URL": f"sqlite:///{database}",
        "HOST": HOST,
        "PORT": str(port),
        "RATE_LIMIT_REQUESTS": "1000000",
        "LOG_LEVEL": "WARNING",
        "GROK_MODE": "mock",
        "TOPICS_FILE": str(ROOT / "topics.yaml"),
        **changed,
    }
    with _started("service", [str(ROOT / "main.py")], port, database, settings) as server:
        yield server


@contextmanager
def plain_design(folder: Path) -> Generator[Server, None, None]:
    port, database = free_port(), folder / "plain.db"
    command = [str(ROOT / "benchmarks" / "plain_design.py"), "--port", str(port), "--db", str(database)]
    with _started("plain", command, port, database, {}) as server:
        yield server


@contextmanager
def plain_queries(database: Path) -> Generator[Server, None, None]:
    """The plain design's queries over what `plain_queries.copy_insights` has made."""
    port = free_port()
    command = [str(ROOT / "benchmarks" / "plain_queries.py"), "--port", str(port), "--db", str(database)]
    with _started("plain", command, port, database, {}) as server:
        yield server


@contextmanager
def trivial_server() -> Generator[Address, None, None]:
    """A server that does nothing, to see what the load client can drive."""
    port = free_port()
    process = subprocess.Popen([sys.executable, str(ROOT / "benchmarks" / "http_load.py"), "--port", str(port)])
    try:
        _await_port(port, process)
        yield Address(HOST, port)
    finally:
        process.kill()
        process.wait()


@contextmanager
def _started(
    name: str, command: list[str], port: int, database: Path, settings: dict[str, str]
) -> Generator[Server, None, None]:
    database.parent.mkdir(parents=True, exist_ok=True)
    log = database.with_suffix(".log")
    environment = {key: os.environ[key] for key in INHERITED if key in os.environ} | settings
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=database.parent,  # not the project: its .env must not be read
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own, so that pausing and killing reach its workers too
        )
    server = Server(name, Address(HOST, port), database, process)
    try:
        _await_ready(server, log)
        yield server
    finally:
        server.kill()


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"nothing answers on port {port}")


def _await_ready(server: Server, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and server.process.poll() is None:
        if is_ready(server.address):
            return
        time.sleep(0.05)
    last_lines = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
    raise RuntimeError(f"the {server.name} server did not become ready; the end of its log:\n{last_lines}")


def is_ready(address: Address) -> bool:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=2)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
