"""What stands around the API: probes, documentation, keys, limits, CORS, and errors nobody wanted."""

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
import pytest
import pytest_asyncio

from database import Database, WriteSession
from errors import DatabaseBusy, Overloaded, StorageFull
from intake import Intake
from tests.harness import HandClock, running_app
from tests.test_http_intake import BULK, ONE, TEXT, assert_problem

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

INSIGHTS = "/api/v1/insights"
KEY, OTHER_KEY = "key-of-sixteen-characters", "another-key-of-sixteen"
CANARY = "canary-4711"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[httpx2.AsyncClient]:
    async with running_app(tmp_path_factory.mktemp("operations")) as client:
        yield client


# Probes and documents


async def test_health_says_that_all_is_well(api: httpx2.AsyncClient) -> None:
    answer = await api.get("/health")

    body = answer.json()
    assert (answer.status_code, body["status"], body["worker_running"], body["grok_mode"]) == (200, "ok", True, "mock")
    assert isinstance(body["queue_size"], int)


async def test_ready_says_so(api: httpx2.AsyncClient) -> None:
    answer = await api.get("/ready")

    told = {"status": "ready", "grok": "not_needed", "details": "The offline analyzer needs no key."}
    assert (answer.status_code, answer.json()) == (200, told)


@dataclass
class Worker:
    """As much of a processor as `/ready` looks at."""

    ticked_s: float
    idle_s: float | None = None

    @property
    def ticked_at(self) -> datetime:
        return datetime.now(UTC) - timedelta(seconds=self.ticked_s)

    @property
    def idle_since(self) -> datetime | None:
        return None if self.idle_s is None else datetime.now(UTC) - timedelta(seconds=self.idle_s)


async def ready_with(folder: Path, worker: Worker, *, row_due_s: float | None = None) -> httpx2.Response:
    """What `/ready` says beside this worker, while a row has been due for so long and nobody takes it."""

    def take_over(state: dict[str, Any]) -> dict[str, Any]:
        state["processor"].stop()
        return {**state, "processor": worker, "worker_running": lambda: True}

    async with running_app(folder, change_state=take_over) as own:
        if row_due_s is not None:
            store_row(folder, due_at=datetime.now(UTC) - timedelta(seconds=row_due_s))
        return await own.get("/ready")


def store_row(folder: Path, *, due_at: datetime) -> None:
    """A pending conversation, written beside the service."""
    micros = int(due_at.timestamp() * 1_000_000)
    with sqlite3.connect(folder / "insights.db") as connection:
        connection.execute(
            "INSERT INTO conversations (id, text, status, timestamp, created_at, due_at)"
            " VALUES ('conv_x', 'late parcel', 'pending', ?, ?, ?)",
            (micros, micros, micros),
        )
    connection.close()


@pytest.mark.parametrize(
    ("worker", "row_due_s"),
    [
        pytest.param(Worker(ticked_s=31), None, id="no turn for long"),
        pytest.param(Worker(ticked_s=1, idle_s=31), 31, id="nothing found for long, while a row is due"),
    ],
)
async def test_a_worker_without_progress_is_not_ready(tmp_path: Path, worker: Worker, row_due_s: float | None) -> None:
    answer = await ready_with(tmp_path, worker, row_due_s=row_due_s)

    assert_problem(answer, 503, "overloaded")


@pytest.mark.parametrize(
    ("worker", "row_due_s"),
    [
        pytest.param(Worker(ticked_s=29), None, id="a turn not long ago"),
        pytest.param(Worker(ticked_s=1, idle_s=3600), None, id="nothing to do for an hour"),
        pytest.param(Worker(ticked_s=1, idle_s=3600), 5, id="a row that came a moment ago"),
        pytest.param(Worker(ticked_s=1), 3600, id="a long queue that is worked, or waits for a reason"),
    ],
)
async def test_a_worker_that_works_or_rests_is_ready(tmp_path: Path, worker: Worker, row_due_s: float | None) -> None:
    answer = await ready_with(tmp_path, worker, row_due_s=row_due_s)

    assert answer.status_code == 200


