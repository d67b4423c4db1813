"""GET /api/v1/insights/trends of a running application."""

from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from database import Database, WriteSession
from tests.harness import Json, running_app, worked_off
from tests.histories import Event, live
from tests.test_http_intake import assert_problem

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

TRENDS = "/api/v1/insights/trends"
FEELINGS = {"count", "positive", "neutral", "negative", "negative_share", "mean_sentiment", "mean_confidence"}
NOTHING: Json = dict.fromkeys(FEELINGS, None) | dict.fromkeys(["count", "positive", "neutral", "negative"], 0)


def event(moment: str, score: float, confidence: float, *topics: str) -> Event:
    return Event(datetime.fromisoformat(moment), score, confidence, topics)


# Two days, and the two before them: refunds became more and worse, praise stayed as it was.
MADE_BY_HAND = [
    event("2025-01-18T09:00:00Z", -0.5, 0.8, "refunds"),
    event("2025-01-18T10:00:00Z", 0.6, 0.9, "praise"),
    event("2025-01-19T10:00:00Z", 0.6, 0.9, "praise"),
    event("2025-01-19T23:59:59.999999Z", 0.0, 1.0, "other"),
    event("2025-01-20T00:00:00Z", -0.7, 0.8, "refunds"),
    event("2025-01-20T04:30:00Z", -0.9, 0.6, "refunds", "delivery_problems"),
    event("2025-01-20T10:00:00Z", 0.6, 0.9, "praise"),
    event("2025-01-21T10:00:00Z", 0.6, 0.9, "praise"),
    event("2025-01-21T23:59:59.999999Z", -0.5, 0.85, "refunds"),
    event("2025-01-22T00:00:00Z", 1.0, 1.0, "praise"),
]
TWO_DAYS = {"start_time": "2025-01-20", "end_time": "2025-01-22"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[httpx2.AsyncClient]:
    """A service that holds what is made by hand."""
    folder = tmp_path_factory.mktemp("trends")
    database = Database.connect(f"sqlite:///{folder / 'insights.db'}")
    await database.open()
    await database.write(partial(_live, events=MADE_BY_HAND))
    await database.close()
    async with running_app(folder) as client:
        yield client


def _live(session: WriteSession, *, events: list[Event]) -> None:
    live(session, events)


async def ask(api: httpx2.AsyncClient, **parameters: Any) -> Json:
    answer = await api.get(TRENDS, params=parameters)
    assert answer.status_code == 200, answer.text
    told: Json = answer.json()
    return told


def counts(trends: Json) -> list[int]:
    return [bucket["count"] for bucket in trends["buckets"]]


async def test_trends_have_the_members_of_the_contract(api: httpx2.AsyncClient) -> None:
    trends = await ask(api, **TWO_DAYS)

    assert set(trends) == {
        "period",
        "previous_period",
        "bucket",
        "tz",
        "topic",
        "totals",
        "driver",
        "topics",
        "buckets",
    }
    assert set(trends["totals"]) == FEELINGS | {"change"}
    assert set(trends["buckets"][0]) == FEELINGS | {"start_time", "end_time"}
    assert set(trends["topics"][0]) == FEELINGS | {"topic", "change", "negative_share_without", "contribution"}


async def test_a_period_is_told_with_the_one_before(api: httpx2.AsyncClient) -> None:
    trends = await ask(api, **TWO_DAYS)

    assert trends["period"] == {"start_time": "2025-01-20T00:00:00Z", "end_time": "2025-01-22T00:00:00Z"}
    assert trends["previous_period"] == {"start_time": "2025-01-18T00:00:00Z", "end_time": "2025-01-20T00:00:00Z"}
    assert (trends["bucket"], trends["tz"], trends["topic"]) == ("day", "UTC", None)


async def test_the_totals_are_those_added_up_by_hand(api: httpx2.AsyncClient) -> None:
    assert (await ask(api, **TWO_DAYS))["totals"] == {
        "count": 5,
        "positive": 2,
        "neutral": 0,
        "negative": 3,
        "negative_share": 0.6,
        "mean_sentiment": -0.18,  # -0.7 - 0.9 + 0.6 + 0.6 - 0.5 = -0.9
        "mean_confidence": 0.81,  # 0.8 + 0.6 + 0.9 + 0.9 + 0.85 = 4.05
        "change": {
            "count": 1,  # before: 4, one of them negative, 0.7 in all
            "negative_share": 0.35,
            "mean_sentiment": -0.355,
        },
    }


async def test_the_topics_are_those_added_up_by_hand(api: httpx2.AsyncClient) -> None:
    topics = {trend["topic"]: trend for trend in (await ask(api, **TWO_DAYS))["topics"]}

    assert list(topics) == ["refunds", "delivery_problems", "praise", "other"]
    assert topics["refunds"] == {
        "topic": "refunds",
        "count": 3,
        "positive": 0,
        "neutral": 0,
        "negative": 3,
        "negative_share": 1.0,
        "mean_sentiment": -0.7,  # -0.7 - 0.9 - 0.5
        "mean_confidence": 0.75,  # 0.8 + 0.6 + 0.85
        "change": {"count": 2, "negative_share": 0.0, "mean_sentiment": -0.2},
        "negative_share_without": 0.0,
        "contribution": 0.35,  # without it: none of 2, before none of 3
    }


@pytest.mark.parametrize(
    ("topic", "without", "contribution"),
    [
        pytest.param("refunds", 0.0, 0.35, id="it made things worse"),
        pytest.param("delivery_problems", 0.5, 0.1, id="a little"),  # without it 2 of 4, before 1 of 4
        pytest.param("praise", 1.0, -0.15, id="it held them down"),  # without it 3 of 3, before 1 of 2
        pytest.param("other", 0.6, 0.0833, id="it is gone, and was no complaint"),  # without it 3 of 5, before 1 of 3
    ],
)
async def test_a_contribution_says_which_way_a_topic_pulled(
    api: httpx2.AsyncClient, topic: str, without: float, contribution: float
) -> None:
    topics = {trend["topic"]: trend for trend in (await ask(api, **TWO_DAYS))["topics"]}

    assert (topics[topic]["negative_share_without"], topics[topic]["contribution"]) == (without, contribution)


async def test_the_driver_is_the_topic_that_moved_the_share_most(api: httpx2.AsyncClient) -> None:
    assert (await ask(api, **TWO_DAYS))["driver"] == "refunds"


async def test_the_driver_of_a_change_for_the_better_is_what_made_it_better(api: httpx2.AsyncClient) -> None:
    trends = await ask(api, start_time="2025-01-19", end_time="2025-01-20")  # the day before had the complaint

    contributions = {trend["topic"]: trend["contribution"] for trend in trends["topics"]}
    assert trends["totals"]["change"]["negative_share"] == -0.5  # from 1 of 2 to none of 2
    assert contributions == {"refunds": -0.5, "praise": 0.5, "other": 0.0}
    assert trends["driver"] == "refunds"


async def test_buckets_are_days_with_their_own_numbers(api: httpx2.AsyncClient) -> None:
    first, second = (await ask(api, **TWO_DAYS))["buckets"]

    assert first == {
        "start_time": "2025-01-20T00:00:00Z",
        "end_time": "2025-01-21T00:00:00Z",
        "count": 3,
        "positive": 1,
        "neutral": 0,
        "negative": 2,
        "negative_share": 0.6667,
        "mean_sentiment": -0.3333,
        "mean_confidence": 0.7667,
    }
    assert (second["count"], second["negative_share"], second["mean_sentiment"]) == (2, 0.5, 0.05)


async def test_buckets_may_be_hours(api: httpx2.AsyncClient) -> None:
    trends = await ask(api, **TWO_DAYS, bucket="hour")

    assert {number: count for number, count in enumerate(counts(trends)) if count} == {0: 1, 4: 1, 10: 1, 34: 1, 47: 1}
    assert len(counts(trends)) == 48
    assert {name: trends["buckets"][1][name] for name in FEELINGS} == NOTHING


async def test_days_are_those_of_the_zone(api: httpx2.AsyncClient) -> None:
    """At half past four it is still the day before in New York: five hours behind."""
    trends = await ask(
        api, start_time="2025-01-19T00:00-05:00", end_time="2025-01-21T00:00-05:00", tz="America/New_York"
    )

    assert [bucket["start_time"] for bucket in trends["buckets"]] == ["2025-01-19T05:00:00Z", "2025-01-20T05:00:00Z"]
    assert counts(trends) == [4, 1]
    assert trends["tz"] == "America/New_York"


async def test_buckets_and_totals_may_be_those_of_one_topic(api: httpx2.AsyncClient) -> None:
    of_all, of_one = await ask(api, **TWO_DAYS), await ask(api, **TWO_DAYS, topic="refunds")

    [refunds] = [trend for trend in of_all["topics"] if trend["topic"] == "refunds"]
    assert counts(of_one) == [2, 1]
    assert of_one["totals"] == {name: refunds[name] for name in of_one["totals"]}
    assert [of_one[name] for name in ("topics", "driver")] == [of_all[name] for name in ("topics", "driver")]


@pytest.mark.parametrize("topic", ["nonsense", "*", "delivery_problems+refunds", "' OR '1'='1"])
async def test_a_topic_that_is_not_there_has_only_zeros(api: httpx2.AsyncClient, topic: str) -> None:
    trends = await ask(api, **TWO_DAYS, topic=topic)

    assert counts(trends) == [0, 0]
    assert {name: trends["totals"][name] for name in FEELINGS} == NOTHING


async def test_without_parameters_trends_are_of_seven_days_until_now(api: httpx2.AsyncClient) -> None:
    trends = await ask(api)

    start, end = (datetime.fromisoformat(trends["period"][name]) for name in ("start_time", "end_time"))
    assert timedelta(days=6) <= end - start <= timedelta(days=7)
    assert (start.hour, start.minute, start.second) == (0, 0, 0)
    assert counts(trends) == [0] * 7


@pytest.mark.parametrize(("days", "bucket", "least"), [(1, "day", 1), (366, "day", 366), (30, "hour", 29 * 24)])
async def test_there_is_a_bucket_for_each_day_or_hour(
    api: httpx2.AsyncClient, days: int, bucket: str, least: int
) -> None:
    trends = await ask(api, days=days, bucket=bucket)

    edges = [(bucket["start_time"], bucket["end_time"]) for bucket in trends["buckets"]]
    assert len(edges) >= least
    assert [edge[1] for edge in edges[:-1]] == [edge[0] for edge in edges[1:]]


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        pytest.param({"days": 0}, "days", id="no days"),
        pytest.param({"days": 367}, "days", id="too many days"),
        pytest.param({"days": "week"}, "days", id="days that are a word"),
        pytest.param({"bucket": "week"}, "bucket", id="weeks"),
        pytest.param(
            {"start_time": "2025-01-02", "end_time": "2025-01-01"}, "start_time", id="an end before the start"
        ),
        pytest.param({"start_time": "2025-01-01", "end_time": "2026-01-03"}, "366 days", id="more than a year"),
        pytest.param({"start_time": "2001-01-01"}, "366 days", id="a start long ago"),
        pytest.param({"start_time": "yesterday"}, "start_time", id="a time in words"),
        pytest.param({"start_time": "0001-01-01", "end_time": "0001-01-02"}, "1 to 9999", id="the first day of all"),
        pytest.param({"end_time": "9999-12-31T23:59:59", "tz": "Asia/Tokyo"}, "1 to 9999", id="the last, in the east"),
        pytest.param({"colour": "red"}, "Unknown parameter", id="a parameter that is not there"),
        pytest.param({"topic": ""}, "topic", id="an empty topic"),
        pytest.param({"topic": "x" * 256}, "topic", id="a very long topic"),
        *(
            pytest.param({"tz": zone}, "Invalid parameter tz: is no time zone", id=f"the zone {name}")
            for name, zone in {
                "of a path": "../etc/passwd",
                "of a whole path": "/etc/passwd",
                "on Mars": "Mars/Base",
                "of a folder": "Europe",
                "without a name": "",
                "of a point": ".",
                "with NUL": "UTC\x00",
                "in other letters": "Bär/lin",
                "of an offset": "+02:00",
                "of a file that is none": "zone.tab",
                "of a very long name": "x" * 5_000,
                "of many folders": "x/" * 500,
            }.items()
        ),
    ],
)
async def test_a_parameter_that_cannot_be_used_is_named(
    api: httpx2.AsyncClient, parameters: dict[str, Any], name: str
) -> None:
    answer = await api.get(TRENDS, params=parameters)

    assert_problem(answer, 400, "invalid_schema")
    assert name in answer.json()["details"]
    assert "passwd" not in answer.text


