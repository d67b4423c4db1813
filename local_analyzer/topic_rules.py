"""Find topics in a text by patterns tried at the start of every word, fast enough for hundreds of patterns.

A pattern is tried only where the three first characters of a word can begin one of its matches; which those are is read
from the pattern itself (`openings`), and where that is hard to say, the pattern is tried everywhere.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

_START: Final = re.compile(r"(?<!\w)\S")
_DEPTH: Final = 3  # characters of an opening
_REMEMBERED_OPENINGS: Final = 4096


@dataclass(frozen=True, slots=True)
class TopicHits:
    """What the rules of one topic found in a text: one wording for each pattern that hit, in the order of the text."""

    topic: str
    words: tuple[str, ...]


class _Rule(NamedTuple):
    topic: int
    pattern: re.Pattern[str]
    number: int


class TopicRules:
    """The patterns of every topic, filed under the openings of their matches."""

    def __init__(self, topic_patterns: Mapping[str, Sequence[re.Pattern[str]]]) -> None:
        self._topics = tuple(topic_patterns)
        self._filed: dict[str, list[_Rule]] = {}
        self._looked_up: dict[str, tuple[_Rule, ...]] = {}
        flat = [(topic, pattern) for topic, patterns in enumerate(topic_patterns.values()) for pattern in patterns]
        for number, (topic, pattern) in enumerate(flat):
            for opening in openings(pattern.pattern):
                self._filed.setdefault(opening, []).append(_Rule(topic, pattern, number))

    def find(self, clean: str) -> list[TopicHits]:
        """Topics with at least one hit, those with hits of more patterns first, else in the vocabulary's order.

        Hits of one topic do not overlap; `clean` is lower-cased text as `text_features.read` gives it.
        """
        ends: dict[int, int] = {}
        words: dict[int, dict[re.Pattern[str], str]] = {}
        for start_match in _START.finditer(clean):
            start = start_match.start()
            for topic, pattern, _ in self._filed_under(clean[start : start + _DEPTH]):
                if ends.get(topic, 0) <= start and (match := pattern.match(clean, start)):
                    ends[topic] = match.end()
                    words.setdefault(topic, {}).setdefault(pattern, match[0])
        found = sorted(words.items(), key=lambda item: (-len(item[1]), item[0]))
        return [TopicHits(self._topics[topic], tuple(hits.values())) for topic, hits in found]

    def _filed_under(self, opening: str) -> tuple[_Rule, ...]:
        """The rules whose matches can begin so, in the vocabulary's order."""
        rules = self._looked_up.get(opening)
        if rules is None:
            if len(self._looked_up) >= _REMEMBERED_OPENINGS:
                self._looked_up.clear()
            found = (rule for size in range(len(opening) + 1) for rule in self._filed.get(opening[:size], ()))
            rules = self._looked_up[opening] = tuple(sorted(found, key=lambda rule: rule.number))
        return rules


def openings(pattern: str) -> frozenset[str]:
    """The first three characters with which a match can begin; a shorter one stands for all that begin with it."""
    found = {text for text, _ in _alternatives(pattern)}
    return frozenset(text for text in found if not any(text.startswith(other) for other in found - {text}))


# An opening under way: its characters, and whether what follows in the pattern may still lengthen it.
_Opening = tuple[str, bool]


def _alternatives(pattern: str) -> set[_Opening]:
    found: set[_Opening] = set()
    for branch in _split(pattern):
        found |= _sequence(branch)
    return found


def _sequence(branch: str) -> set[_Opening]:
    begun: set[_Opening] = {("", True)}
    at = 0
    while at < len(branch) and any(growing for _, growing in begun):
        atom_end = _atom_end(branch, at)
        atom = _atom(branch[at:atom_end])
        quantifier = branch[atom_end : atom_end + 1]
        if quantifier and quantifier in "+*{":
            atom = {(text, False) for text, _ in atom}
        if quantifier and quantifier in "?*{":
            atom = atom | {("", quantifier != "{")}
        begun = {pair for before in begun for pair in _joined(before, atom)}
        at = len(branch) if quantifier == "{" else atom_end + (quantifier in "?*+" and bool(quantifier))
    return begun


def _joined(before: _Opening, atom: set[_Opening]) -> set[_Opening]:
    text, growing = before
    if not growing:
        return {before}
    longer = {(text + more, still) for more, still in atom}
    return {(both[:_DEPTH], still and len(both) < _DEPTH) for both, still in longer}


def _atom(atom: str) -> set[_Opening]:
    if atom.startswith("(?:"):
        return _alternatives(atom[3:-1])
    if atom.startswith("(?"):
        return {("", False)}  # a look-around: what it asks for is not worth reading
    if atom.startswith("("):
        return _alternatives(atom[1:-1])
    if len(atom) == 1 and atom not in ".^$":
        return {(atom, True)}
    return {("", False)}  # a class or an escape: any character


def _atom_end(branch: str, at: int) -> int:
    if branch[at] == "\\":
        return at + 2
    if branch[at] == "[":
        return _class_end(branch, at)
    if branch[at] != "(":
        return at + 1
    depth = 0
    while at < len(branch):
        if branch[at] in "\\[":
            at = _atom_end(branch, at)
            continue
        depth += {"(": 1, ")": -1}.get(branch[at], 0)
        at += 1
        if depth == 0:
            break
    return at


def _class_end(branch: str, at: int) -> int:
    at += 2 if branch[at + 1 : at + 2] == "^" else 1
    first = at
    while at < len(branch) and (branch[at] != "]" or at == first):
        at += 2 if branch[at] == "\\" else 1
    return at + 1


def _split(pattern: str) -> list[str]:
    """The branches of a pattern between its outermost bars."""
    branches: list[str] = []
    begin = at = 0
    while at < len(pattern):
        if pattern[at] == "|":
            branches.append(pattern[begin:at])
            begin = at + 1
        at = _atom_end(pattern, at)
    return [*branches, pattern[begin:]]
