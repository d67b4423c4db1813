"""Make, list and revoke keys: `python -m access create --name loader --scope ingest --file keys.txt`."""

import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer

from access.key_file import add_key, read_keys, remove_keys
from access.keys import Key, KeysInvalid, Scope, make_key

_SHOWN_DIGITS = 8

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Keys of the Insights Platform API.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Whose keys.")]
File = Annotated[Path, typer.Option(help="The file that API_KEYS_FILE names.")]


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Who will use it; keys of one name are one client.")],
    scope: Annotated[list[Scope], typer.Option(help="What it opens; give it once for each.")],
    *,
    expires: Annotated[str | None, typer.Option(metavar="DATE", help="Its first day (UTC) without effect.")] = None,
    file: Annotated[Path | None, typer.Option(help="Append its entry here; made with mode 0600 if missing.")] = None,
) -> None:
    """Make a key and show it, once. Without --file its entry comes on a second line, for API_KEYS."""
    sent, key = make_key(name, scope, expires=_future_day(expires))
    if file is not None:
        add_key(file, key)
    typer.echo(sent)
    if file is None:
        typer.echo(str(key))
    stored = f"Its entry is in {file}." if file else "The second line is its entry: put that into API_KEYS or a file."
    typer.echo(f"This is the key of {name}; give it to its client now, it is kept nowhere. {stored}", err=True)


@app.command("list")
def list_keys(*, file: File) -> None:
    """Show whose keys a file holds, what each opens, and the beginning of its SHA-256."""
    for key in read_keys(file):
        typer.echo(_line_of(key))


@app.command()
def revoke(
    name: Name,
    *,
    file: File,
    keep: Annotated[str | None, typer.Option(metavar="SHA256", help="But for the one that begins so.")] = None,
) -> None:
    """Take every key of a name out of a file; a running service follows within a second or so."""
    if keep is not None and not any(key.name == name and key.digest.startswith(keep) for key in read_keys(file)):
        raise KeysInvalid(f"{file} holds no key of {name} that begins with that; `list` shows those there are.")
    gone = remove_keys(file, name, but=keep)
    if not gone:
        raise KeysInvalid(f"{file} holds no key of {name} to revoke; `list` shows those there are.")
    for key in gone:
        typer.echo(f"revoked: {_line_of(key)}")


def _line_of(key: Key) -> str:
    ended = " expired" if key.has_expired(_today()) else ""
    until = f"  until {key.expires}{ended}" if key.expires else ""
    return f"{key.name}  {'+'.join(sorted(key.scopes))}  {key.digest[:_SHOWN_DIGITS]}{until}"


def _future_day(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise KeysInvalid("--expires is a date like 2027-01-31.") from None
    if day <= _today():
        raise KeysInvalid("--expires is a day to come.")
    return day


def _today() -> date:
    return datetime.now(UTC).date()


def main() -> None:
    """What cannot be done ends with a sentence and status 2."""
    try:
        app(prog_name="python -m access")
    except KeysInvalid as error:
        typer.echo(str(error), err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
