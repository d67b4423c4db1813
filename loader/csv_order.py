"""Rows in another order than the file's: shuffled, or the tweets of a thread as one conversation; sorted on disk."""

import random
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby

import orjson

from loader.csv_rows import Payload, Rejected, Row

_MAX_TEXT_CHARS = 10_000  # what the service takes
_MAX_LISTED_TWEETS = 500  # in raw_data; the longest known thread has 130
_CACHE = "PRAGMA cache_size = -16000"  # 16 MB; the rest waits on disk
_TWEET_TABLE = (
    "CREATE TABLE tweet (key TEXT PRIMARY KEY, parent TEXT, root TEXT, moment TEXT, line INTEGER, "
    "inbound INTEGER, payload BLOB)"
)
_SHUFFLED_TABLE = "CREATE TABLE shuffled (place INTEGER, line INTEGER, payload BLOB, fault TEXT, text TEXT)"
_CUT_MARK = "\n[...]"


@dataclass(frozen=True, slots=True)
class _Tweet:
    line: int
    inbound: bool
    payload: Payload


def shuffle_rows(rows: Iterable[Row | Rejected], *, seed: int) -> Iterator[Row | Rejected]:
    """All rows, rejected ones too, in an order that only `seed` decides."""
    draw = random.Random(seed)
    with closing(_open_disk(_SHUFFLED_TABLE)) as disk:
        for row in rows:
            kept = (
                (None, row.reason, row.text) if isinstance(row, Rejected) else (orjson.dumps(row.payload), None, None)
            )
            disk.execute("INSERT INTO shuffled VALUES (?, ?, ?, ?, ?)", (draw.getrandbits(62), row.line, *kept))
        shuffled = disk.execute("SELECT line, payload, fault, text FROM shuffled ORDER BY place, line")
        for line, payload, fault, text in shuffled:
            yield Rejected(line, fault, text) if payload is None else Row(line, orjson.loads(payload))


def join_threads(rows: Iterable[Row | Rejected], *, inbound_only: bool = False) -> Iterator[Row | Rejected]:
    """Each thread as one conversation under the external id of its root, its tweets in order of time.

    With `inbound_only` it holds the customers' tweets alone, and threads without any are left out. A tweet whose
    parent is missing is a root; parents may come after their children; a ring starts at its first tweet.
    """
    with closing(_open_disk(_TWEET_TABLE)) as disk:
        for row in rows:
            if isinstance(row, Rejected) or row.key is None or not _keep_tweet(disk, row):
                yield row
        _find_roots(disk)
        tweets = disk.execute("SELECT root, line, inbound, payload FROM tweet ORDER BY root, key <> root, moment, line")
        for root, group in groupby(tweets, key=lambda tweet: str(tweet[0])):
            thread = [_Tweet(line, bool(inbound), orjson.loads(payload)) for _, line, inbound, payload in group]
            said = [tweet for tweet in thread if tweet.inbound or not inbound_only]
            if said:
                yield _join(thread[0], said, root=root)


def _open_disk(table: str) -> sqlite3.Connection:
    # a private file that SQLite removes, closed in whichever thread lets go of it last
    disk = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    disk.execute(_CACHE)
    disk.execute(table)
    disk.execute("BEGIN")
    return disk


def _keep_tweet(disk: sqlite3.Connection, row: Row) -> bool:
    """Put a tweet aside; False when its key is taken, so that it travels alone and the service judges it."""
    inbound = None if row.inbound is None else int(row.inbound)
    moment = _sortable(str(row.payload.get("timestamp", "")))
    kept = disk.execute(
        "INSERT OR IGNORE INTO tweet VALUES (?, ?, NULL, ?, ?, ?, ?)",
        (row.key, row.parent, moment, row.line, inbound, orjson.dumps(row.payload)),
    )
    return kept.rowcount == 1


def _sortable(moment: str) -> str:
    return moment.removesuffix("+00:00")  # twcs writes every moment in UTC


def _find_roots(disk: sqlite3.Connection) -> None:
    disk.execute("CREATE INDEX child ON tweet (parent)")
    _walk_from(disk, "parent IS NULL OR parent NOT IN (SELECT key FROM tweet)")
    while ring := disk.execute("SELECT key FROM tweet WHERE root IS NULL ORDER BY line LIMIT 1").fetchone():
        disk.execute("UPDATE tweet SET parent = NULL WHERE key = ?", ring)
        _walk_from(disk, "parent IS NULL AND root IS NULL")


def _walk_from(disk: sqlite3.Connection, condition: str) -> None:
    disk.execute(
        f"""WITH RECURSIVE walk (key, root) AS (
                SELECT key, key FROM tweet WHERE {condition}
                UNION ALL
                SELECT tweet.key, walk.root FROM walk JOIN tweet ON tweet.parent = walk.key)
            UPDATE tweet SET root = walk.root FROM walk WHERE tweet.key = walk.key"""  # noqa: S608 - our own text
    )


def _join(first: _Tweet, said: list[_Tweet], *, root: str) -> Row:
    name = first.payload["external_id"]
    if len(said) == 1:
        return Row(said[0].line, {**said[0].payload, "external_id": name})
    text = "\n".join(map(_speak, said))
    if len(text) > _MAX_TEXT_CHARS:
        text = text[: _MAX_TEXT_CHARS - len(_CUT_MARK)] + _CUT_MARK
    asked = next((tweet.payload for tweet in said if tweet.inbound), said[0].payload)
    tweets = [tweet.payload["external_id"] for tweet in said[:_MAX_LISTED_TWEETS]]
    payload: Payload = {"text": text, "external_id": name}
    payload |= {field: asked[field] for field in ("author",) if field in asked}
    payload |= {field: said[0].payload[field] for field in ("timestamp",) if field in said[0].payload}
    payload["raw_data"] = {"thread_root": root, "tweet_count": len(said), "tweets": tweets}
    return Row(first.line, payload)


def _speak(tweet: _Tweet) -> str:
    author = tweet.payload.get("author")
    return f"{author}: {tweet.payload['text']}" if author else str(tweet.payload["text"])