async def test_start_and_end_at_the_same_moment_have_no_bucket(api: httpx2.AsyncClient) -> None:
    trends = await ask(api, start_time="2025-01-20", end_time="2025-01-20")

    assert trends["buckets"] == []
    assert {name: trends["totals"][name] for name in FEELINGS} == NOTHING


async def test_an_empty_database_has_trends_of_nothing(tmp_path: Path) -> None:
    async with running_app(tmp_path) as client:
        trends = await ask(client, **TWO_DAYS)

    assert trends["totals"] == NOTHING | {"change": {"count": 0, "negative_share": None, "mean_sentiment": None}}
    assert (trends["topics"], trends["driver"], counts(trends)) == ([], None, [0, 0])


async def test_what_is_analyzed_is_in_the_trends_at_once(tmp_path: Path) -> None:
    async with running_app(tmp_path) as client:
        await client.post("/api/v1/conversations", json={"text": "My parcel is three weeks late and nobody answers"})
        await worked_off(client)
        trends = await ask(client, days=1)

    assert trends["totals"]["count"] == sum(counts(trends)) == 1
    assert [trend["count"] for trend in trends["topics"]] == [1] * len(trends["topics"]) != []


async def test_the_document_of_the_api_describes_trends(api: httpx2.AsyncClient) -> None:
    operation = (await api.get("/openapi.json")).json()["paths"][TRENDS]["get"]

    names = {parameter["name"] for parameter in operation["parameters"]}
    assert names == {"days", "start_time", "end_time", "bucket", "topic", "tz"}
    assert operation["responses"]["200"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/Trends"
    }
