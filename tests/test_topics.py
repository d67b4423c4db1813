"""The topics file: the shipped one is whole, and a mistyped one is refused with a sentence that helps."""

from pathlib import Path

import pytest

from topics import Topic, TopicsInvalid, load_topics, topic_patterns

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
        pytest.param(_topic(patterns="[]"), "'patterns' is empty", id="no pattern"),
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


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(b"\xff\xfe\x00binary")

    with pytest.raises(TopicsInvalid, match=r"own\.yaml is not UTF-8 YAML"):
        load_topics(path)


def test_a_missing_file_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(TopicsInvalid, match=r"gone\.yaml cannot be read .*; put it at "):
        load_topics(tmp_path / "gone.yaml")