async def test_the_documentation_needs_no_other_server(api: httpx2.AsyncClient) -> None:
    page = (await api.get("/docs")).text

    targets = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)""", page)
    assert targets
    assert not [target for target in targets if target.startswith(("http", "//"))]


async def test_everything_the_documentation_loads_is_served_here(api: httpx2.AsyncClient) -> None:
    page = (await api.get("/docs")).text

    loaded = re.findall(r"""(?:src|href)\s*=\s*["'](/[^"']+)""", page)
    answers = [await api.get(target) for target in loaded]
    assert len(answers) >= 2
    assert {answer.status_code for answer in answers} == {200}


async def test_the_openapi_document_names_every_endpoint(api: httpx2.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()

    methods = {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item}
    assert methods >= {
        f"POST {ONE}", f"GET {ONE}", f"POST {BULK}", f"GET {ONE}/{{conversation_id}}", f"POST {ONE}/retry",
        f"POST {ONE}/{{conversation_id}}/retry", f"GET {INSIGHTS}", "GET /health", "GET /ready",
    }  # fmt: skip


async def test_every_reference_in_the_openapi_document_leads_somewhere(api: httpx2.AsyncClient) -> None:
    answer = await api.get("/openapi.json")
    document = answer.json()

    for reference in set(re.findall(r'"\$ref":\s*"#/([^"]+)"', answer.text)):
        found = document
        for part in reference.split("/"):
            assert part in found, f"#/{reference} leads nowhere"
            found = found[part]


async def test_the_openapi_document_says_what_a_conversation_is(api: httpx2.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()

    schema = document["paths"][ONE]["post"]["requestBody"]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate({"text": TEXT, "author": "a", "raw_data": {}}, {**schema, "components": document["components"]})
    assert schema["required"] == ["text"]


async def test_what_is_answered_is_what_the_document_says(api: httpx2.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()
    accepted = await api.post(ONE, json={"text": TEXT})
    paths = {
        ONE: ONE,
        f"{ONE}/{{conversation_id}}": f"{ONE}/{accepted.json()['conversation_id']}",
        INSIGHTS: INSIGHTS,
        "/health": "/health",
        "/ready": "/ready",
    }

    for template, path in paths.items():
        schema = document["paths"][template]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        jsonschema.validate((await api.get(path)).json(), {**schema, "components": document["components"]})


async def test_no_endpoint_promises_fastapis_own_validation_error(api: httpx2.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()

    promised = {
        f"{method} {path}"
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if "422" in operation["responses"] and "HTTPValidationError" in json.dumps(operation["responses"]["422"])
    }
    assert promised == set()


# Request ids


@pytest.mark.parametrize("sent", ["abc", "A.b_c-1", "x" * 64])
async def test_a_usable_request_id_comes_back(api: httpx2.AsyncClient, sent: str) -> None:
    answer = await api.get("/health", headers={"x-request-id": sent})

    assert answer.headers["x-request-id"] == sent


@pytest.mark.parametrize("sent", ["", "x" * 65, "x" * 65536, "a b", "a/b", "<script>", "a\tb"])
async def test_any_other_request_id_is_replaced(api: httpx2.AsyncClient, sent: str) -> None:
    answer = await api.get("/health", headers={"x-request-id": sent})

    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", answer.headers["x-request-id"])
    assert answer.headers["x-request-id"] != sent


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/ready"), ("GET", "/nothing"), ("PUT", ONE), ("POST", ONE), ("GET", INSIGHTS), ("GET", "/docs")],
)
async def test_every_answer_has_a_request_id_of_its_own(api: httpx2.AsyncClient, method: str, path: str) -> None:
    first, second = await api.request(method, path), await api.request(method, path)

    assert first.headers["x-request-id"] != second.headers["x-request-id"]


# Paths and methods


@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/api", "/api/v1", "/api/v2/conversations", "/api/v1/conversations/a/b"]
)
async def test_a_path_that_is_not_there_is_a_404_of_ours(api: httpx2.AsyncClient, path: str) -> None:
    assert_problem(await api.get(path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", ONE), ("PATCH", ONE), ("GET", BULK + "/x/y"), ("PUT", BULK), ("POST", INSIGHTS), ("DELETE", INSIGHTS),
        ("POST", "/health"), ("PUT", f"{ONE}/retry"), ("TRACE", ONE), ("BREW", ONE), ("OPTIONS", ONE),
    ],
)  # fmt: skip
async def test_a_method_that_is_not_there_is_refused(api: httpx2.AsyncClient, method: str, path: str) -> None:
    answer = await api.request(method, path)

    if path.endswith("/x/y"):
        assert_problem(answer, 404, "not_found")
    else:
        assert_problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"]


async def test_a_405_names_every_method_of_the_path(api: httpx2.AsyncClient) -> None:
    answer = await api.put(ONE)

    assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE, GET, POST")


# Keys


@pytest.fixture
def keys() -> str:
    return f"{KEY},{OTHER_KEY}"


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="none"),
        pytest.param({"x-api-key": ""}, id="an empty one"),
        pytest.param({"x-api-key": KEY[:-1]}, id="one cut short"),
        pytest.param({"x-api-key": f"{KEY},{OTHER_KEY}"}, id="the whole list"),
        pytest.param({"authorization": f"Basic {KEY}"}, id="another scheme"),
        pytest.param({"authorization": f"Bearer{KEY}"}, id="no blank"),
        pytest.param({"authorization": "Bearer"}, id="a scheme alone"),
        pytest.param({"x-api-key": "\u00e9" * 20}, id="one not in ASCII"),
    ],
)
async def test_without_a_key_of_ours_nothing_is_answered(tmp_path: Path, keys: str, headers: dict[str, str]) -> None:
    encoded = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    async with running_app(tmp_path, api_keys=keys) as own:
        answers = [
            await own.post(ONE, json={"text": TEXT}, headers=encoded),
            await own.get(INSIGHTS, headers=encoded),
            await own.get("/api/v1/nothing", headers=encoded),
        ]

    for answer in answers:
        assert_problem(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "headers",
    [{"x-api-key": KEY}, {"authorization": f"Bearer {KEY}"}, {"authorization": f"bearer {OTHER_KEY}"}],
    ids=["by its header", "as a bearer", "another as a bearer"],
)
async def test_with_a_key_of_ours_all_is_answered(tmp_path: Path, keys: str, headers: dict[str, str]) -> None:
    async with running_app(tmp_path, api_keys=keys) as own:
        answer = await own.post(ONE, json={"text": TEXT}, headers=headers)

    assert answer.status_code == 202


