"""An export of every insight through the service: rows/s, and by how much its process grows meanwhile."""

import http.client
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from benchmarks.query_paths import INSIGHTS
from benchmarks.servers import Server

MOST_GROWTH_MB = 20.0
_SAMPLE_EVERY_S = 0.05
_CHUNK_BYTES = 1 << 16
_EXPORT_TIMEOUT_S = 120.0  # without a byte


@dataclass(frozen=True, slots=True)
class Export:
    format: str
    row_count: int
    announced_count: int
    seconds: float
    megabytes: float
    growth_mb: float | None  # None where there is no /proc

    @property
    def rows_per_s(self) -> float:
        return self.row_count / self.seconds


def measure_export(server: Server, *, format: str) -> Export | None:  # noqa: A002 - the parameter's own name
    """None when the service does not offer it. Rows are lines: no made text has a line break in it."""
    connection = http.client.HTTPConnection(server.address.host, server.address.port, timeout=_EXPORT_TIMEOUT_S)
    with closing(connection), _watched(server.process.pid) as memory:
        started_at = perf_counter()
        connection.request("GET", f"{INSIGHTS}?format={format}")
        response = connection.getresponse()
        if response.status != 200:
            return None
        line_count, byte_count = _read_lines(response)
        seconds = perf_counter() - started_at
    return Export(
        format=format,
        row_count=line_count - (format == "csv"),  # a row of names comes first
        announced_count=int(response.headers.get("x-total-count", "-1")),
        seconds=seconds,
        megabytes=byte_count / 1e6,
        growth_mb=None if memory.before_mb is None else memory.most_mb - memory.before_mb,
    )


def _read_lines(response: http.client.HTTPResponse) -> tuple[int, int]:
    line_count = byte_count = 0
    while chunk := response.read(_CHUNK_BYTES):
        line_count += chunk.count(b"\n")
        byte_count += len(chunk)
    return line_count, byte_count


@dataclass(slots=True)
class _Memory:
    before_mb: float | None
    most_mb: float = 0.0


@contextmanager
def _watched(pid: int) -> Generator[_Memory, None, None]:
    """The resident memory of a process, looked at every 50 ms (Linux only)."""
    memory = _Memory(_resident_mb(pid))
    ended = threading.Event()

    def watch() -> None:
        while True:
            memory.most_mb = max(memory.most_mb, _resident_mb(pid) or 0.0)
            if ended.wait(_SAMPLE_EVERY_S):
                return

    watcher = threading.Thread(target=watch, name="memory", daemon=True)
    watcher.start()
    try:
        yield memory
    finally:
        ended.set()
        watcher.join()


def _resident_mb(pid: int) -> float | None:
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return None
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    return int(lines["VmRSS"].split()[0]) / 1024
