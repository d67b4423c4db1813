"""Which column is which: known files by their header or shape, never by name; any other by its words and prose."""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from loader.csv_times import is_moment, read_moment

_SAMPLE_ROWS = 400
_TEXT_NAMES = (
    "text", "fulltext", "tweettext", "tweet", "tweetcontent", "content", "body", "message", "messagetext", "reviewtext",
    "review", "reviewbody", "reviewcontent", "ticketdescription", "issuedescription", "consumercomplaintnarrative",
    "complaint", "comment", "comments", "commenttext", "feedback", "verbatim", "post", "posttext", "selftext",
    "caption", "sentence", "phrase", "utterance", "transcript", "conversation", "statement", "description", "details",
    "headline",
)  # fmt: skip
_TEXT_ENDINGS = ("text", "comment", "comments", "review", "description", "message", "feedback", "content", "tweet")
_AUTHOR_NAMES = (
    "author", "authorid", "authorname", "user", "username", "userscreenname", "screenname", "handle", "userid",
    "userhandle",
       "customer", "customername", "customerid", "sender", "fromuser", "from", "reviewer", "reviewername", "nickname",
    "profilename", "account",
)  # fmt: skip
_TIME_NAMES = (
    "timestamp", "createdat", "created", "tweetcreated", "tweetdate", "date", "datetime", "time", "createdtime",
    "createddate", "datecreated", "postedat", "posteddate", "publishedat", "publisheddate", "reviewdate", "reviewtime",
    "submittedat", "sentat", "openedat", "datereceived", "dateutc",
)  # fmt: skip
_ID_NAMES = (
    "externalid", "id", "ids", "idstr", "tweetid", "textid", "statusid", "messageid", "ticketid", "caseid", "reviewid",
    "commentid", "postid", "complaintid", "conversationid", "unitid", "uuid", "guid", "recordid", "uniqueid",
)  # fmt: skip
_SENTIMENTS = frozenset({"positive", "negative", "neutral", "irrelevant", "mixed"})
_ROLES = ("text", "author", "timestamp", "id")


class MappingError(Exception):
    """No text column could be found, or `--columns` names one that is not there."""


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """What each column of a file means; `id_at` lists candidates, best first, because ids may turn out lossy."""

    format_name: str
    prefix: str
    names: tuple[str, ...]
    has_header: bool
    text_at: int
    author_at: int | None = None
    time_at: int | None = None
    id_at: tuple[int, ...] = ()
    inbound_at: int | None = None
    parent_at: int | None = None
    index_at: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class _Known:
    """A published file, recognised by names its header must have."""

    name: str
    prefix: str
    required: frozenset[str]
    text: str
    author: str | None = None
    time: str | None = None
    ids: tuple[str, ...] = ()


def _known(name: str, header: str, *, prefix: str, columns: str) -> _Known:
    """`columns` are text, author, time and ids, in this order; a dash stands for none."""
    text, author, time, *ids = columns.split()
    return _Known(
        name, prefix, frozenset(header.split()), text, author.strip("-") or None, time.strip("-") or None, tuple(ids)
    )


_KNOWN = (
    _known("Customer Support on Twitter", "tweetid inbound text",
           prefix="twcs", columns="text authorid createdat tweetid"),
    _known("Twitter US Airline Sentiment", "airlinesentiment text",
           prefix="airline", columns="text name tweetcreated tweetid unitid"),
    _known("Sentiment140", "target ids date flag user text", prefix="s140", columns="text user date ids"),
    _known("Tweet Sentiment Extraction", "textid text selectedtext", prefix="tse", columns="text - - textid"),
    _known("CrowdFlower", "unitid golden text", prefix="crowdflower", columns="text - date unitid"),
    _known("Sanders", "topic sentiment tweetid tweetdate tweettext",
           prefix="sanders", columns="tweettext - tweetdate tweetid"),
    _known("SXSW brands and emotions", "tweettext isthereanemotiondirectedatabrandorproduct",
           prefix="sxsw", columns="tweettext - -"),
    _known("rtweet", "text replytosn created screenname", prefix="rtweet", columns="text screenname created id"),
    _known("rtweet", "text statusid screenname createdat",
           prefix="rtweet", columns="text screenname createdat statusid"),
)  # fmt: skip


def detect_columns(rows: list[list[str]], *, width: int, overrides: Mapping[str, str] | None = None) -> ColumnMap:
    """Find the columns of a file from its first rows.

    Raises MappingError when no column holds text, or when an override names no column.
    """
    chosen = dict(overrides or {})
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if not rows:
        raise MappingError("there are no rows")
    rows[0] = [*rows[0], *[""] * (width - len(rows[0]))]
    keys = [_key(name) for name in rows[0]]
    found = _match_known(rows, keys) or _match_shape(rows, width) or _guess(rows, keys, width=width, chosen=chosen)
    return _apply_overrides(found, chosen) if chosen else found


