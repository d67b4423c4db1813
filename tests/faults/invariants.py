"""What must hold of the stored rows after every fault, whatever was killed, cut off, stopped or filled up."""

from collections.abc import Callable, Iterable
from typing import Any

Query = Callable[[str], list[tuple[Any, ...]]]  # rows of a statement, read beside the service

_BROKEN = {
    "more than one insight of a conversation": (
        "SELECT conversation_id FROM insights GROUP BY conversation_id HAVING count(*) > 1"
    ),
    "an external_id stored twice": (
        "SELECT external_id FROM conversations WHERE external_id IS NOT NULL GROUP BY external_id HAVING count(*) > 1"
    ),
    "completed without an insight": (
        "SELECT id FROM conversations c WHERE status = 'completed'"
        " AND NOT EXISTS (SELECT 1 FROM insights i WHERE i.conversation_id = c.id)"
    ),
    "an insight of what is not completed": (
        "SELECT c.id FROM conversations c JOIN insights i ON i.conversation_id = c.id"
        " WHERE status <> 'completed' AND reread_at IS NULL"
    ),
    "an insight without its conversation": (
        "SELECT conversation_id FROM insights i"
        " WHERE NOT EXISTS (SELECT 1 FROM conversations c WHERE c.id = i.conversation_id)"
    ),
    "an insight with another text": (
        "SELECT c.id FROM conversations c JOIN insights i ON i.conversation_id = c.id WHERE c.text <> i.text"
    ),
    "skipped without a reason, or a reason without skipped": (
        "SELECT id FROM conversations WHERE (status = 'skipped') <> (skip_reason IS NOT NULL)"
    ),
    "failed without an error, or an error without failed": (
        "SELECT id FROM conversations WHERE (status = 'failed') <> (error_code IS NOT NULL)"
    ),
    "open without a due time, or ended with one": (
        "SELECT id FROM conversations WHERE (status IN ('pending', 'processing')) <> (due_at IS NOT NULL)"
    ),
    "a score or confidence out of range": (
        "SELECT conversation_id FROM insights"
        " WHERE NOT (sentiment_score BETWEEN -1 AND 1 AND confidence BETWEEN 0 AND 1)"
    ),
    "counters that are not the number of insights": (
        "SELECT counted FROM (SELECT coalesce(sum(positive + neutral + negative), 0) AS counted FROM insight_counts"
        " WHERE span = 'hour' AND topic = '*' AND confidence = -1) AS counters"
        " WHERE counted <> (SELECT count(*) FROM insights)"
    ),
}
_SOUND = {"PRAGMA integrity_check": [("ok",)], "PRAGMA foreign_key_check": []}


def find_broken(query: Query, *, acknowledged: Iterable[str], sqlite: bool = True) -> list[str]:
    """Every promise that does not hold, in words; `acknowledged`: the ids that clients were given."""
    broken = [f"{words}: {rows[:3]}" for words, statement in _BROKEN.items() if (rows := query(statement))]
    broken += [f"{words}: {rows[:3]}" for words, good in _SOUND.items() if sqlite and (rows := query(words)) != good]
    lost = find_lost(query, acknowledged)
    return [*broken, *([f"acknowledged and lost: {lost[:3]} of {len(lost)}"] if lost else [])]


def find_lost(query: Query, acknowledged: Iterable[str]) -> list[str]:
    stored = {row[0] for row in query("SELECT id FROM conversations")}
    return [one for one in acknowledged if one not in stored]


def find_double(query: Query) -> list[str]:
    """Conversations that were stored or analyzed more than once."""
    doubles = ("more than one insight of a conversation", "an external_id stored twice")
    return [str(row[0]) for words in doubles for row in query(_BROKEN[words])]
