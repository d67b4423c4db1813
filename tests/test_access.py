"""Keys: how they are made and stored, who is known by them, and how they change while the service runs."""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from access import KeyRing, KeysInvalid, Scope, open_keys
from access.key_file import add_key, read_keys
from access.keys import make_key, parse_entry
from tests.harness import ROOT, HandClock

pytestmark = pytest.mark.unit

DIGEST = "a" * 64
OTHER_DIGEST = "b" * 64


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.txt"


@pytest.fixture
def open_ring(clock: HandClock) -> Callable[..., KeyRing]:
    def opened(
        *entries: str, file: Path | None = None, production: bool = True, allow_anonymous: bool = False
    ) -> KeyRing:
        return open_keys(
            entries,
            file,
            production=production,
            allow_anonymous=allow_anonymous,
            monotonic=clock.monotonic,
            now=clock.now,
        )

    return opened


def new_key(file: Path, name: str = "loader", *scopes: Scope, expires: date | None = None) -> bytes:
    """A key whose entry is in the file; what its client sends."""
    sent, key = make_key(name, scopes or [Scope.READ], expires=expires)
    add_key(file, key)
    return sent.encode()


# Keys and entries


def test_a_key_has_256_random_bits_behind_a_prefix() -> None:
    made = {make_key("loader", [Scope.INGEST])[0] for _ in range(100)}

    assert len(made) == 100
    assert all(re.fullmatch(r"ins_[\w-]{43}", sent) for sent in made)


def test_only_the_hash_of_a_key_is_stored() -> None:
    sent, key = make_key("loader", [Scope.INGEST, Scope.READ], expires=date(2027, 1, 31))

    assert str(key) == f"loader:ingest+read:{hashlib.sha256(sent.encode()).hexdigest()}:2027-01-31"
    assert parse_entry(str(key)) == key
    assert key.digest not in repr(key)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        pytest.param("loader", "form", id="a name alone"),
        pytest.param(f"loader:ingest:{DIGEST}:2027-01-31:more", "form", id="too many parts"),
        pytest.param(f":ingest:{DIGEST}", "name", id="no name"),
        pytest.param(f"a b:ingest:{DIGEST}", "name", id="a name with a blank"),
        pytest.param(f"{'x' * 65}:ingest:{DIGEST}", "name", id="a long name"),
        pytest.param(f"loader:write:{DIGEST}", "scope", id="a scope that is none"),
        pytest.param(f"loader::{DIGEST}", "scope", id="no scope"),
        pytest.param(f"loader:ingest+:{DIGEST}", "scope", id="half a scope"),
        pytest.param(f"loader:*:{DIGEST}", "scope", id="a star"),
        pytest.param("loader:ingest:sesame", "SHA-256", id="a key in the hash's place"),
        pytest.param(f"loader:ingest:{DIGEST[:-1]}", "SHA-256", id="a hash cut short"),
        pytest.param(f"loader:ingest:{DIGEST.upper()}", "SHA-256", id="a hash in capitals"),
        pytest.param(f"loader:ingest:{DIGEST}:tomorrow", "date", id="a day in words"),
        pytest.param(f"loader:ingest:{DIGEST}:2027-02-30", "date", id="a day there is not"),
    ],
)
def test_a_broken_entry_is_refused_and_not_repeated(entry: str, said: str) -> None:
    with pytest.raises(KeysInvalid) as refusal:
        parse_entry(entry)

    assert said in str(refusal.value)
    assert not re.search("sesame|aaaa|AAAA", str(refusal.value))


# Who is known


def test_a_key_opens_what_its_entry_says_and_no_more(open_ring: Callable[..., KeyRing], file: Path) -> None:
    sent = new_key(file, "board", Scope.READ, Scope.ADMIN)

    found = open_ring(file=file).find(sent)

    assert found is not None
    assert (found.name, found.scopes) == ("board", frozenset({Scope.READ, Scope.ADMIN}))


@pytest.mark.parametrize("other", [b"ins_", b"", b"\xff", b"KEY and more"])
def test_another_key_opens_nothing(open_ring: Callable[..., KeyRing], file: Path, other: bytes) -> None:
    sent = new_key(file)

    assert open_ring(file=file).find(other.replace(b"KEY", sent)) is None


def test_the_stored_hash_is_no_key(open_ring: Callable[..., KeyRing], file: Path) -> None:
    new_key(file)
    [key] = read_keys(file)

    assert open_ring(file=file).find(key.digest.encode()) is None
    assert open_ring(file=file).find(str(key).encode()) is None


