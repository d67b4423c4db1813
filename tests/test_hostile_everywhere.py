"""The corpus against every endpoint of the API's document: a new one is attacked by itself.

Whatever comes back is an answer that the document names; a refusal is in our envelope and repeats nothing. Afterwards
all that was stored can be read through every door.
"""

import csv
import io
import json
from collections.abc import Iterable

import httpx2
import pytest

from routes.openapi import Document, operations_of
from tests.harness import ROOT, Service, post_one, wait_for_status, wait_until
from tests.hostile_requests import (
    BODIES,
    BULK_BODIES,
    CANARY,
    HEADERS,
    IDS,
    INSIGHTS,
    JSON,
    MEGABYTE,
    ONE,
    VALUES,
    latin,
)

pytestmark = [pytest.mark.integration, pytest.mark.slow]

DOCUMENT: Document = json.loads((ROOT / "openapi.json").read_bytes())
OPERATIONS = {operation["operationId"]: (method, path) for method, path, operation in operations_of(DOCUMENT)}
BY_ID = {operation["operationId"]: operation for _, _, operation in operations_of(DOCUMENT)}
ANYWHERE = {404, 405, 431}  # no such path, no such method on another path that an id made, a head too large
TEXTS = [one for one in [*BODIES, *BULK_BODIES] if len(one.values[0]) < MEGABYTE]


def names_in(operation: Document, place: str) -> list[str]:
    return [one["name"] for one in operation.get("parameters", []) if one["in"] == place]


def operations_with(place: str) -> list[str]:
    return sorted(name for name, operation in BY_ID.items() if names_in(operation, place))


@pytest.fixture(scope="module")
def conversation_id(client: httpx2.Client) -> str:
    """One that has been read, so that what asks for one gets further than to its absence."""
    one = post_one(client, "My parcel is late")
    wait_for_status(client, one, "completed")
    return one


def path_of(name: str, conversation_id: str) -> str:
    return OPERATIONS[name][1].replace("{conversation_id}", conversation_id).replace("{reanalysis_id}", "1")


def ask(client: httpx2.Client, method: str, path: str, **more: object) -> httpx2.Response:
    """The answer, but of one that has no end only its head."""
    request = client.build_request(method, path, **more)  # type: ignore[arg-type]
    answer = client.send(request, stream=True)
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        answer.close()
    else:
        answer.read()
        answer.close()
    return answer


def complaints_about(name: str, answer: httpx2.Response) -> Iterable[str]:
    status = answer.status_code
    if status == 500 or (status not in ANYWHERE and str(status) not in BY_ID[name]["responses"]):
        yield f"{status} is not to be answered"
    if status < 400:
        return
    told = answer.json()
    if answer.headers["content-type"] != "application/problem+json" or not told["error"] or not told["details"]:
        yield "not in our form"
    if CANARY in answer.text or CANARY in str(answer.headers):
        yield "it repeats what was sent"


def assert_well_answered(name: str, answers: Iterable[tuple[str, httpx2.Response]]) -> None:
    found = [(sent[:80], told) for sent, answer in answers for told in complaints_about(name, answer)]
    assert found == []


@pytest.mark.parametrize("name", [name for name in sorted(BY_ID) if "requestBody" in BY_ID[name]])
def test_no_body_is_too_hostile(client: httpx2.Client, conversation_id: str, name: str) -> None:
    method, path = OPERATIONS[name][0], path_of(name, conversation_id)

    assert_well_answered(
        name,
        (
            (str(one.id), ask(client, method, path, content=one.values[0], headers=one.values[2] if keep else JSON))
            for one in TEXTS
            for keep in (True, False)
        ),
    )


@pytest.mark.parametrize("name", operations_with("query"))
def test_no_query_is_too_hostile(client: httpx2.Client, conversation_id: str, name: str) -> None:
    method, path = OPERATIONS[name][0], path_of(name, conversation_id)
    queries = [f"{parameter}={value}" for parameter in names_in(BY_ID[name], "query") for value in VALUES]

    assert_well_answered(name, ((query, ask(client, method, f"{path}?{query}")) for query in queries))


@pytest.mark.parametrize("name", operations_with("path"))
def test_no_id_is_too_hostile(client: httpx2.Client, name: str) -> None:
    method, path = OPERATIONS[name]
    before, _, after = path.replace("{conversation_id}", "{}").replace("{reanalysis_id}", "{}").partition("{}")

    assert_well_answered(name, ((one, ask(client, method, f"{before}{one}{after}", headers=JSON)) for one in IDS))


@pytest.mark.parametrize("name", sorted(BY_ID))
def test_no_header_is_too_hostile(client: httpx2.Client, conversation_id: str, name: str) -> None:
    method, path = OPERATIONS[name][0], path_of(name, conversation_id)
    headers = [*(one.values[0] for one in HEADERS), {"last-event-id": "-1"}, {"last-event-id": "9" * 400}]

    assert_well_answered(name, ((str(sent), ask(client, method, path, headers=latin(sent))) for sent in headers))


def test_afterwards_every_door_is_open(service: Service, client: httpx2.Client) -> None:
    wait_until(lambda: client.get("/health").json()["queue_size"] == 0, within_s=120)
    page = client.get(f"{INSIGHTS}?limit=1000&facet=topic,sentiment,author").json()

    table = client.get(f"{INSIGHTS}?format=csv").text
    lines = client.get(f"{INSIGHTS}?format=jsonl").text
    ids = [insight["conversation_id"] for insight in page["insights"]]
    doors = ["/api/v1/insights/trends", "/api/v1/topics", "/api/v1/quality", "/status/summary", "/metrics", "/ready"]

    assert [row[0] for row in csv.reader(io.StringIO(table, newline=""))][1:] == ids
    assert [json.loads(line)["conversation_id"] for line in lines.rstrip("\n").split("\n")] == ids
    assert {client.get(f"{ONE}/{one}").status_code for one in ids} == {200}
    assert {client.get(door).status_code for door in doors} == {200}
    with client.stream("GET", "/api/v1/events", headers={"last-event-id": "0"}) as stream:
        assert next(chunk for chunk in stream.iter_lines() if chunk.startswith("data: "))
    assert [line for line in service.log_lines() if line["level"] in {"error", "critical"}] == []
    assert CANARY not in service.log.read_text()
    assert service.query("PRAGMA integrity_check") == [("ok",)]