def parse_columns(option: str) -> dict[str, str]:
    """`text=2,author=user` as a dict. Raises MappingError on anything else."""
    chosen: dict[str, str] = {}
    for part in filter(None, option.split(",")):
        role, equals, column = part.partition("=")
        if role.strip() not in _ROLES or not equals or not column.strip():
            raise MappingError(f"--columns takes {'=..., '.join(_ROLES)}=..., not {part!r}")
        chosen[role.strip()] = column.strip()
    return chosen


def _key(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _match_known(rows: list[list[str]], keys: list[str]) -> ColumnMap | None:
    for known in _KNOWN:
        if not known.required <= set(keys):
            continue
        return replace(
            _name_columns(rows, keys.index(known.text), format_name=known.name, prefix=known.prefix),
            author_at=_index(keys, known.author),
            time_at=_index(keys, known.time),
            id_at=tuple(keys.index(name) for name in known.ids if name in keys),
            inbound_at=_index(keys, "inbound") if known.prefix == "twcs" else None,
            parent_at=_index(keys, "inresponsetotweetid") if known.prefix == "twcs" else None,
        )
    return None


def _index(keys: list[str], name: str | None) -> int | None:
    return keys.index(name) if name is not None and name in keys else None


def _name_columns(rows: list[list[str]], text_at: int, *, format_name: str, prefix: str) -> ColumnMap:
    header, body = rows[0], rows[1:_SAMPLE_ROWS]
    names = tuple(name.strip() or f"column_{at}" for at, name in enumerate(header, start=1))
    unnamed = [at for at, name in enumerate(header) if _key(name) in {"", "index", "level0"} or name[:8] == "Unnamed:"]
    index_at = frozenset(at for at in unnamed if all(_cell(row, at).isdigit() or not _cell(row, at) for row in body))
    return ColumnMap(format_name, prefix, names, has_header=True, text_at=text_at, index_at=index_at)


def _match_shape(rows: list[list[str]], width: int) -> ColumnMap | None:
    """Published files that come without a header."""
    body = [row for row in rows[:_SAMPLE_ROWS] if len(row) == width]
    if width == 6 and _most(body, 0, test={"0", "2", "4"}.__contains__) and _most(body, 2, test=is_moment):
        names = ("target", "ids", "date", "flag", "user", "text")
        return ColumnMap("Sentiment140", "s140", names, has_header=False, text_at=5, author_at=4, time_at=2, id_at=(1,))
    if (
        width == 4
        and _most(body, 0, test=str.isdigit)
        and _most(body, 2, test=lambda cell: cell.lower() in _SENTIMENTS)
    ):
        return ColumnMap(
            "entity sentiment", "entity", ("id", "entity", "sentiment", "text"), has_header=False, text_at=3, id_at=(0,)
        )
    if width >= 3 and _most(body, 0, test=is_moment) and _most(body, 1, test=lambda cell: cell.startswith("@")):
        link_names = ["date", "user", "text", "link", "applet_link", *(f"column_{at}" for at in range(6, width + 1))][
            :width
        ]
        ids = (3,) if width > 3 else ()
        return ColumnMap(
            "IFTTT", "ifttt", tuple(link_names), has_header=False, text_at=2, author_at=1, time_at=0, id_at=ids
        )
    return None


def _cell(row: list[str], at: int) -> str:
    return row[at].strip() if at < len(row) else ""


def _most(rows: list[list[str]], at: int, *, test: Callable[[str], bool]) -> bool:
    cells = [cell for row in rows if (cell := _cell(row, at))]
    return bool(cells) and sum(map(test, cells)) >= 0.9 * len(cells) >= 0.5 * len(rows)


def _guess(rows: list[list[str]], keys: list[str], *, width: int, chosen: Mapping[str, str]) -> ColumnMap:
    by_name = next((keys.index(name) for name in _TEXT_NAMES if name in keys), None)
    named = by_name is not None or any(_key(column) in keys for column in chosen.values() if not column.isdigit())
    if not named and not _has_header(rows, keys):
        return _guess_headerless(rows, width)
    body = rows[1:_SAMPLE_ROWS]
    text_at = by_name if by_name is not None else _prose_column(body, max(width, len(keys)), keys=keys)
    if text_at is None and "text" not in chosen:
        raise MappingError(
            f"no column holds text (there are: {', '.join(filter(None, rows[0]))}); use --columns text=..."
        )
    kind = {"reviewtext": "reviews", "ticketdescription": "tickets"}.get(keys[text_at or 0], "csv")
    found = _name_columns(rows, text_at or 0, format_name=f"{kind} with a header", prefix=_fingerprint(kind, keys))
    return replace(
        found,
        author_at=next((keys.index(name) for name in _AUTHOR_NAMES if name in keys), None),
        time_at=_time_column(body, keys),
        id_at=tuple(keys.index(name) for name in _ID_NAMES if name in keys),
    )


def _guess_headerless(rows: list[list[str]], width: int) -> ColumnMap:
    body = rows[:_SAMPLE_ROWS]
    text_at = _prose_column(body, width, keys=[])
    if text_at is None:
        raise MappingError("no column holds text; use --columns text=NUMBER")
    time_at = next((at for at in range(width) if at != text_at and _most(body, at, test=is_moment)), None)
    names = ["text" if at == text_at else f"column_{at + 1}" for at in range(width)]
    if width > 1:
        label_at = text_at + 1 if text_at == 0 else text_at - 1
        names[label_at] = "label" if label_at != time_at else "date"
    format_name = "one column of text" if width == 1 else "csv without a header"
    prefix = _fingerprint("csv", [*names, "without header"])
    return ColumnMap(format_name, prefix, tuple(names), has_header=False, text_at=text_at, time_at=time_at)


def _fingerprint(kind: str, keys: list[str]) -> str:
    """A prefix of its own for every set of column names, so that the ids of unlike files never meet."""
    return f"{kind}-{hashlib.blake2b(','.join(keys).encode(), digest_size=4).hexdigest()}"


def _has_header(rows: list[list[str]], keys: list[str]) -> bool:
    """Whether the first row names the columns: short, distinct, never a number or a date, and never seen again."""
    header, body = rows[0], rows[1:_SAMPLE_ROWS]
    cells = [cell.strip() for cell in header if cell.strip()]
    if not body or not cells or len(set(keys) - {""}) < len([key for key in keys if key]):
        return False
    if any(len(cell) > 60 or re.fullmatch(r"[-\d.,:/ ]+", cell) or is_moment(cell) for cell in cells):
        return False
    if any(cell.strip() and cell.strip() == _cell(row, at) for at, cell in enumerate(header) for row in body):
        return False
    if any(key in (*_AUTHOR_NAMES, *_TIME_NAMES, *_ID_NAMES) for key in keys):
        return True
    longest = max(sum(len(_cell(row, at)) for row in body) / len(body) for at in range(len(header)))
    return max(map(len, cells)) * 2 < longest and not any(cell[-1] in ".!?" for cell in cells)


def _prose_column(rows: list[list[str]], width: int, *, keys: list[str]) -> int | None:
    """The column with the longest prose; a telling name counts for more than length."""
    best, best_length = None, 0.0
    for at in range(width):
        cells = [cell for row in rows if (cell := _cell(row, at))]
        spaced = sum(" " in cell for cell in cells)
        if not cells or (spaced < 0.3 * len(cells) and width > 1) or _most(rows, at, test=is_moment):
            continue
        length = sum(map(len, cells)) / len(rows)
        if at < len(keys) and keys[at].endswith(_TEXT_ENDINGS):
            length *= 3
        if length > best_length:
            best, best_length = at, length
    return best


def _time_column(rows: list[list[str]], keys: list[str]) -> int | None:
    for name in _TIME_NAMES:
        if name in keys and _most(rows, keys.index(name), test=lambda cell: read_moment(cell) is not None):
            return keys.index(name)
    return next(
        (at for at, key in enumerate(keys) if ("date" in key or "time" in key) and _most(rows, at, test=is_moment)),
        None,
    )


def _apply_overrides(found: ColumnMap, chosen: Mapping[str, str]) -> ColumnMap:
    at = {role: _find_column(found, column, role=role) for role, column in chosen.items()}
    return replace(
        found,
        text_at=at.get("text", found.text_at),
        author_at=at.get("author", found.author_at),
        time_at=at.get("timestamp", found.time_at),
        id_at=(at["id"],) if "id" in at else found.id_at,
    )


def _find_column(found: ColumnMap, column: str, *, role: str) -> int:
    if column in found.names:
        return found.names.index(column)
    keys = [_key(name) for name in found.names]
    if _key(column) in keys and not column.isdigit():
        return keys.index(_key(column))
    if column.isdigit() and 1 <= int(column) <= len(found.names):
        return int(column) - 1
    raise MappingError(f"--columns {role}={column}: no such column; there are {', '.join(found.names)}")
