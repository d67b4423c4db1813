"""The topics file: the shipped one is whole, and a mistyped one is refused with a sentence that helps."""

import json
from pathlib import Path

import pytest

from local_analyzer.topic_rules import TopicRules
from topics import (
    FALLBACK,
    Topic,
    TopicsInvalid,
    former_ids,
    load_topics,
    topic_aliases,
    topic_descriptions,
    topic_patterns,
)

pytestmark = pytest.mark.unit

VOCABULARY = {
    "delivery_problems",
    "product_issues",
    "service_outage",
    "billing_payments",
    "refunds_returns",
    "account_access",
    "customer_service",
    "travel_disruption",
    "pricing_promotions",
    "feature_request",
    "praise",
    "general_inquiry",
    "other",
}
OTHER = "- {id: other, name: Other, description: Nothing else., patterns: []}\n"


def _topic(**changes: str) -> str:
    fields = {"id": "lost", "name": "Lost", "description": "Lost things.", "patterns": "['lost']"} | changes
    return "- {" + ", ".join(f"{key}: {value}" for key, value in fields.items()) + "}\n" + OTHER


def test_the_shipped_file_has_the_closed_vocabulary() -> None:
    assert {topic.id for topic in load_topics()} == VOCABULARY


def test_every_shipped_topic_says_what_it_is_for() -> None:
    assert all(topic.name and topic.description.endswith(".") for topic in load_topics())


def test_patterns_are_given_by_id_in_the_order_of_the_file() -> None:
    topics = load_topics()

    assert list(topic_patterns(topics)) == [topic.id for topic in topics]


