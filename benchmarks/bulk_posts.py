"""Bulk POSTs of 500 through the service beside stdlib `executemany` of the same rows into the same schema."""

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import orjson

from benchmarks import servers
from benchmarks.http_load import Address, drive, request_bytes, run
from benchmarks.texts import conversation

ROWS_PER_POST = 500  # the most the service takes
CLIENTS = 4  # enough that one body is being parsed while another is being committed
SETTLE_S = 0.3
SERIAL_DIGITS = 12  # the end of an id that tells one row from the next


@dataclass(slots=True)
class BulkPosts:
    service_rows_per_s: list[float] = field(default_factory=list[float])
    executemany_rows_per_s: list[float] = field(default_factory=list[float])
    acknowledged_count: int = 0
    stored_count: int = 0
    refused_count: int = 0

    @property
    def ratio(self) -> float:
        return median(self.service_rows_per_s) / median(self.executemany_rows_per_s)

    @property
    def passed(self) -> bool:
        return self.acknowledged_count == self.stored_count and self.refused_count == 0


def bulk_posts(address: Address, *, first: int = 0, rows: int = ROWS_PER_POST) -> Iterator[bytes]:
    """Requests without end, each with `rows` other conversations, counted from `first`."""
    for start in itertools.count(first, rows):
        items = [conversation(number) for number in range(start, start + rows)]
        body = orjson.dumps({"conversations": items})
        yield request_bytes("POST", "/api/v1/conversations/bulk", address, body=body)


def accepted_rows(bodies: list[bytes]) -> int:
    counts: list[int] = [orjson.loads(body)["accepted"] for body in bodies]
    return sum(counts)


def measure_bulk_posts(folder: Path, *, rounds: int, seconds: float) -> BulkPosts:
    result = BulkPosts()
    with servers.service(folder) as server:
        requests = bulk_posts(server.address)
        _load(server, requests, result, seconds=0.2)  # warms up, and leaves rows to copy
        server.pause()
        with closing(_Executemany(folder / "executemany.db", server.database)) as rival:
            for number in range(1, rounds + 1):
                server.resume()
                sleep(SETTLE_S)
                result.service_rows_per_s.append(_load(server, requests, result, seconds=seconds))
                server.pause()
                result.executemany_rows_per_s.append(rival.load(seconds=seconds))
                print(f"  round {number}/{rounds} {_describe(result)}", flush=True)
        server.kill()
        result.stored_count = len(server.stored_ids())
    return result


def _load(server: servers.Server, requests: Iterator[bytes], result: BulkPosts, *, seconds: float) -> float:
    """Rows/s through the service; those under way at the end count as acknowledged only."""
    tally = run(drive(server.address, requests, clients=CLIENTS, duration_s=seconds))
    result.acknowledged_count += accepted_rows(tally.bodies)
    result.refused_count += tally.other_count
    return accepted_rows(tally.bodies[: tally.in_time_count]) / seconds


def _describe(result: BulkPosts) -> str:
    return (
        f"service {result.service_rows_per_s[-1]:>9,.0f} rows/s   "
        f"executemany {result.executemany_rows_per_s[-1]:>9,.0f} rows/s"
    )


class _Executemany:
    """The rival: one bare connection, WAL and synchronous=FULL, one transaction per 500 rows, the service's schema."""

    def __init__(self, path: Path, original: Path) -> None:
        self._columns, self._template, statements = _read_original(original)
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        for statement in statements:
            self._connection.execute(statement)
        self._number = 0

    def load(self, *, seconds: float) -> float:
        """Rows/s of the transactions alone: making the rows is not on its clock."""
        row_count, busy_s = 0, 0.0
        insert = (
            f"INSERT INTO conversations ({', '.join(self._columns)}) VALUES ({', '.join('?' * len(self._columns))})"
        )
        while busy_s < seconds:
            rows = [self._next_row() for _ in range(ROWS_PER_POST)]
            started_at = perf_counter()
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(insert, rows)
            self._connection.execute("COMMIT")
            busy_s += perf_counter() - started_at
            row_count += len(rows)
        return row_count / busy_s

    def close(self) -> None:
        self._connection.close()

    def _next_row(self) -> tuple[object, ...]:
        """A row as the service stores it, with its own id (ascending, as the service's), text and author."""
        self._number += 1
        item = conversation(self._number)
        old_id = str(self._template["id"])
        own = {
            "id": old_id[:-SERIAL_DIGITS] + f"{self._number:0{SERIAL_DIGITS}x}",
            "text": item["text"],
            "author": item["author"],
        }
        return tuple(own.get(name, self._template[name]) for name in self._columns)


def _read_original(path: Path) -> tuple[list[str], dict[str, object], list[str]]:
    """The columns, one stored row (a pending one if there is), and the CREATE statements of a service's database."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as connection:
        shadows = {row[1] for row in connection.execute("PRAGMA table_list") if row[2] == "shadow"}
        found = connection.execute(
            "SELECT tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' "
            "ORDER BY type = 'table' DESC, rowid"
        )
        statements = [sql for table, sql in found if table not in shadows]
        cursor = connection.execute("SELECT * FROM conversations ORDER BY status = 'pending' DESC LIMIT 1")
        columns = [column[0] for column in cursor.description]
        row = cursor.fetchone()
    if row is None:
        raise RuntimeError("the service stored nothing that could be copied")
    return columns, dict(zip(columns, row, strict=True)), statements
