"""Reading over HTTP: filters, pages and counts, against what an unfiltered walk returns."""

from collections.abc import AsyncGenerator, Callable
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from tests.harness import running_app, worked_off
from tests.test_http_intake import BULK, ONE, assert_problem

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

INSIGHTS = "/api/v1/insights"
Insight = dict[str, Any]

TEXTS = [
    "My parcel is three weeks late and nobody answers",
    "Love it, thank you so much, great service!",
    "Where can I see the opening hours?",
    "I was charged twice, refund me now",
    "The app crashes every time I log in",
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[httpx2.AsyncClient]:
    """A service with 60 analyzed conversations (five share each moment), and three that were skipped."""
    items: list[dict[str, Any]] = [
        {
            "text": f"{TEXTS[number % 5]} ({number})",
            "author": f"author {number % 3}",
            "timestamp": f"2025-01-{1 + number // 5:02}T10:00:00Z",
        }
        for number in range(60)
    ]
    items += [{"text": "https://t.co/x"}, {"text": "@you"}, {"text": "123"}]
    async with running_app(tmp_path_factory.mktemp("queries")) as client:
        await client.post(BULK, json={"conversations": items})
        await worked_off(client)
        yield client


async def walk(api: httpx2.AsyncClient, **parameters: Any) -> list[Insight]:
    """Every matching insight, page by page."""
    found: list[Insight] = []
    while True:
        answer = await api.get(INSIGHTS, params=parameters)
        assert answer.status_code == 200, answer.text
        found += answer.json()["insights"]
        cursor = answer.json()["metadata"]["next_cursor"]
        if cursor is None:
            return found
        parameters["cursor"] = cursor


def score(insight: Insight) -> float:
    found: float = insight["grok_analysis"]["sentiment_score"]
    return found


def confidence(insight: Insight) -> float:
    found: float = insight["grok_analysis"]["confidence"]
    return found


def clusters(insight: Insight) -> set[str]:
    return set(insight["grok_analysis"]["clusters"])


def matching(name: str, wanted: Callable[[Insight], bool], **parameters: Any) -> Any:
    return pytest.param(parameters, wanted, id=name)


async def test_insights_are_there_newest_first(api: httpx2.AsyncClient) -> None:
    found = await walk(api, limit=1000)

    times = [insight["timestamp"] for insight in found]
    assert len(found) == 60
    assert times == sorted(times, reverse=True)


async def test_an_insight_has_the_contracts_members(api: httpx2.AsyncClient) -> None:
    [insight] = (await api.get(INSIGHTS, params={"limit": 1})).json()["insights"]

    assert set(insight) == {"conversation_id", "timestamp", "text", "author", "grok_analysis"}
    assert {"sentiment_score", "clusters", "confidence", "reasoning", "summary"} <= set(insight["grok_analysis"])
    assert insight["grok_analysis"]["model"] == "local-linear-1"


@pytest.mark.parametrize("limit", [1, 2, 7, 59, 60, 61])
async def test_a_walk_by_cursor_meets_every_insight_once_in_order(api: httpx2.AsyncClient, limit: int) -> None:
    whole = [insight["conversation_id"] for insight in await walk(api, limit=1000)]

    walked = [insight["conversation_id"] for insight in await walk(api, limit=limit)]

    assert walked == whole


FILTERS = [
    matching("all", lambda _one: True),
    matching("from a moment", lambda one: one["timestamp"] >= "2025-01-04T10", start_time="2025-01-04T10:00:00Z"),
    matching("until a moment", lambda one: one["timestamp"] < "2025-01-04T10", end_time="2025-01-04T10:00:00Z"),
    matching(
        "between, in other forms",
        lambda one: "2025-01-02" <= one["timestamp"] < "2025-01-04T10",
        start_time="2025-01-02T10:00:00",
        end_time="2025-01-04T12:00:00+02:00",
    ),
    matching("an empty span", lambda _one: False, start_time="2025-01-04", end_time="2025-01-04"),
    matching("negative", lambda one: score(one) < -0.1, sentiment="negative"),
    matching("positive", lambda one: score(one) > 0.1, sentiment="positive"),
    matching("neutral", lambda one: abs(score(one)) <= 0.1, sentiment="neutral"),
    matching("an author", lambda one: one["author"] == "author 1", author="author 1"),
    matching("half an author", lambda _one: False, author="author"),
    matching("a topic", lambda one: "refunds_returns" in clusters(one), topic="refunds_returns"),
    matching(
        "either of two topics",
        lambda one: bool({"refunds_returns", "delivery_problems"} & clusters(one)),
        topic=["refunds_returns", "delivery_problems"],
    ),
    matching("a topic that is not there", lambda _one: False, topic="nonsense"),
    matching("rather sure", lambda one: confidence(one) >= 0.8, min_confidence=0.8),
    matching("however unsure", lambda _one: True, min_confidence=0),
    matching(
        "several at once",
        lambda one: (
            score(one) < -0.1
            and one["author"] == "author 0"
            and confidence(one) >= 0.5
            and str(one["timestamp"]) >= "2025-01-03"
        ),
        sentiment="negative",
        author="author 0",
        min_confidence=0.5,
        start_time="2025-01-03",
    ),
]


@pytest.mark.parametrize(("parameters", "wanted"), FILTERS)
async def test_a_filter_returns_what_matches_and_counts_it_exactly(
    api: httpx2.AsyncClient, parameters: dict[str, Any], wanted: Callable[[Insight], bool]
) -> None:
    expected = [one["conversation_id"] for one in await walk(api, limit=1000) if wanted(one)]

    page = (await api.get(INSIGHTS, params={**parameters, "limit": 3})).json()
    walked = [one["conversation_id"] for one in await walk(api, **parameters, limit=3)]

    assert walked == expected
    assert page["metadata"]["total_count"] == len(expected)


async def test_the_filters_tested_match_some_and_not_all(api: httpx2.AsyncClient) -> None:
    counts = [
        (await api.get(INSIGHTS, params=parameters)).json()["metadata"]["total_count"]
        for parameters in (
            {"sentiment": "negative"}, {"sentiment": "positive"}, {"topic": "refunds_returns"}, {"min_confidence": 0.8},
        )
    ]  # fmt: skip

    assert all(0 < count < 60 for count in counts)


async def test_the_link_header_leads_to_the_next_page_with_the_same_filters(api: httpx2.AsyncClient) -> None:
    parameters: dict[str, Any] = {"author": "author 1", "limit": 5, "start_time": "2025-01-01T00:00:00+00:00"}
    first = await api.get(INSIGHTS, params=parameters)
    target, relation = first.headers["link"].split("; ")

    second = await api.get(target.strip("<>"))

    assert relation == 'rel="next"'
    assert second.json()["metadata"]["total_count"] == first.json()["metadata"]["total_count"]
    assert {one["author"] for one in second.json()["insights"]} == {"author 1"}
    assert not {one["conversation_id"] for one in first.json()["insights"]} & {
        one["conversation_id"] for one in second.json()["insights"]
    }


async def test_the_last_page_has_no_link(api: httpx2.AsyncClient) -> None:
    answer = await api.get(INSIGHTS, params={"limit": 60})

    assert "link" not in answer.headers
    assert answer.json()["metadata"]["next_cursor"] is None


async def test_the_metadata_repeats_the_span_in_utc(api: httpx2.AsyncClient) -> None:
    parameters = {"start_time": "2025-01-20T01:00:00+01:00", "end_time": "2025-01-21"}

    metadata = (await api.get(INSIGHTS, params=parameters)).json()["metadata"]

    assert (metadata["start_time"], metadata["end_time"]) == ("2025-01-20T00:00:00Z", "2025-01-21T00:00:00Z")


async def test_an_offset_whose_plus_was_not_encoded_is_understood(api: httpx2.AsyncClient) -> None:
    answer = await api.get(f"{INSIGHTS}?start_time=2025-01-20T09:00:00+09:00")

    assert answer.json()["metadata"]["start_time"] == "2025-01-20T00:00:00Z"


@pytest.mark.parametrize(
    ("path", "parameters", "name"),
    [
        pytest.param(INSIGHTS, {"limit": 0}, "limit", id="no rows"),
        pytest.param(INSIGHTS, {"limit": 1001}, "limit", id="too many rows"),
        pytest.param(INSIGHTS, {"limit": "many"}, "limit", id="a limit that is a word"),
        pytest.param(INSIGHTS, {"min_confidence": 1.01}, "min_confidence", id="a confidence above 1"),
        pytest.param(INSIGHTS, {"min_confidence": "nan"}, "min_confidence", id="a confidence that is no number"),
        pytest.param(INSIGHTS, {"sentiment": "angry"}, "sentiment", id="a sentiment that is not there"),
        pytest.param(INSIGHTS, {"start_time": "yesterday"}, "start_time", id="a time in words"),
        pytest.param(INSIGHTS, {"start_time": "1737367200"}, "start_time", id="seconds since 1970"),
        pytest.param(
            INSIGHTS, {"start_time": "2025-01-02", "end_time": "2025-01-01"}, "start_time", id="an end before the start"
        ),
        pytest.param(INSIGHTS, {"cursor": "garbage"}, "cursor", id="a cursor of nobody"),
        pytest.param(INSIGHTS, {"colour": "red"}, "Unknown parameter", id="a parameter that is not there"),
        pytest.param(INSIGHTS, {"topic": ["a"] * 21}, "topic", id="too many topics"),
        pytest.param(ONE, {"status": "done"}, "status", id="a status that is not there"),
        pytest.param(ONE, {"cursor": "conv_1"}, "cursor", id="a cursor of another kind"),
        pytest.param(ONE, {"limit": -1}, "limit", id="fewer than no rows"),
    ],
)
async def test_a_parameter_that_cannot_be_used_is_named(
    api: httpx2.AsyncClient, path: str, parameters: dict[str, Any], name: str
) -> None:
    answer = await api.get(path, params=parameters)

    assert_problem(answer, 400, "invalid_schema")
    assert name in answer.json()["details"]


# Conversations


async def test_a_list_is_newest_first_and_walked_by_cursor(api: httpx2.AsyncClient) -> None:
    whole = (await api.get(ONE, params={"limit": 1000})).json()["conversations"]
    walked: list[Any] = []
    cursor: str | None = None
    while True:
        page = (await api.get(ONE, params={"limit": 10} | ({"cursor": cursor} if cursor else {}))).json()
        walked += page["conversations"]
        cursor = page["metadata"]["next_cursor"]
        if cursor is None:
            break

    ids = [one["conversation_id"] for one in walked]
    assert walked == whole
    assert ids == sorted(ids, reverse=True)
    assert len(set(ids)) == 63


@pytest.mark.parametrize(("status", "count"), [("completed", 60), ("skipped", 3), ("failed", 0), ("pending", 0)])
async def test_a_list_by_status_holds_only_that_status(api: httpx2.AsyncClient, status: str, count: int) -> None:
    found = (await api.get(ONE, params={"status": status, "limit": 1000})).json()["conversations"]

    assert [one["status"] for one in found] == [status] * count


async def test_a_completed_conversation_carries_its_insight(api: httpx2.AsyncClient) -> None:
    [insight] = (await api.get(INSIGHTS, params={"limit": 1})).json()["insights"]

    one = (await api.get(f"{ONE}/{insight['conversation_id']}")).json()

    assert (one["status"], one["insight"]) == ("completed", insight["grok_analysis"])


async def test_a_skipped_conversation_says_why(api: httpx2.AsyncClient) -> None:
    found = (await api.get(ONE, params={"status": "skipped"})).json()["conversations"]

    assert {one["skip_reason"] for one in found} == {"link_only", "mention_only", "digits_only"}


@pytest.mark.parametrize("unknown", [f"conv_{'0' * 32}", "conv_1", "x", "%25", "conv_%27%20OR%201%3D1", "\U0001f621"])
async def test_a_conversation_that_is_not_there_is_a_404(api: httpx2.AsyncClient, unknown: str) -> None:
    answer = await api.get(f"{ONE}/{unknown}")

    assert_problem(answer, 404, "not_found")


@pytest.mark.parametrize(
    "author", ["%", "author _", "author 1' OR '1'='1", "author*", '"author 1"', "author 1 --", "AUTHOR 1"]
)
async def test_operators_in_an_author_are_only_characters(api: httpx2.AsyncClient, author: str) -> None:
    answer = await api.get(INSIGHTS, params={"author": author})

    assert answer.json()["metadata"]["total_count"] == 0