def test_a_file_of_ones_own_is_read(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(_topic(), encoding="utf-8")

    lost, other = load_topics(path)

    assert isinstance(lost, Topic)
    assert (lost.id, lost.patterns[0].pattern, other.patterns) == ("lost", "lost", ())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param("", "must be a list of topics", id="an empty file"),
        pytest.param("topics: 3", "must be a list of topics", id="a mapping"),
        pytest.param("- [", "is not UTF-8 YAML", id="broken YAML"),
        pytest.param("- !!python/object/apply:os.getcwd []", "is not UTF-8 YAML", id="an object to build"),
        pytest.param("- 3", "topic 1 must have the keys", id="a number for a topic"),
        pytest.param(_topic(id="Lost Things"), "'Lost Things' must be lower-case", id="an id with blanks"),
        pytest.param(_topic(id="7"), "'id' must be a text", id="a number for an id"),
        pytest.param(_topic(name="''"), "topic 1 .lost.: 'name' must be a text", id="an empty name"),
        pytest.param(_topic(pattern="[x]"), "unknown key 'pattern'; the keys are id", id="a misspelt key"),
        pytest.param(_topic(patterns="lost"), "'patterns' must be a list", id="a text for a list"),
        pytest.param(_topic(patterns="[]"), "'patterns' is empty .*'examples'", id="no pattern and no example"),
        pytest.param(_topic(examples="lost it"), "'examples' must be a list", id="a text for examples"),
        pytest.param(_topic(examples="[3]"), "example '3' must be a sentence", id="a number for an example"),
        pytest.param(_topic(examples="['?!']"), "example .* must be a sentence", id="an example without a word"),
        pytest.param(_topic(examples=f"['{'x' * 201}']"), "is longer than 200 characters; cut", id="a long example"),
        pytest.param(_topic(examples="[a, b, c, d, e, f]"), "6 'examples' are too many", id="six examples"),
        pytest.param(_topic(formerly="gone"), "'formerly' must be a list", id="a text for former ids"),
        pytest.param(_topic(formerly="[Lost Things]"), "former id 'Lost Things' is none", id="a former id with blanks"),
        pytest.param(_topic(formerly="[7]"), "former id '7' is none", id="a number for a former id"),
        pytest.param(
            _topic(formerly="[other]"), "topic 'lost': former id 'other' is a topic", id="a former id that lives"
        ),
        pytest.param(_topic(formerly="[lost]"), "former id 'lost' is a topic of the file", id="its own id as former"),
        pytest.param(_topic(formerly="[old, old]"), "former id 'old' is claimed by 'lost' too", id="a former id twice"),
        pytest.param(
            _topic(formerly="[old]") + "- {id: new, name: N, description: D., patterns: [n], formerly: [old]}",
            "topic 'new': former id 'old' is claimed by 'lost' too; leave",
            id="a former id of two topics",
        ),
        pytest.param(_topic(patterns="[3]"), "pattern '3' must be a text", id="a number for a pattern"),
        pytest.param(_topic(patterns="['lost(']"), "is no regular expression .*; mend it", id="a broken pattern"),
        pytest.param(_topic(patterns="['(lost)?']"), "matches an empty text", id="a pattern that matches everything"),
        pytest.param(_topic() + OTHER, "topic 'other' is there twice", id="a topic twice"),
        pytest.param(_topic(id="stray").removesuffix(OTHER), "topic 'other' is missing; add it", id="no other"),
        pytest.param(_topic(id="other").removesuffix(OTHER), "set its 'patterns' to", id="patterns for other"),
    ],
)
def test_a_mistyped_file_is_refused_with_a_remedy(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(content, encoding="utf-8")

    with pytest.raises(TopicsInvalid, match=rf"^own\.yaml.*{sentence}"):
        load_topics(path)


def _load(tmp_path: Path, content: str) -> tuple[Topic, ...]:
    path = tmp_path / "own.yaml"
    path.write_text(content, encoding="utf-8")
    return load_topics(path)


def test_a_topic_without_patterns_is_found_by_its_examples(tmp_path: Path) -> None:
    content = _topic(examples="['It\u2019s LOST, sooo lost (again)', 'Lost?']").replace("patterns: ['lost'], ", "")
    [rules, none] = topic_patterns(_load(tmp_path, content)).values()

    found = TopicRules({"lost": rules}).find
    assert [hits.words for hits in found("well, it's lost... soo lost again!")] == [("it's lost... soo lost again",)]
    assert [hits.words for hits in found("never lost a thing")] == [("lost",)]
    assert not found("it's a lostling")
    assert none == ()


@pytest.mark.parametrize("example", ["a.c", "(x|)+", "[xyz", "$5 \\ off*", "don't", "नमस्ते जी", "où est-il", "a_b"])
def test_an_example_means_its_words_and_nothing_more(tmp_path: Path, example: str) -> None:
    content = _topic(patterns="[]", examples=f"[{json.dumps(example)}]")
    [[rule], _] = topic_patterns(_load(tmp_path, content)).values()

    assert rule.match(example.lstrip("([$"))
    assert not rule.match("abc")
    assert not rule.match("")


def test_examples_beside_patterns_are_only_told(tmp_path: Path) -> None:
    topics = _load(tmp_path, _topic(examples="['Where  is it?', Gone]"))

    assert [pattern.pattern for pattern in topics[0].patterns] == ["lost"]
    assert topic_descriptions(topics) == {"lost": 'Lost things. "Where is it?" "Gone"', "other": "Nothing else."}


def test_a_topic_is_known_by_its_name_and_by_every_former_id(tmp_path: Path) -> None:
    topics = _load(tmp_path, _topic(formerly="[gone, mislaid]"))

    assert former_ids(topics) == {"gone": "lost", "mislaid": "lost"}
    assert topic_aliases(topics) == {"Lost": "lost", "Other": "other", "gone": "lost", "mislaid": "lost"}


def test_every_shipped_example_is_short_and_constant_for_grok() -> None:
    topics = load_topics()

    assert all(topic.examples for topic in topics if topic.id != FALLBACK)
    assert sum(len(example) for topic in topics for example in topic.examples) < 1_000  # tokens in every call


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(b"\xff\xfe\x00binary")

    with pytest.raises(TopicsInvalid, match=r"own\.yaml is not UTF-8 YAML"):
        load_topics(path)


def test_a_missing_file_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(TopicsInvalid, match=r"gone\.yaml cannot be read .*; put it at "):
        load_topics(tmp_path / "gone.yaml")
