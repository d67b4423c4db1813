"""Full text: which insights hold the words that were asked for, and where; FTS5 on SQLite, tsvector on PostgreSQL.

What a client writes is parsed to words first (`parameters.parse_words`): no operator of the database gets through.
"""

import html
import secrets
from collections.abc import Sequence

from sqlalchemy import ColumnElement, Select, column, func, literal, literal_column, select, table
from sqlalchemy.dialects import postgresql

from database import ReadSession
from models import WORDS, InsightRow
from parameters import Words, parse_words
from queries.columns import unindexed

_WORDS = table(WORDS, column("rowid"), column(WORDS))
# Marks that nobody can write: they become <mark> once the text around them is escaped.
_TOKEN = secrets.token_hex(6)
_OPEN, _CLOSE = f"open{_TOKEN}", f"close{_TOKEN}"
_SNIPPET_WORDS = 24


def matching_ids(session: ReadSession, query: str) -> Select[int]:
    """The insights that hold all the words, in no order."""
    if session.dialect.name == "sqlite":
        return select(_WORDS.c.rowid.label("id")).where(_matches(query))
    return select(InsightRow.id).where(_document().op("@@")(_tsquery(query)))


def holds_words(session: ReadSession, query: str) -> ColumnElement[bool]:
    """What it matches is found first, then looked up: the cost is that of the matches."""
    if session.dialect.name == "sqlite":
        return InsightRow.id.in_(matching_ids(session, query))
    return _document().op("@@")(_tsquery(query))


def snippets(session: ReadSession, query: str, insight_ids: Sequence[int]) -> dict[int, str]:
    """Where the words are, by insight: HTML-escaped, the words in <mark>."""
    if session.dialect.name == "sqlite":
        found = func.snippet(literal_column(WORDS), 0, _OPEN, _CLOSE, "…", _SNIPPET_WORDS)
        these = unindexed(_WORDS.c.rowid, "sqlite").in_(insight_ids)  # else it matches anew for each of them
        statement = select(_WORDS.c.rowid, found).where(_matches(query), these)
    else:
        options = f"StartSel={_OPEN}, StopSel={_CLOSE}, MaxWords={_SNIPPET_WORDS}, MinWords={_SNIPPET_WORDS // 2}"
        found = func.ts_headline("simple", InsightRow.text, _tsquery(query), options)
        statement = select(InsightRow.id, found).where(InsightRow.id.in_(insight_ids))
    return {int(row[0]): _marked(str(row[1])) for row in session.execute(statement)}


def _marked(text: str) -> str:
    return html.escape(text, quote=False).replace(_OPEN, "<mark>").replace(_CLOSE, "</mark>")


def _matches(query: str) -> ColumnElement[bool]:
    return _WORDS.c[WORDS].op("MATCH")(" ".join(map(_quoted, parse_words(query))))


def _quoted(words: Words) -> str:
    """A string of FTS5: nothing within it is an operator."""
    doubled = words.text.replace('"', '""')
    return f'"{doubled}"*' if words.prefix else f'"{doubled}"'


def _document() -> ColumnElement[str]:
    return func.to_tsvector(literal_column("'simple'"), InsightRow.text)


def _tsquery(query: str) -> ColumnElement[str]:
    demands = [_demand(words) for words in parse_words(query)]
    every = demands[0]
    for demand in demands[1:]:
        every = every.op("&&")(demand)
    return every


def _demand(words: Words) -> ColumnElement[str]:
    simple = literal_column("'simple'", type_=postgresql.REGCONFIG())
    if not words.prefix:
        return func.phraseto_tsquery(simple, literal(words.text), type_=postgresql.TSQUERY())
    quoted = words.text.translate({ord("'"): " ", ord("\\"): " "})  # within quotes nothing is an operator
    return func.to_tsquery(simple, literal(f"'{quoted}':*"), type_=postgresql.TSQUERY())


def mark_of_erased(session: ReadSession) -> int:
    """0, unless SQLite's file may still hold words of what was erased (`store.erasing`)."""
    return int(session.exec_driver_sql("PRAGMA user_version").scalar_one())
