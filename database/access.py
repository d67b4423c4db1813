"""The one way to the tables: units of work are plain functions of a session, handed to the writer or to a reader.

write(unit) --> the writer's thread, which commits what has gathered at once
read(unit)  --> reader thread: BEGIN, unit, ROLLBACK on a connection that cannot write, behind a gate of the writer's
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from sqlalchemy import URL, Connection
from sqlalchemy.exc import SQLAlchemyError

from database.engine import PATIENCE_S, file_of, make_engine, parse_database_url
from database.failures import translated
from database.gate import Gate
from database.migrating import migrate, newest_version, version_of
from database.presence import BEING_REPLACED, Presence
from database.sessions import ReadSession, WriteSession, driver_of
from database.writer import OnCommit, Writer
from errors import Draining, StorageUnusable
from telemetry import get_logger

T = TypeVar("T")
log = get_logger()

_NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "fuse.sshfs", "afs"}
_WRITES_END_WITHIN_S, _READS_END_WITHIN_S = 2.0, 0.5  # after 7 s at most for requests and the processor


class Database:
    """The one way to the tables. Build it with `connect`, end it with `close`."""

    def __init__(
        self,
        url: URL,
        *,
        readers: int = 4,
        patience_s: float = PATIENCE_S,
        on_commit: OnCommit = lambda _units, _seconds: None,
    ) -> None:
        self.dialect = url.get_backend_name()
        self.file = file_of(url)
        self._presence = None if self.file is None else Presence(self.file)
        self._write_engine = make_engine(url, pool_size=1, may_write=True)
        self._read_engine = make_engine(url, pool_size=readers, may_write=False)
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="reader")
        self._reads = Gate()
        self._writer = Writer(
            self._write_engine, file=self.file, reads=self._reads, patience_s=patience_s, on_commit=on_commit
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        readers: int = 4,
        patience_s: float = PATIENCE_S,
        on_commit: OnCommit = lambda _units, _seconds: None,
    ) -> "Database":
        """`patience_s`: how long a write waits for SQLite's lock while another process has it.

        Raises ValueError, with a sentence for the user, when `url` names no database that the service can use.
        """
        try:
            return cls(parse_database_url(url), readers=readers, patience_s=patience_s, on_commit=on_commit)
        except ModuleNotFoundError as error:
            raise ValueError("PostgreSQL needs its driver: .venv/bin/pip install 'psycopg[binary]'") from error

    async def open(self) -> None:
        """Bring the schema up to date and start the writer."""
        self._loop = asyncio.get_running_loop()
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            _warn_of_network_file_system(self.file)
        if self._presence is not None and not await asyncio.to_thread(self._presence.join):
            raise StorageUnusable(BEING_REPLACED)
        await asyncio.to_thread(migrate, self._write_engine)
        self._writer.start(self._loop)

    async def close(self) -> None:
        """Commit what has been handed over, fold the WAL into the file, and let every connection go.

        A database that hangs is waited for some seconds, then left to the end of the process: its threads go on.
        """
        if self._closed:
            return
        self._closed = True
        written = await asyncio.to_thread(self._writer.end, timeout_s=_WRITES_END_WITHIN_S)
        if not (await asyncio.to_thread(self._end_readers) and written):
            log.error("database_hangs", remedy="look at its disk or server; what was not answered may be lost")
            return
        self._read_engine.dispose()
        self._write_engine.dispose()
        if self._presence is not None:
            self._presence.leave()

    def _end_readers(self) -> bool:
        ending = threading.Thread(target=partial(self._readers.shutdown, cancel_futures=True), daemon=True)
        ending.start()
        ending.join(_READS_END_WITHIN_S)
        return not ending.is_alive()

    async def write(self, unit: Callable[[WriteSession], T], *, alone: bool = False) -> T:
        """The value of `unit`, after the commit that holds it; if `unit` raises, it alone is rolled back.

        It may be run again, when another replica stored the same key first or locked crosswise. `alone`: it locks what
        replicas share, so on PostgreSQL it gets a transaction of its own.

        Raises what `unit` raises, DatabaseBusy (`patience_s` after it was handed over), StorageFull or Overloaded. A
        caller that is cancelled has handed its unit over: it commits all the same.
        """
        if self._closed or self._loop is None:
            raise Draining
        value: T = await self._writer.hand_over(unit, alone=alone)
        return value

    async def vacuum(self) -> None:
        """Write all of SQLite's file anew, which no transaction can; writes wait meanwhile, and reads go on.

        Raises: DatabaseBusy, StorageFull, Overloaded; then the file is as it was.
        """
        if self._closed or self._loop is None:
            raise Draining
        await self._writer.vacuum()

    async def read(self, unit: Callable[[ReadSession], T]) -> T:
        """The value of `unit`, all of whose statements see one snapshot."""
        if self._closed or self._loop is None:
            raise Draining
        return await self._loop.run_in_executor(self._readers, self._read, unit)

    async def schema_is_current(self) -> bool:
        return await self.read(lambda session: version_of(session) == newest_version())

    def _read(self, unit: Callable[[ReadSession], T]) -> T:
        begin = "BEGIN" if self.dialect == "sqlite" else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        with self._reads, translated(), self._read_engine.connect() as connection:
            with driver_of(connection, begin) as driver:
                driver.execute(begin)
            try:
                return unit(ReadSession(connection))
            finally:
                _end_read(connection)


def _end_read(connection: Connection) -> None:
    try:
        with driver_of(connection, "ROLLBACK") as driver:
            driver.execute("ROLLBACK")
    except SQLAlchemyError:  # it was lost: nothing is to be ended, and nobody is to get it again
        connection.invalidate()


def _warn_of_network_file_system(file: Path) -> None:
    """WAL needs shared memory and real locks, which network file systems lack (sqlite.org/wal.html)."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return
    folder = file.resolve().parent
    rows = [line.split() for line in mounts.read_text(errors="replace").splitlines()]
    under = [(len(row[1]), row[2]) for row in rows if len(row) > 2 and folder.is_relative_to(row[1])]
    kind = max(under, default=(0, ""))[1]
    if kind in _NETWORK_FILE_SYSTEMS:
        log.warning("database_on_network_file_system", kind=kind, remedy="put the database on a local disk or volume")
