"""The command line of backups: `python -m backups make FILE`, `check FILE`, `restore FILE`, `vacuum`.

The database is the one that DATABASE_URL names, in the environment or in `.env`. Status 0 when it is done, 1 when it is
refused, 2 when the command or a setting cannot be used.
"""

import argparse
import signal
import sqlite3
import sys
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from backups import Refused, check, make, restore, vacuum
from database import file_of, parse_database_url
from settings import Settings, check_env_file, describe_problems


def main(arguments: list[str]) -> int:
    given = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _end)
    try:
        check_env_file()
        if given.command == "vacuum":
            database_file = _database_file(given.command)
            print(f"{database_file} was written anew: {vacuum(database_file)}.")
            return 0
        file: Path = given.file
        if given.command == "check":
            print(f"{file} is sound: {check(file)}.")
            return 0
        database_file = _database_file(given.command)
        if given.command == "make":
            content = make(database_file, file, tell=lambda line: print(line, file=sys.stderr, flush=True))
            print(f"{file}: {content}. It was checked and is sound.")
        else:
            _tell_restored(restore(database_file, file, now=datetime.now(UTC)).kept, file)
    except ValidationError as error:
        return _refuse(describe_problems(error), status=2)
    except ValueError as error:
        return _refuse(str(error), status=2)
    except (Refused, OSError, sqlite3.Error) as error:
        return _refuse(str(error), status=1)
    return 0


def _end(number: int, _frame: object) -> None:
    """By an exception: what was begun is cleaned up."""
    sys.exit(128 + number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m backups", description="Copies of the database of the service.")
    commands = parser.add_subparsers(dest="command", required=True)
    helps = {
        "make": "copy the database, while the service runs, into a new FILE",
        "check": "read all of FILE and say whether it is sound",
        "restore": "put FILE in the place of the database; the service must be stopped",
    }
    for name, text in helps.items():
        commands.add_parser(name, help=text, description=text).add_argument("file", type=Path, metavar="FILE")
    text = "write the database anew, so that nothing erased is left in it; the service must be stopped"
    commands.add_parser("vacuum", help=text, description=text)
    return parser


def _database_file(command: str) -> Path:
    """Raises: ValueError, with what to use instead, when the database is no file."""
    url = parse_database_url(Settings().database_url)
    if (file := file_of(url)) is not None:
        return file
    place = url.set(drivername="postgresql").render_as_string().replace(":***@", "@")
    program = {
        "make": f"pg_dump --format=custom --file=FILE '{place}'",
        "restore": f"pg_restore --clean --if-exists --single-transaction --dbname='{place}' FILE",
        "vacuum": f"vacuumdb --full --dbname='{place}'",
    }[command]
    raise ValueError(f"The database is PostgreSQL: use its own programs, with the password in PGPASSWORD:\n  {program}")


def _tell_restored(kept: Path | None, file: Path) -> None:
    print(f"{file} is now the database. Start the service: it brings the tables to its version.")
    if kept is not None:
        log = kept.with_name(f"{kept.name}-wal")
        print(f"The one before is kept: {kept}{f', with its log {log}' if log.exists() else ''}")


def _refuse(reason: str, *, status: int) -> int:
    sys.stderr.write(f"{reason}\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
