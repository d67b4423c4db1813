"""What an analyst needs to trust a number, over HTTP: facets, files, corrections, quality, reading again, erasing."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from database import Database
from routes.exporting import COLUMNS, Files, neutral
from routes.streams import PatientStream
from tests.harness import ScriptedXai, running_app, worked_off
from tests.test_http_intake import BULK, ONE, assert_problem

pytestmark = [pytest.mark.integration]

INSIGHTS = "/api/v1/insights"
Json = dict[str, Any]
TEXTS = [
    "My parcel is three weeks late and nobody answers",
    "Love it, thank you so much, great service!",
    '=HYPERLINK("http://evil") where is my parcel, it is late',
    "I was charged twice, refund me now",
    "@support +1 the app crashes every time I log in",
    'Quotes " and, commas\nand lines in one parcel',
]


async def fill(client: httpx2.AsyncClient, count: int = 24, texts: list[str] = TEXTS) -> None:
    items = [
        {
            "text": f"{texts[number % len(texts)]} {number}",
            "author": f"author {number % 3}",
            "timestamp": f"2025-01-{1 + number // 6:02}T{number % 6:02}:00:00Z",
        }
        for number in range(count)
    ]
    answer = await client.post(BULK, json={"conversations": items})
    assert answer.status_code == 202
    await worked_off(client)


async def get(client: httpx2.AsyncClient, path: str, **parameters: Any) -> Json:
    answer = await client.get(path, params=parameters or None)  # {} would take the path's own away
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[httpx2.AsyncClient]:
    """A service with 24 read conversations; tests that change something bring a service of their own."""
    async with running_app(tmp_path_factory.mktemp("trust")) as client:
        await fill(client)
        yield client


@pytest_asyncio.fixture
async def own(tmp_path: Path) -> AsyncGenerator[httpx2.AsyncClient]:
    async with running_app(tmp_path) as client:
        await fill(client)
        yield client


# Facets


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({}, id="of all"),
        pytest.param({"sentiment": "negative"}, id="of a side"),
        pytest.param({"topic": "delivery_problems", "author": "author 0"}, id="of an author and a topic"),
        pytest.param({"q": "parcel", "min_confidence": "0.2"}, id="of words"),
        pytest.param({"start_time": "2025-01-02T03:00:00Z", "end_time": "2025-01-04T00:00:00Z"}, id="of a time"),
    ],
)
async def test_every_facet_leads_to_as_many_as_it_counts(api: httpx2.AsyncClient, parameters: Json) -> None:
    page = await get(api, INSIGHTS, facet="topic,sentiment,author", limit=1, **parameters)

    assert set(page["facets"]) == {"topic", "sentiment", "author"}
    for values in page["facets"].values():
        assert values
        assert values == sorted(values, key=lambda value: (-value["count"], value["value"]))
        for value in values:
            assert (await get(api, value["url"]))["metadata"]["total_count"] == value["count"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_facet_shows_what_else_there_is(api: httpx2.AsyncClient) -> None:
    everything = await get(api, INSIGHTS, facet="sentiment")
    negative = await get(api, INSIGHTS, facet="sentiment", sentiment="negative")

    assert [value["count"] for value in everything["facets"]["sentiment"]] == [
        value["count"] for value in negative["facets"]["sentiment"]
    ]
    assert "facets" not in await get(api, INSIGHTS)


@pytest.mark.asyncio(loop_scope="module")
async def test_facets_may_be_named_one_by_one_and_no_others(api: httpx2.AsyncClient) -> None:
    answer = await api.get(f"{INSIGHTS}?facet=topic&facet=sentiment")

    assert set(answer.json()["facets"]) == {"topic", "sentiment"}
    assert_problem(await api.get(f"{INSIGHTS}?facet=colour"), 400, "invalid_schema")


# Files


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("parameters", [{}, {"topic": "delivery_problems"}, {"q": "parcel"}, {"author": "author 2"}])
async def test_a_file_has_every_match_in_the_order_of_the_pages(
    api: httpx2.AsyncClient, parameters: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routes.exporting._PAGE", 5)
    page = await get(api, INSIGHTS, limit=1000, **parameters)

    lines = await api.get(INSIGHTS, params={"format": "jsonl", "limit": 1, **parameters})
    table = await api.get(INSIGHTS, params={"format": "csv", **parameters})

    told = [{name: value for name, value in insight.items() if name != "snippet"} for insight in page["insights"]]
    assert [json.loads(line) for line in lines.text.splitlines()] == told
    rows = list(csv.DictReader(io.StringIO(table.text, newline="")))
    assert [row["conversation_id"] for row in rows] == [insight["conversation_id"] for insight in told]
    assert lines.headers["x-total-count"] == table.headers["x-total-count"] == str(len(told))


@pytest.mark.asyncio(loop_scope="module")
async def test_a_csv_file_says_what_it_is_and_holds_no_formula(api: httpx2.AsyncClient) -> None:
    answer = await api.get(f"{INSIGHTS}?format=csv")

    rows = list(csv.reader(io.StringIO(answer.text, newline="")))
    texts = {row[2] for row in rows[1:]}
    assert tuple(rows[0]) == COLUMNS
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"].endswith('.csv"')
    assert not [cell for row in rows for cell in row if cell[:1] in set("=+@\t\r")]
    assert '\'=HYPERLINK("http://evil") where is my parcel, it is late 2' in texts
    assert 'Quotes " and, commas\nand lines in one parcel 5' in texts


@pytest.mark.unit
@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_cell_that_a_spreadsheet_would_run_gets_a_quote(start: str) -> None:
    assert neutral(f"{start}1+1") == f"'{start}1+1"
    assert neutral(f"1{start}1") == f"1{start}1"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        pytest.param("text/csv", "text/csv; charset=utf-8", id="csv"),
        pytest.param("application/x-ndjson", "application/x-ndjson", id="lines"),
        pytest.param("application/jsonl;q=0.9", "application/x-ndjson", id="lines by another name"),
        pytest.param("application/json, text/csv", "application/json", id="json first"),
        pytest.param("text/html,*/*", "application/json", id="a browser"),
    ],
)
async def test_the_form_goes_by_accept(api: httpx2.AsyncClient, accept: str, media_type: str) -> None:
    answer = await api.get(INSIGHTS, headers={"accept": accept})

    assert answer.headers["content-type"] == media_type


@pytest.mark.asyncio(loop_scope="module")
async def test_a_file_of_nothing_is_empty_but_for_its_header(api: httpx2.AsyncClient) -> None:
    table = await api.get(f"{INSIGHTS}?format=csv&author=nobody")
    lines = await api.get(f"{INSIGHTS}?format=jsonl&author=nobody")

    assert table.text == ",".join(COLUMNS) + "\r\n"
    assert lines.text == ""
    assert lines.headers["x-total-count"] == "0"


@pytest.mark.asyncio(loop_scope="module")
async def test_more_files_at_once_than_there_are_places_are_refused(
    api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Files, "MOST", 0)

    answer = await api.get(f"{INSIGHTS}?format=csv")

    assert_problem(answer, 503, "overloaded")
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.asyncio(loop_scope="module")
async def test_a_client_that_takes_nothing_loses_its_place(api: httpx2.AsyncClient) -> None:
    async def rows() -> AsyncGenerator[bytes]:
        yield b"row"

    async def receive() -> Json:
        await asyncio.Event().wait()
        return {}

    async def send(_message: Any) -> None:
        await asyncio.Event().wait()

    places = Files(Database.connect("sqlite:///unused.db"))
    stream = PatientStream(rows(), places.place(), headers={}, patience_s=0.01)

    async with asyncio.timeout(10):
        await stream({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, send)

    assert places.open_count == 0


# Corrections


async def correct(client: httpx2.AsyncClient, conversation_id: str, **said: Any) -> httpx2.Response:
    return await client.put(f"{ONE}/{conversation_id}/correction", json=said)


async def newest(client: httpx2.AsyncClient, **parameters: Any) -> Json:
    found: Json = (await get(client, INSIGHTS, limit=1, **parameters))["insights"][0]
    return found


async def test_a_correction_is_what_every_read_uses(own: httpx2.AsyncClient) -> None:
    before = await get(own, "/api/v1/insights/trends", start_time="2025-01-01", end_time="2025-02-01")
    insight = await newest(own, sentiment="negative", topic="delivery_problems")
    conversation_id = insight["conversation_id"]

    answer = await correct(own, conversation_id, sentiment="positive", topics=["praise"], note="irony")

    told = await get(own, f"{ONE}/{conversation_id}")
    after = await get(own, "/api/v1/insights/trends", start_time="2025-01-01", end_time="2025-02-01")
    assert answer.status_code == 200
    assert answer.json()["original"]["clusters"] == insight["grok_analysis"]["clusters"]
    assert told["correction"] == answer.json()
    assert told["insight"]["sentiment_score"] == 0.55
    assert told["insight"]["corrected"] is True
    assert after["totals"]["positive"] == before["totals"]["positive"] + 1
    assert after["totals"]["negative"] == before["totals"]["negative"] - 1


async def test_a_correction_that_agrees_changes_no_score(own: httpx2.AsyncClient) -> None:
    insight = await newest(own, sentiment="negative")

    await correct(own, insight["conversation_id"], sentiment="negative")

    told = (await get(own, f"{ONE}/{insight['conversation_id']}"))["insight"]
    assert told["sentiment_score"] == insight["grok_analysis"]["sentiment_score"]
    assert (told["confidence"], told["corrected"]) == (1.0, True)


async def test_a_correction_can_be_changed_and_withdrawn(own: httpx2.AsyncClient) -> None:
    insight = await newest(own, sentiment="negative")
    path = f"{ONE}/{insight['conversation_id']}/correction"

    await own.put(path, json={"sentiment": "positive"})
    await own.put(path, json={"topics": ["other"]})
    changed = (await get(own, path.removesuffix("/correction")))["insight"]
    withdrawn = await own.delete(path)

    assert changed["clusters"] == ["other"]
    assert changed["sentiment"] == "negative"
    assert withdrawn.status_code == 204
    assert (await get(own, path.removesuffix("/correction")))["insight"] == insight["grok_analysis"]
    assert_problem(await own.delete(path), 404, "not_found")


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"note": "only a note"}, id="only a note"),
        pytest.param({"sentiment": "angry"}, id="no sentiment"),
        pytest.param({"topics": []}, id="no topics"),
        pytest.param({"topics": ["weather"]}, id="a topic that is none"),
        pytest.param({"topics": ["praise", "praise"]}, id="a topic twice"),
        pytest.param({"topics": ["praise", "other"]}, id="other beside a topic"),
        pytest.param({"topics": ["*"]}, id="a key of the counters"),
        pytest.param({"sentiment": "negative", "score": -1}, id="a member that is none"),
        pytest.param({"sentiment": "negative", "note": "x" * 2001}, id="a note too long"),
        pytest.param({"sentiment": "negative", "note": "nul \x00"}, id="a NUL"),
    ],
)
async def test_a_correction_that_says_nothing_usable_is_refused(own: httpx2.AsyncClient, said: Json) -> None:
    insight = await newest(own)

    assert_problem(await correct(own, insight["conversation_id"], **said), 400, "invalid_schema")
    assert (await newest(own)) == insight


async def test_only_what_has_been_read_can_be_corrected(own: httpx2.AsyncClient) -> None:
    skipped = (await own.post(ONE, json={"text": "https://t.co/x"})).json()["conversation_id"]
    await worked_off(own)

    assert_problem(await correct(own, skipped, sentiment="negative"), 409, "conflict")
    assert_problem(await correct(own, "conv_nobody", sentiment="negative"), 404, "not_found")


# Quality


async def test_quality_is_measured_by_corrections(own: httpx2.AsyncClient) -> None:
    negative = (await get(own, INSIGHTS, sentiment="negative", limit=5))["insights"]
    for number, insight in enumerate(negative):
        said = "negative" if number < 4 else "neutral"
        await correct(own, insight["conversation_id"], sentiment=said)

    quality = await get(own, "/api/v1/quality")

    agreement = quality["sentiment"]["agreement"]
    assert quality["corrections"] == 5
    assert (agreement["count"], agreement["of"], agreement["share"]) == (4, 5, 0.8)
    assert 0.3 < agreement["low"] < 0.8 < agreement["high"] < 1
    assert quality["sentiment"]["confusion"]["neutral"]["negative"] == 1
    assert sum(one["accuracy"]["of"] for one in quality["sentiment"]["calibration"]) == 5
    assert await get(own, "/api/v1/quality", model="grok-9") == {**quality, **(await nothing_measured(own))}


async def nothing_measured(client: httpx2.AsyncClient) -> Json:
    empty: Json = await get(client, "/api/v1/quality", model="nobody")
    assert empty["corrections"] == 0
    return empty


# Reading again


async def test_a_dry_run_counts_and_changes_nothing(own: httpx2.AsyncClient) -> None:
    page = await get(own, INSIGHTS, sentiment="negative")

    answer = await own.post("/api/v1/reanalyze", params={"sentiment": "negative", "dry_run": "true"})

    assert answer.status_code == 200
    assert answer.json() == {
        "status": "dry_run",
        "conversations": page["metadata"]["total_count"],
        "estimated_usd": 0.0,
        "basis": "offline",
    }
    assert (await get(own, "/api/v1/reanalyses"))["reanalyses"] == []


async def test_what_matches_is_read_again_and_nothing_is_lost(own: httpx2.AsyncClient) -> None:
    before = await get(own, INSIGHTS, limit=1000)

    answer = await own.post("/api/v1/reanalyze", params={"topic": "delivery_problems"})
    async with asyncio.timeout(20):
        while (await get(own, "/api/v1/reanalyses"))["reanalyses"][0]["ended_at"] is None:
            pass
    await worked_off(own)

    [order] = (await get(own, "/api/v1/reanalyses"))["reanalyses"]
    assert answer.status_code == 202
    assert order["reanalysis_id"] == answer.json()["reanalysis_id"]
    assert order["requeued"] == order["conversations"] == answer.json()["conversations"] > 0
    assert order["filters"] == {"topic": ["delivery_problems"]}
    assert await get(own, INSIGHTS, limit=1000) == before  # the offline analyzer says the same twice
    assert (await get(own, "/status/summary"))["queue"]["counts"]["completed"] == 24


async def test_what_grok_would_cost_is_said_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    xai = ScriptedXai()

    def play(**_options: object) -> ScriptedXai:
        return xai

    monkeypatch.setattr("main.httpx2.AsyncHTTPTransport", play)
    async with running_app(tmp_path, grok_mode="real", grok_key="xai-test-key") as client:
        unread = await client.post("/api/v1/reanalyze?dry_run=true")
        await fill(client, 6)
        read = await client.post("/api/v1/reanalyze?dry_run=true")
        spent = (await get(client, "/status/summary"))["usage"]["total"]

    each = spent["cost_usd"] / spent["conversations"]
    assert unread.json()["basis"] == "price_list"
    assert read.json()["basis"] == "usage"
    assert read.json()["estimated_usd"] == pytest.approx(read.json()["conversations"] * each, abs=1e-5)
    assert read.json()["estimated_usd"] > 0


# Erasing


async def test_erasing_one_gives_a_receipt_and_leaves_nothing(own: httpx2.AsyncClient) -> None:
    insight = await newest(own)
    path = f"{ONE}/{insight['conversation_id']}"
    await own.put(f"{path}/correction", json={"sentiment": "neutral"})

    receipt = (await own.delete(path)).json()

    assert {name: receipt[name] for name in ("status", "conversations", "insights", "corrections")} == {
        "status": "erased",
        "conversations": 1,
        "insights": 1,
        "corrections": 1,
    }
    assert_problem(await own.get(path), 404, "not_found")
    assert_problem(await own.delete(path), 404, "not_found")
    assert (await get(own, INSIGHTS))["metadata"]["total_count"] == 23


async def test_erasing_an_author_is_told_in_every_total(own: httpx2.AsyncClient) -> None:
    trends = "/api/v1/insights/trends?start_time=2025-01-01&end_time=2025-02-01"
    before = (await get(own, trends))["totals"]["count"]

    receipt = (await own.delete(ONE, params={"author": "author 1"})).json()

    assert receipt["conversations"] == receipt["insights"] == 8
    assert (await get(own, trends))["totals"]["count"] == before - 8
    assert (await get(own, INSIGHTS, author="author 1"))["metadata"]["total_count"] == 0
    assert (await own.delete(ONE, params={"author": "author 1"})).json()["conversations"] == 0


async def test_nobodys_conversations_are_no_default(own: httpx2.AsyncClient) -> None:
    assert_problem(await own.delete(ONE), 400, "invalid_schema")
    assert_problem(await own.delete(ONE, params={"author": " "}), 400, "invalid_schema")
    assert (await get(own, INSIGHTS))["metadata"]["total_count"] == 24


async def test_what_may_touch_every_row_is_limited(own: httpx2.AsyncClient) -> None:
    answers = [await own.post("/api/v1/reanalyze?dry_run=true") for _ in range(11)]

    assert [answer.status_code for answer in answers] == [200] * 10 + [429]
    assert int(answers[-1].headers["retry-after"]) >= 1