async def test_probes_and_documents_need_no_key(tmp_path: Path, keys: str) -> None:
    async with running_app(tmp_path, api_keys=keys) as own:
        answers = [await own.get(path) for path in ("/health", "/ready", "/docs", "/openapi.json")]

    assert [answer.status_code for answer in answers] == [200] * 4


# Limits


async def test_more_than_the_limit_is_told_to_come_back_and_then_succeeds(tmp_path: Path) -> None:
    async with running_app(tmp_path, rate_limit_requests=3, rate_limit_window_seconds=1) as own:
        answers = [await own.get(INSIGHTS) for _ in range(5)]
        await asyncio.sleep(int(answers[-1].headers["retry-after"]))
        later = await own.get(INSIGHTS)

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert_problem(answers[-1], 429, "rate_limit_exceeded")
    assert answers[-1].json()["retry_after"] == int(answers[-1].headers["retry-after"]) >= 1
    assert later.status_code == 200


async def test_guessing_keys_is_limited_too(tmp_path: Path, keys: str) -> None:
    async with running_app(tmp_path, api_keys=keys, rate_limit_requests=3, rate_limit_window_seconds=60) as own:
        answers = [await own.get(INSIGHTS, headers={"x-api-key": f"a wrong key {number}"}) for number in range(5)]

    assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429]


async def test_probes_are_not_limited(tmp_path: Path) -> None:
    async with running_app(tmp_path, rate_limit_requests=1, rate_limit_window_seconds=60) as own:
        answers = [await own.get(path) for path in ("/health", "/ready") * 10]

    assert {answer.status_code for answer in answers} == {200}


async def test_each_key_has_its_share(tmp_path: Path, keys: str) -> None:
    async with running_app(tmp_path, api_keys=keys, rate_limit_requests=10, rate_limit_window_seconds=60) as own:
        await own.get(INSIGHTS, headers={"x-api-key": OTHER_KEY})
        greedy = [await own.get(INSIGHTS, headers={"x-api-key": KEY}) for _ in range(9)]
        modest = await own.get(INSIGHTS, headers={"x-api-key": OTHER_KEY})

    assert [answer.status_code for answer in greedy] == [200] * 5 + [429] * 4
    assert modest.status_code == 200


# Browsers


