"""GET /api/v1/topics of a running application, and what becomes of topics when their file is edited between starts."""

from collections.abc import AsyncGenerator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from database import Database, WriteSession
from tests.harness import ROOT, Json, running_app
from tests.histories import Event, live
from tests.test_batch_processor import until
from tests.test_http_intake import assert_problem
from tests.test_http_trends import FEELINGS

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

TOPICS = "/api/v1/topics"
FILE = """
- {id: money_back, name: Money back, description: Refunds., patterns: [refund], formerly: [refunds]}
- {id: delivery_problems, name: Delivery, description: Late or lost., examples: [Where is my parcel], formerly: [lost]}
- {id: other, name: Other, description: None of the above., formerly: [weather]}
"""


def event(moment: str, score: float, *topics: str) -> Event:
    return Event(datetime.fromisoformat(moment), score, 0.8, topics)


# As an older file had it: the service finds these when it starts with the one above.
FOUND_BEFORE = [
    event("2025-01-20T10:00:00Z", -0.5, "refunds"),
    event("2025-01-20T11:30:00Z", -0.7, "refunds", "lost"),
    event("2025-01-21T00:00:00Z", 0.5, "lost", "delivery_problems"),
    event("2025-01-21T10:00:00Z", 0.0, "weather"),
    event("2025-01-21T11:00:00Z", 0.3, "praise", "weather"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[httpx2.AsyncClient]:
    """A service whose topics were renamed, merged and retired since it last ran; it has done its upkeep."""
    folder = tmp_path_factory.mktemp("topics")
    database = Database.connect(f"sqlite:///{folder / 'insights.db'}")
    await database.open()
    await database.write(partial(_live, events=FOUND_BEFORE))
    await database.close()
    (folder / "topics.yaml").write_text(FILE, encoding="utf-8")
    async with running_app(folder, topics_file=folder / "topics.yaml") as client:
        await until(lambda: ids_are(client, "money_back", "delivery_problems", "other", "praise"))
        yield client


def _live(session: WriteSession, *, events: list[Event]) -> None:
    live(session, events)


async def ids_are(api: httpx2.AsyncClient, *ids: str) -> bool:
    return [topic["id"] for topic in (await ask(api, TOPICS))["topics"]] == list(ids)


async def has_insights(api: httpx2.AsyncClient) -> bool:
    return bool((await ask(api, "/api/v1/insights"))["insights"])


async def ask(api: httpx2.AsyncClient, path: str, **parameters: Any) -> Json:
    answer = await api.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    told: Json = answer.json()
    return told


async def test_topics_have_the_members_of_the_contract(api: httpx2.AsyncClient) -> None:
    told = await ask(api, TOPICS)

    assert set(told) == {"period", "totals", "topics"}
    assert set(told["topics"][0]) == FEELINGS | {"id", "name", "description", "listed"}
    assert told["totals"] == {"insights": 5, "untagged": {"count": 1, "share": 0.2}, "unlisted_labels": 0}


async def test_the_past_is_told_under_the_new_ids(api: httpx2.AsyncClient) -> None:
    topics = (await ask(api, TOPICS))["topics"]

    assert [(topic["id"], topic["listed"], topic["count"], topic["negative_share"]) for topic in topics] == [
        ("money_back", True, 2, 1.0),
        ("delivery_problems", True, 2, 0.5),
        ("other", True, 1, 0.0),
        ("praise", False, 1, 0.0),
    ]


async def test_insights_have_the_new_ids_in_place_of_the_old(api: httpx2.AsyncClient) -> None:
    insights = (await ask(api, "/api/v1/insights"))["insights"]

    assert [insight["grok_analysis"]["clusters"] for insight in insights] == [
        *(["praise"], ["other"], ["delivery_problems"]),
        *(["money_back", "delivery_problems"], ["money_back"]),
    ]


async def test_topics_are_counted_within_the_time_asked_for(api: httpx2.AsyncClient) -> None:
    told = await ask(api, TOPICS, start_time="2025-01-20T11:30:00Z", end_time="2025-01-21T10:00:00Z")

    assert {topic["id"]: topic["count"] for topic in told["topics"]} == {
        "money_back": 1,
        "delivery_problems": 2,
        "other": 0,
    }
    assert told["period"] == {"start_time": "2025-01-20T11:30:00Z", "end_time": "2025-01-21T10:00:00Z"}


@pytest.mark.parametrize(("old", "new"), [("refunds", "money_back"), ("lost", "delivery_problems")])
async def test_an_old_id_asks_for_the_new_topic(api: httpx2.AsyncClient, old: str, new: str) -> None:
    by_old = await ask(api, "/api/v1/insights", topic=old)

    assert by_old == await ask(api, "/api/v1/insights", topic=new)
    assert by_old["metadata"]["total_count"] == 2


async def test_an_old_id_beside_others_is_one_of_them(api: httpx2.AsyncClient) -> None:
    told = await ask(api, "/api/v1/insights", topic=["refunds", "money_back", "praise"])

    assert told["metadata"]["total_count"] == 3


async def test_trends_of_an_old_id_are_those_of_the_new_topic(api: httpx2.AsyncClient) -> None:
    time = {"start_time": "2025-01-20", "end_time": "2025-01-22"}

    by_old = await ask(api, "/api/v1/insights/trends", topic="lost", **time)

    assert by_old == await ask(api, "/api/v1/insights/trends", topic="delivery_problems", **time)
    assert (by_old["topic"], by_old["totals"]["count"]) == ("delivery_problems", 2)


@pytest.mark.parametrize(
    "query",
    [
        pytest.param({"start_time": "2025-01-21", "end_time": "2025-01-20"}, id="an end before the start"),
        pytest.param({"start_time": "soon"}, id="a start that is no time"),
        pytest.param({"limit": 3}, id="a parameter that it does not have"),
    ],
)
async def test_what_cannot_be_asked_is_refused(api: httpx2.AsyncClient, query: dict[str, Any]) -> None:
    answer = await api.get(TOPICS, params=query)

    assert_problem(answer, 400, "invalid_schema")


async def test_a_topic_without_patterns_is_found_by_its_examples(tmp_path: Path) -> None:
    (tmp_path / "topics.yaml").write_text(FILE, encoding="utf-8")
    async with running_app(tmp_path, topics_file=tmp_path / "topics.yaml") as api:
        await api.post("/api/v1/conversations", json={"text": "Hello?! Where is my parcel, this is a disgrace"})
        await until(lambda: has_insights(api))
        [insight] = (await ask(api, "/api/v1/insights"))["insights"]

    assert insight["grok_analysis"]["clusters"] == ["delivery_problems"]


async def test_a_topic_that_the_offline_analyzer_relies_on_may_be_renamed(tmp_path: Path) -> None:
    """It knows praise by heart: by whatever id it goes now."""
    file = tmp_path / "topics.yaml"
    text = (ROOT / "topics.yaml").read_text(encoding="utf-8")
    file.write_text(text.replace("- id: praise\n", "- id: kudos\n  formerly: [praise]\n"), encoding="utf-8")

    async with running_app(tmp_path, topics_file=file) as client:
        posted = await client.post("/api/v1/conversations", json={"text": "You are wonderful, you made my whole week!"})
        path = f"/api/v1/conversations/{posted.json()['conversation_id']}"
        await until(lambda: is_completed(client, path))
        told = (await client.get(path)).json()["insight"]

    assert told["clusters"] == ["kudos"]


async def is_completed(client: httpx2.AsyncClient, path: str) -> bool:
    status: str = (await client.get(path)).json()["status"]
    return status == "completed"
