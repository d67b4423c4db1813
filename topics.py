"""Read `topics.yaml`: the closed vocabulary of topics, and the patterns that find each of them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import yaml

TOPICS_PATH: Final = Path(__file__).with_name("topics.yaml")
FALLBACK: Final = "other"
_KEYS: Final = ("id", "name", "description", "patterns")
_ID: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")


class TopicsInvalid(ValueError):
    """The topics file cannot be used; the sentence names file, topic and remedy."""


@dataclass(frozen=True, slots=True)
class Topic:
    id: str
    name: str
    description: str
    patterns: tuple[re.Pattern[str], ...]


def load_topics(path: Path = TOPICS_PATH) -> tuple[Topic, ...]:
    """Read and check a topics file, topics in its order.

    Raises: TopicsInvalid, for a file that is missing, not YAML, mistyped, or whose pattern does not compile.
    """
    entries = _read_entries(path)
    topics = tuple(_read_topic(entry, f"{path.name}, topic {number}") for number, entry in enumerate(entries, start=1))
    ids = [topic.id for topic in topics]
    for topic_id in ids:
        if ids.count(topic_id) > 1:
            raise TopicsInvalid(f"{path.name}: topic {topic_id!r} is there twice; merge the two or rename one.")
    if FALLBACK not in ids:
        raise TopicsInvalid(f"{path.name}: topic {FALLBACK!r} is missing; add it, for texts that match nothing.")
    return topics


def topic_patterns(topics: Sequence[Topic]) -> dict[str, tuple[re.Pattern[str], ...]]:
    """The patterns of each topic by its id, in the file's order: what `LocalAnalyzer` takes."""
    return {topic.id: topic.patterns for topic in topics}


def _read_entries(path: Path) -> Sequence[object]:
    try:
        content: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise TopicsInvalid(f"{path.name} cannot be read ({exc.strerror}); put it at {path}.") from exc
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as exc:
        reason = " ".join(str(exc).split())[:200]
        raise TopicsInvalid(f"{path.name} is not UTF-8 YAML ({reason}); mend that line.") from exc
    if not isinstance(content, list) or not content:
        raise TopicsInvalid(f"{path.name} must be a list of topics, each with {', '.join(_KEYS)}; it is not one.")
    return cast("list[object]", content)


def _read_topic(entry: object, where: str) -> Topic:
    if not isinstance(entry, dict):
        raise TopicsInvalid(f"{where} must have the keys {', '.join(_KEYS)}; write them under one '-'.")
    fields = cast("Mapping[object, object]", entry)
    topic_id = _text(fields, "id", where)
    if not _ID.fullmatch(topic_id):
        raise TopicsInvalid(f"{where}: id {topic_id[:64]!r} must be lower-case letters, digits and _; rename it.")
    where = f"{where} ({topic_id})"
    for key in fields:
        if key not in _KEYS:
            raise TopicsInvalid(f"{where}: unknown key {str(key)[:64]!r}; the keys are {', '.join(_KEYS)}.")
    name, description = _text(fields, "name", where), _text(fields, "description", where)
    return Topic(topic_id, name, description, _read_patterns(fields.get("patterns"), topic_id, where))


def _text(fields: Mapping[object, object], key: str, where: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str) or not value.strip():
        raise TopicsInvalid(f"{where}: {key!r} must be a text that is not empty; write one.")
    return value.strip()


def _read_patterns(value: object, topic_id: str, where: str) -> tuple[re.Pattern[str], ...]:
    if not isinstance(value, list):
        raise TopicsInvalid(f"{where}: 'patterns' must be a list of regular expressions; write [] for none.")
    patterns = cast("list[object]", value)
    if not patterns and topic_id != FALLBACK:
        raise TopicsInvalid(f"{where}: 'patterns' is empty, so nothing would match; add one or remove the topic.")
    if patterns and topic_id == FALLBACK:
        raise TopicsInvalid(f"{where}: {FALLBACK!r} is for texts that match nothing; set its 'patterns' to [].")
    return tuple(_compile(pattern, where) for pattern in patterns)


def _compile(pattern: object, where: str) -> re.Pattern[str]:
    if not isinstance(pattern, str) or not pattern.strip():
        raise TopicsInvalid(f"{where}: pattern {str(pattern)[:64]!r} must be a text; put it in quotes.")
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as exc:
        raise TopicsInvalid(f"{where}: pattern {pattern[:64]!r} is no regular expression ({exc}); mend it.") from exc
    if compiled.search(""):
        raise TopicsInvalid(f"{where}: pattern {pattern[:64]!r} matches an empty text, so everything; narrow it.")
    return compiled