async def test_a_configured_origin_may_call(tmp_path: Path) -> None:
    origin = "https://board.example"
    async with running_app(tmp_path, cors_origins=origin, api_keys=KEY) as own:
        preflight = await own.options(INSIGHTS, headers={"origin": origin, "access-control-request-method": "GET"})
        refused = await own.get(INSIGHTS, headers={"origin": origin})

    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == origin
    assert refused.headers["access-control-allow-origin"] == origin


async def test_another_origin_may_not(tmp_path: Path) -> None:
    async with running_app(tmp_path, cors_origins="https://board.example") as own:
        answer = await own.get("/health", headers={"origin": "https://evil.example"})

    assert "access-control-allow-origin" not in answer.headers


async def test_without_configured_origins_none_may(api: httpx2.AsyncClient) -> None:
    answer = await api.get("/health", headers={"origin": "https://board.example"})

    assert "access-control-allow-origin" not in answer.headers


# Errors of others, and of ours


class FailingDatabase(Database):
    """Raises `fault` for whatever it is asked."""

    fault: Exception

    async def write(self, unit: Callable[[WriteSession], Any], *, alone: bool = False) -> Any:  # noqa: ARG002
        raise self.fault

    async def read(self, unit: Callable[..., Any]) -> Any:  # noqa: ARG002
        raise self.fault


def failing_with(fault: Exception, folder: Path) -> Callable[[dict[str, Any]], dict[str, Any]]:
    database = FailingDatabase.connect(f"sqlite:///{folder / 'never-opened.db'}")
    assert isinstance(database, FailingDatabase)
    database.fault = fault

    def change(state: dict[str, Any]) -> dict[str, Any]:
        intake = Intake(database, now=HandClock().now, on_accepted=lambda _count: None)
        return {**state, "database": database, "intake": intake}

    return change


REQUESTS = [
    ("POST", ONE, {"text": TEXT}),
    ("POST", BULK, {"conversations": [{"text": TEXT}]}),
    ("GET", ONE, None),
    ("GET", f"{ONE}/conv_1", None),
    ("GET", INSIGHTS, None),
    ("POST", f"{ONE}/retry", None),
    ("POST", f"{ONE}/conv_1/retry", None),
]


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        pytest.param(DatabaseBusy("locked", retry_after_s=1), 503, "database_busy", id="a locked database"),
        pytest.param(Overloaded("shutting down", retry_after_s=2), 503, "overloaded", id="a service that ends"),
        pytest.param(StorageFull("full", retry_after_s=30), 507, "storage_full", id="a full disk"),
    ],
)
async def test_a_database_that_refuses_is_told_with_a_wait(
    tmp_path: Path, fault: Exception, status: int, code: str
) -> None:
    async with running_app(tmp_path, change_state=failing_with(fault, tmp_path)) as own:
        answers = [await own.request(method, path, json=body) for method, path, body in REQUESTS]

    for answer in answers:
        assert_problem(answer, status, code)
        assert int(answer.headers["retry-after"]) >= 1


async def test_a_bug_of_ours_shows_only_the_request_id(tmp_path: Path) -> None:
    fault = RuntimeError(f"{CANARY} SELECT * FROM /srv/secret")
    async with running_app(tmp_path, change_state=failing_with(fault, tmp_path)) as own:
        answers = [
            await own.request(method, path, json=body, headers={"x-request-id": "seen-1"})
            for method, path, body in REQUESTS
        ]

    for answer in answers:
        assert_problem(answer, 500, "internal_error")
        assert answer.json()["request_id"] == "seen-1"
        assert not re.search(f"{CANARY}|SELECT|srv|RuntimeError|Traceback", answer.text)


async def test_health_answers_while_the_database_does_not(tmp_path: Path) -> None:
    fault = DatabaseBusy("locked")
    async with running_app(tmp_path, change_state=failing_with(fault, tmp_path)) as own:
        health, ready = await own.get("/health"), await own.get("/ready")

    assert (health.status_code, health.json()["status"], health.json()["queue_size"]) == (200, "degraded", None)
    assert_problem(ready, 503, "database_busy")


async def test_a_worker_that_died_turns_health_and_ready_red(tmp_path: Path) -> None:
    def bury(state: dict[str, Any]) -> dict[str, Any]:
        return {**state, "worker_running": lambda: False}

    async with running_app(tmp_path, change_state=bury) as own:
        health, ready = await own.get("/health"), await own.get("/ready")

    assert health.json()["status"] == "degraded"
    assert_problem(ready, 503, "overloaded")