def test_a_key_ends_with_the_utc_day_before_its_date(
    open_ring: Callable[..., KeyRing], clock: HandClock, file: Path
) -> None:
    sent = new_key(file, expires=date(2026, 3, 2))
    ring = open_ring(file=file)
    found = ring.find(sent)
    assert found is not None

    clock.turn((datetime(2026, 3, 2, tzinfo=UTC) - clock.now()).total_seconds() - 1)
    last_second = ring.find(sent)
    clock.turn(1)

    assert last_second == found
    assert ring.find(sent) is None
    assert not ring.holds(found)


def test_keys_of_settings_and_file_open_side_by_side(open_ring: Callable[..., KeyRing], file: Path) -> None:
    sent, key = make_key("loader", [Scope.INGEST])
    from_file = new_key(file, "board")

    ring = open_ring(str(key), file=file)

    assert {found.name for each in (sent.encode(), from_file) if (found := ring.find(each))} == {"loader", "board"}


def test_outside_production_a_key_itself_may_stand_in_the_settings(open_ring: Callable[..., KeyRing]) -> None:
    found = open_ring("sesame-0123456789", production=False).find(b"sesame-0123456789")

    assert found is not None
    assert found.scopes == frozenset(Scope)


# Starts that are refused


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        pytest.param([], ["python -m access create", "ALLOW_ANONYMOUS=true"], id="nobody is known"),
        pytest.param(["sesame-0123456789"], ["entry 1", "python -m access create"], id="a key itself"),
        pytest.param([f"a:read:{DIGEST}", f"b:reed:{DIGEST}"], ["entry 2", "scope"], id="a broken entry"),
    ],
)
def test_in_production_what_would_not_be_safe_does_not_start(
    open_ring: Callable[..., KeyRing], entries: list[str], told: list[str]
) -> None:
    with pytest.raises(KeysInvalid) as refusal:
        open_ring(*entries)

    assert all(words in str(refusal.value) for words in told)
    assert not re.search("sesame|aaaa", str(refusal.value))


def test_a_mistyped_entry_never_becomes_a_key_that_opens_everything(open_ring: Callable[..., KeyRing]) -> None:
    with pytest.raises(KeysInvalid):
        open_ring(f"loader:ingst:{DIGEST}", production=False)


def test_whoever_may_come_in_has_to_be_said(open_ring: Callable[..., KeyRing]) -> None:
    assert not open_ring(allow_anonymous=True).asks
    assert not open_ring(production=False).asks
    assert open_ring(f"a:read:{DIGEST}", allow_anonymous=True).asks


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", f"a:read:{DIGEST}\nb:read\n".encode(), b"#" * 1_000_001])
def test_a_file_that_cannot_be_used_does_not_start(
    open_ring: Callable[..., KeyRing], file: Path, content: bytes | None
) -> None:
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(KeysInvalid, match=r"keys\.txt"):
        open_ring(file=file)


# Changes while the service runs


def test_a_new_key_opens_and_a_revoked_one_does_not_a_second_later(
    open_ring: Callable[..., KeyRing], clock: HandClock, file: Path
) -> None:
    old = new_key(file, "old")
    ring = open_ring(file=file)

    file.write_text("# nobody yet\n", encoding="utf-8")
    new = new_key(file, "new")
    clock.turn(1)

    assert ring.find(old) is None
    assert ring.find(new) is not None


