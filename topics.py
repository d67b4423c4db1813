"""Read `topics.yaml`: the closed vocabulary of topics, what each is and was called, and the rules that find it."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import yaml

TOPICS_PATH: Final = Path(__file__).with_name("topics.yaml")
FALLBACK: Final = "other"
_KEYS: Final = ("id", "name", "description", "patterns", "examples", "formerly")
_NEEDED_KEYS: Final = "id, name, description, and patterns or examples"
_ID: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MOST_EXAMPLES: Final = 5  # they travel in every call
_MOST_EXAMPLE_CHARS: Final = 200
_WORD: Final = re.compile(r"\w+(?:'\w+)*")
_CURLY: Final = str.maketrans("\u2018\u2019\u02bc\xb4", "''''")
_DRAWN_OUT: Final = re.compile(r"([^\W\d_])\1{2,}")


class TopicsInvalid(ValueError):
    """The topics file cannot be used; the sentence names file, topic and remedy."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic of the file; `formerly` are the ids that mean it now: it was renamed, or took others in."""

    id: str
    name: str
    description: str
    patterns: tuple[re.Pattern[str], ...]
    examples: tuple[str, ...] = ()
    formerly: tuple[str, ...] = ()


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
    _check_former_ids(topics, path.name)
    return topics


def topic_patterns(topics: Sequence[Topic]) -> dict[str, tuple[re.Pattern[str], ...]]:
    """The patterns of each topic by its id, in the file's order: what `LocalAnalyzer` takes."""
    return {topic.id: topic.patterns for topic in topics}


def topic_descriptions(topics: Sequence[Topic]) -> dict[str, str]:
    """What `Prompt` says of each topic by its id, examples included."""
    return {topic.id: " ".join([topic.description, *map(_quote, topic.examples)]) for topic in topics}


def topic_aliases(topics: Sequence[Topic]) -> dict[str, str]:
    """The id of each topic by its name and by its former ids."""
    return {topic.name: topic.id for topic in topics} | former_ids(topics)


def former_ids(topics: Sequence[Topic]) -> dict[str, str]:
    """The id of each topic by the ids that it had, or that were merged into it."""
    return {former: topic.id for topic in topics for former in topic.formerly}


def _quote(example: str) -> str:
    return f'"{example}"'


def _check_former_ids(topics: Sequence[Topic], file_name: str) -> None:
    """An old id leads to one topic, and is none itself."""
    taken = {topic.id: topic.id for topic in topics}
    for topic in topics:
        for former in topic.formerly:
            where = f"{file_name}, topic {topic.id!r}: former id {former!r}"
            if taken.get(former) == former:
                raise TopicsInvalid(f"{where} is a topic of the file; remove that topic or this former id.")
            if former in taken:
                raise TopicsInvalid(f"{where} is claimed by {taken[former]!r} too; leave it to one of them.")
            taken[former] = topic.id


def _read_entries(path: Path) -> Sequence[object]:
    try:
        content: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise TopicsInvalid(f"{path.name} cannot be read ({exc.strerror}); put it at {path}.") from exc
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as exc:
        reason = " ".join(str(exc).split())[:200]
        raise TopicsInvalid(f"{path.name} is not UTF-8 YAML ({reason}); mend that line.") from exc
    if not isinstance(content, list) or not content:
        raise TopicsInvalid(f"{path.name} must be a list of topics, each with {_NEEDED_KEYS}; it is not one.")
    return cast("list[object]", content)


def _read_topic(entry: object, where: str) -> Topic:
    if not isinstance(entry, dict):
        raise TopicsInvalid(f"{where} must have the keys {_NEEDED_KEYS}; write them under one '-'.")
    fields = cast("Mapping[object, object]", entry)
    topic_id = _text(fields, "id", where)
    if not _ID.fullmatch(topic_id):
        raise TopicsInvalid(f"{where}: id {topic_id[:64]!r} must be lower-case letters, digits and _; rename it.")
    where = f"{where} ({topic_id})"
    for key in fields:
        if key not in _KEYS:
            raise TopicsInvalid(f"{where}: unknown key {str(key)[:64]!r}; the keys are {', '.join(_KEYS)}.")
    examples = _read_examples(fields.get("examples"), where)
    return Topic(
        id=topic_id,
        name=_text(fields, "name", where),
        description=_text(fields, "description", where),
        patterns=_read_patterns(fields.get("patterns"), topic_id, where) or _rules_of(examples, topic_id, where),
        examples=examples,
        formerly=_read_former_ids(fields.get("formerly"), where),
    )


def _text(fields: Mapping[object, object], key: str, where: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str) or not value.strip():
        raise TopicsInvalid(f"{where}: {key!r} must be a text that is not empty; write one.")
    return value.strip()


def _list(value: object, what: str) -> list[object]:
    """A key that is left out, or has nothing behind it, is an empty list."""
    if value is not None and not isinstance(value, list):
        raise TopicsInvalid(f"{what}; write [] for none.")
    return cast("list[object]", value or [])


def _read_patterns(value: object, topic_id: str, where: str) -> tuple[re.Pattern[str], ...]:
    patterns = _list(value, f"{where}: 'patterns' must be a list of regular expressions")
    if patterns and topic_id == FALLBACK:
        raise TopicsInvalid(f"{where}: {FALLBACK!r} is for texts that match nothing; set its 'patterns' to [].")
    return tuple(_compile(pattern, where) for pattern in patterns)


def _rules_of(examples: Sequence[str], topic_id: str, where: str) -> tuple[re.Pattern[str], ...]:
    """Without patterns, the topic is found by its examples."""
    if topic_id == FALLBACK:
        return ()
    if not examples:
        raise TopicsInvalid(
            f"{where}: 'patterns' is empty and there are no 'examples', so nothing would match; add one of them"
            " or remove the topic."
        )
    return tuple(re.compile(_phrase(example)) for example in examples)


def _phrase(example: str) -> str:
    """The words of an example as the analyzer sees them in a text, whatever stands between them.

    They hold only letters, digits, `_` and `'`: nothing that a pattern would read as more than itself.
    """
    plain = unicodedata.normalize("NFC", example).translate(_CURLY).lower()
    return r"\W+".join(_WORD.findall(_DRAWN_OUT.sub(r"\1\1", plain))) + r"\b"


def _read_examples(value: object, where: str) -> tuple[str, ...]:
    examples = _list(value, f"{where}: 'examples' must be a list of sentences")
    if len(examples) > _MOST_EXAMPLES:
        raise TopicsInvalid(f"{where}: {len(examples)} 'examples' are too many; keep {_MOST_EXAMPLES} at most.")
    return tuple(_read_example(example, where) for example in examples)


def _read_example(example: object, where: str) -> str:
    if not isinstance(example, str) or not _WORD.search(example):
        raise TopicsInvalid(f"{where}: example {str(example)[:64]!r} must be a sentence; put it in quotes.")
    if len(example) > _MOST_EXAMPLE_CHARS:
        shown = example[:64]
        raise TopicsInvalid(f"{where}: example {shown!r}... is longer than {_MOST_EXAMPLE_CHARS} characters; cut it.")
    return " ".join(example.split())


def _read_former_ids(value: object, where: str) -> tuple[str, ...]:
    formers = _list(value, f"{where}: 'formerly' must be a list of old ids")
    for former in formers:
        if not isinstance(former, str) or not _ID.fullmatch(former):
            raise TopicsInvalid(f"{where}: former id {str(former)[:64]!r} is none; write it as it was in the file.")
    return cast("tuple[str, ...]", tuple(formers))


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
