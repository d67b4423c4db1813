"""The one way to the tables: units of work are plain functions of a session, handed to the writer or to a reader.

write(unit) --> the writer's thread, which commits what has gathered at once
read(unit)  --> reader thread: BEGIN, unit, COMMIT on a connection that cannot write
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from database.engine import PATIENCE_S, file_of, make_engine, parse_database_url
from database.failures import translated
from database.migrating import migrate, newest_version, version_of
from database.presence import BEING_REPLACED, Presence
from database.sessions import ReadSession, WriteSession
from database.writer import OnCommit, Writer
from errors import Draining, StorageUnusable
from telemetry import get_logger

T = TypeVar("T")
log = get_logger()

_NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "fuse.sshfs", "afs"}


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
        self._writer = Writer(self._write_engine, file=self.file, patience_s=patience_s, on_commit=on_commit)
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
        """Commit what has been handed over, fold the WAL into the file, and let every connection go."""
        if self._closed:
            return
        self._closed = True
        await asyncio.to_thread(self._writer.end)
        self._readers.shutdown(wait=True)
        self._read_engine.dispose()
        self._write_engine.dispose()
        if self._presence is not None:
            self._presence.leave()

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

    async def read(self, unit: Callable[[ReadSession], T]) -> T:
        """The value of `unit`, all of whose statements see one snapshot."""
        if self._closed or self._loop is None:
            raise Draining
        return await self._loop.run_in_executor(self._readers, self._read, unit)

    async def schema_is_current(self) -> bool:
        return await self.read(lambda session: version_of(session) == newest_version())

    def _read(self, unit: Callable[[ReadSession], T]) -> T:
        begin = "BEGIN" if self.dialect == "sqlite" else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        with translated(), self._read_engine.connect() as connection:
            connection.exec_driver_sql(begin)
            try:
                return unit(ReadSession(connection))
            finally:
                with suppress(SQLAlchemyError):  # a connection that was lost has nothing to end
                    connection.exec_driver_sql("ROLLBACK")


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