@pytest.mark.parametrize(
    "left",
    [
        pytest.param(b"loader:ingest", id="half an entry"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\xfe\x00", id="bytes that are not UTF-8"),
        pytest.param(f"a:read:{DIGEST}\nb:read:{DIGEST}\n".encode(), id="a key twice"),
        pytest.param(f"everybody:*:{DIGEST}\n".encode(), id="a scope that is none"),
        pytest.param(None, id="no file"),
    ],
)
def test_a_file_that_breaks_locks_nobody_out_and_lets_nobody_in(
    open_ring: Callable[..., KeyRing], clock: HandClock, file: Path, left: bytes | None
) -> None:
    sent = new_key(file)
    ring = open_ring(file=file)

    if left is None:
        file.unlink()
    else:
        file.write_bytes(left)
    clock.turn(1)

    assert ring.find(sent) is not None
    assert ring.asks
    assert ring.find(b"anything") is None


def test_a_change_of_a_file_that_another_change_has_begun_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    add_key(file, make_key("loader", [Scope.INGEST])[1])
    (tmp_path / "keys.txt.new").touch()  # before it reads: it would write back what the other takes out

    with pytest.raises(KeysInvalid, match="another change is under way"):
        add_key(file, make_key("board", [Scope.READ])[1])

    assert [key.name for key in read_keys(file)] == ["loader"]
    assert (tmp_path / "keys.txt.new").exists()


def test_a_file_that_is_no_text_is_not_added_to(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_bytes(b"\xff\xfe")

    with pytest.raises(KeysInvalid, match="UTF-8"):
        add_key(file, make_key("board", [Scope.READ])[1])

    assert [path.name for path in tmp_path.iterdir()] == ["keys.txt"]


def test_a_file_that_is_mended_is_used_again(open_ring: Callable[..., KeyRing], clock: HandClock, file: Path) -> None:
    new_key(file)
    ring = open_ring(file=file)
    file.write_bytes(b"")
    clock.turn(1)
    ring.find(b"")

    sent = new_key(file, "mended")
    clock.turn(1)

    assert ring.find(sent) is not None


def test_a_file_without_any_key_opens_to_nobody(
    open_ring: Callable[..., KeyRing], clock: HandClock, file: Path
) -> None:
    sent = new_key(file)
    ring = open_ring(file=file)

    run("revoke", "loader", "--file", str(file))
    clock.turn(1)

    assert ring.find(sent) is None
    assert ring.asks


def test_the_file_is_looked_at_once_a_second_at_most(
    open_ring: Callable[..., KeyRing], clock: HandClock, file: Path
) -> None:
    old = new_key(file)
    ring = open_ring(file=file)
    file.write_text("# nobody\n", encoding="utf-8")

    clock.turn(0.9)
    too_early = ring.find(old)
    clock.turn(0.1)

    assert too_early is not None
    assert ring.find(old) is None


# The command line


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Settings that would stop the service do not concern it."""
    return subprocess.run(
        [sys.executable, "-m", "access", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "COLUMNS": "200", "PORT": "none", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_create_shows_a_key_and_its_entry_once() -> None:
    made = run("create", "--name", "loader", "--scope", "ingest", "--expires", "2999-01-01")

    sent, entry = made.stdout.splitlines()
    assert parse_entry(entry).digest == hashlib.sha256(sent.encode()).hexdigest()
    assert entry.startswith("loader:ingest:")
    assert entry.endswith(":2999-01-01")
    assert sent not in made.stderr


def test_a_key_is_changed_for_another_without_a_gap(file: Path) -> None:
    old = run("create", "--name", "loader", "--scope", "ingest", "--file", str(file)).stdout.strip()
    new = run("create", "--name", "loader", "--scope", "ingest", "--file", str(file)).stdout.strip()
    digests = [hashlib.sha256(sent.encode()).hexdigest() for sent in (old, new)]
    both = run("list", "--file", str(file)).stdout

    run("revoke", "loader", "--keep", digests[1][:8], "--file", str(file))

    assert [digest[:8] in both for digest in digests] == [True, True]
    assert [key.digest for key in read_keys(file)] == digests[1:]


def test_a_new_file_is_for_its_owner_alone_and_an_old_one_stays_as_it_is(file: Path) -> None:
    run("create", "--name", "a", "--scope", "read", "--file", str(file))
    made = file.stat().st_mode & 0o777
    file.chmod(0o640)
    file.write_text(f"# by hand\na:read:{DIGEST} # of Ann\nb:read:{OTHER_DIGEST}\n", encoding="utf-8")

    run("revoke", "b", "--file", str(file))

    assert made == 0o600
    assert file.stat().st_mode & 0o777 == 0o640
    assert file.read_text(encoding="utf-8") == f"# by hand\na:read:{DIGEST} # of Ann\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["create", "--name", "a:b", "--scope", "read"], "name", id="a name that is none"),
        pytest.param(["create", "--name", "a", "--scope", "all"], "scope", id="a scope that is none"),
        pytest.param(["create", "--name", "a"], "scope", id="no scope"),
        pytest.param(["create", "--name", "a", "--scope", "read", "--expires", "2020-01-01"], "to come", id="the past"),
        pytest.param(["create", "--name", "a", "--scope", "read", "--expires", "soon"], "date", id="no date"),
        pytest.param(["create", "--name", "a", "--scope", "read", "--file", "/no/such/keys"], "/no/such", id="nowhere"),
        pytest.param(["list", "--file", "/no/such/keys"], "cannot be read", id="no file"),
        pytest.param(["revoke", "nobody", "--file", "FILE"], "no key of nobody", id="nobody to revoke"),
        pytest.param(
            ["revoke", "a", "--keep", "zz", "--file", "FILE"], "begins with that", id="one to keep that is none"
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(file: Path, arguments: list[str], said: str) -> None:
    file.write_text(f"a:read:{DIGEST}\n", encoding="utf-8")

    ended = run(*(str(file) if argument == "FILE" else argument for argument in arguments))

    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert file.read_text(encoding="utf-8") == f"a:read:{DIGEST}\n"


def test_a_change_beside_another_is_refused(file: Path) -> None:
    new_key(file)
    file.with_name("keys.txt.new").touch()
    before = file.read_bytes()

    ended = run("create", "--name", "b", "--scope", "read", "--file", str(file))

    assert (ended.returncode, ended.stdout) == (2, "")
    assert "another change" in ended.stderr
    assert file.read_bytes() == before
