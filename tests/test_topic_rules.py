"""Topic rules: filing a pattern under its openings must never lose a match."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_analyzer.topic_rules import TopicHits, TopicRules, openings
from topics import load_topics, topic_patterns

pytestmark = pytest.mark.unit

SHIPPED = topic_patterns(load_topics())
WORDS = sorted({word for topic in load_topics() for p in topic.patterns for word in re.findall(r"[a-z']+", p.pattern)})


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("refund", {"ref"}),
        ("a", {"a"}),
        ("ab?c", {"abc", "ac"}),
        ("(on|put on) hold", {"on ", "put"}),
        ("(my )?balance", {"my ", "bal"}),
        ("(?:over|double )?charg", {"ove", "dou", "cha"}),
        ("charge|bill", {"cha", "bil"}),
        ("x+y", {"x"}),
        ("x*yz", {"x", "yz"}),
        ("x{0,2}y", {""}),
        ("[ab]c", {""}),
        ("a[bc]", {"a"}),
        (r"\w+", {""}),
        (r"h[ua]ng", {"h"}),
        (r"[\]|]x", {""}),
        ("(?=lost)l", {""}),
        (r"(a\)b|cd)", {"a", "cd"}),
    ],
)
def test_openings_are_the_first_three_characters_of_a_match(pattern: str, expected: set[str]) -> None:
    assert openings(pattern) == expected


def _find_slowly(clean: str) -> list[TopicHits]:
    found: list[TopicHits] = []
    for topic, patterns in SHIPPED.items():
        hits: dict[re.Pattern[str], str] = {}
        end = 0
        for start in (match.start() for match in re.finditer(r"(?<!\w)\S", clean)):
            for pattern in patterns:
                if start >= end and (match := pattern.match(clean, start)):
                    end = match.end()
                    hits.setdefault(pattern, match[0])
        if hits:
            found.append(TopicHits(topic, tuple(hits.values())))
    return sorted(found, key=lambda hits: -len(hits.words))


@given(st.lists(st.sampled_from([*WORDS, "$5", "12", "url", "@", "?"]), max_size=40).map(" ".join))
def test_filed_patterns_find_what_trying_all_of_them_finds(clean: str) -> None:
    found = TopicRules(SHIPPED).find(clean) if clean else []

    assert [(hits.topic, len(hits.words)) for hits in found] == [
        (hits.topic, len(hits.words)) for hits in _find_slowly(clean)
    ]


def test_a_topic_hit_by_more_patterns_comes_first() -> None:
    rules = TopicRules({"one": [re.compile("late")], "two": [re.compile("parcel"), re.compile("box")]})

    assert [hits.topic for hits in rules.find("late parcel, no box")] == ["two", "one"]


def test_of_topics_hit_equally_the_upper_one_comes_first() -> None:
    rules = TopicRules({"one": [re.compile("late")], "two": [re.compile("parcel")]})

    assert [hits.topic for hits in rules.find("parcel late")] == ["one", "two"]
