"""The security table, a section a row: keys, clients, outbound calls, logs, request ids, exports, container, packages.

Proved elsewhere, and not again here: caps and slow clients (`test_bodies`, `test_hostile_input`, `test_http_events`),
the limit (`test_http_operations`), every form of a client's address (`test_middleware`), keys and their file
(`test_access`), what is a formula (`test_http_trust`), erasing (`test_upkeep`), the locks (`make requirements-check`).
"""

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from fastapi import APIRouter
from fastapi.routing import APIRoute

import routes
from access import Scope
from access.key_file import add_key, read_keys
from access.keys import make_key
from docs.make_api import make_app
from routes.permissions import SCOPES, check_declared
from tests.fake_xai import FakeXai, running_fake_xai
from tests.fake_xai_answers import GOOD_KEY, Json
from tests.fake_xai_faults import Choice, always, say
from tests.harness import ROOT, Service, post_one, running_app, running_service, wait_for_status, wait_until
from tests.test_http_intake import BULK, ONE, assert_problem
from tests.test_http_operations import INSIGHTS
from tests.test_main import start

pytestmark = pytest.mark.integration

ROUTES = {route.name: route for router in routes.ROUTERS for route in router.routes if isinstance(route, APIRoute)}
GUARDED = sorted(name for name, scope in SCOPES.items() if scope is not None)


@dataclass(frozen=True)
class Secured:
    """A service as in production: keys in a file, one for each scope and one for all."""

    service: Service
    file: Path
    keys: dict[str, str]

    def ask(self, client: httpx2.Client, name: str, key: str | None, **options: Any) -> httpx2.Response:
        """The answer of an operation, without its body where it has no end."""
        route = ROUTES[name]
        (method,) = route.methods or {""}
        headers = {} if key is None else {"x-api-key": key}
        path = re.sub(r"\{\w+\}", "1", route.path)
        with client.stream(method, path, headers=headers, **options) as answer:
            if "event-stream" not in answer.headers.get("content-type", ""):
                answer.read()
            return answer


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Generator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    file = folder / "keys.txt"
    opens = {**{scope.value: [scope] for scope in Scope}, "all": list(Scope)}
    keys = {name: new_key(file, name, scopes) for name, scopes in opens.items()}
    with running_service(folder, ENVIRONMENT="production", API_KEYS_FILE=str(file)) as service:
        yield Secured(service, file, keys)


@pytest.fixture
def client(secured: Secured) -> Generator[httpx2.Client]:
    with secured.service.client() as opened:
        yield opened


def new_key(file: Path, name: str, scopes: Sequence[Scope]) -> str:
    sent, key = make_key(name, scopes)
    add_key(file, key)
    return sent


# Keys


@pytest.mark.parametrize("name", GUARDED)
def test_an_operation_opens_to_its_scope_and_to_no_other(secured: Secured, client: httpx2.Client, name: str) -> None:
    statuses = {scope: secured.ask(client, name, secured.keys[scope]).status_code for scope in Scope}

    opened = {scope for scope, status in statuses.items() if status != 403}
    assert opened == {SCOPES[name]}
    assert 401 not in statuses.values()


@pytest.mark.parametrize("name", GUARDED)
@pytest.mark.parametrize("key", [None, "", "ins_unknown"], ids=["no key", "an empty key", "an unknown key"])
def test_an_operation_opens_to_nobody_unknown(
    secured: Secured, client: httpx2.Client, name: str, key: str | None
) -> None:
    answer = secured.ask(client, name, key)

    assert (answer.status_code, answer.json()["error"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_what_lacks_a_scope_is_told_which(secured: Secured, client: httpx2.Client) -> None:
    answer = client.get(INSIGHTS, headers={"x-api-key": secured.keys["ingest"]})

    assert_problem(answer, 403, "forbidden")
    assert "`read`" in answer.json()["details"]


def test_a_forbidden_request_is_not_looked_at(secured: Secured, client: httpx2.Client) -> None:
    headers = {"x-api-key": secured.keys["read"]}

    answers = [
        client.post(ONE, content=b"no JSON", headers=headers),
        client.delete(f"{ONE}?nonsense=1", headers=headers),
        client.delete("/api/v1/reanalyses/none", headers=headers),
    ]

    assert [answer.status_code for answer in answers] == [403] * 3


@pytest.mark.parametrize("twice", ["x-api-key", "authorization"])
def test_a_key_that_came_twice_is_no_key(secured: Secured, client: httpx2.Client, twice: str) -> None:
    good = secured.keys["all"] if twice == "x-api-key" else f"Bearer {secured.keys['all']}"

    answer = client.get(INSIGHTS, headers=[(twice, good), (twice, "another")])

    assert answer.status_code == 401


def test_only_probes_metrics_and_the_documents_are_public(client: httpx2.Client) -> None:
    app = make_app()
    beside = {path for route in app.routes if (path := getattr(route, "path", None)) is not None}

    public = {ROUTES[name].path for name, scope in SCOPES.items() if scope is None}
    assert public == {"/health", "/ready", "/metrics"}
    assert {path for path in beside if not path.startswith("/api/v1/")} == {
        "/openapi.json",
        "/docs",
        "/docs/oauth2-redirect",
        "/static-offline-docs",
    }
    assert [client.get(path).status_code for path in [*sorted(public), "/docs", "/openapi.json"]] == [200] * 5


@pytest.mark.unit
def test_a_route_without_a_scope_does_not_start() -> None:
    stray = APIRouter()
    stray.add_api_route("/api/v1/stray", lambda: None, name="stray")

    with pytest.raises(AssertionError, match="stray"):
        check_declared([*routes.ROUTERS, stray])
    with pytest.raises(AssertionError, match="check_health"):
        check_declared(routes.ROUTERS[:-1])


@pytest.mark.unit
def test_whatever_needs_a_scope_stands_behind_the_gate() -> None:
    assert all(ROUTES[name].path.startswith(("/api/", "/status/")) for name in GUARDED)


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        pytest.param({}, ["python -m access create", "ALLOW_ANONYMOUS=true"], id="no key"),
        pytest.param({"API_KEYS": "sesame-0123456789"}, ["API_KEYS", "python -m access create"], id="a key itself"),
        pytest.param({"API_KEYS": "sesame-0123456789:read"}, ["API_KEYS", "form"], id="a broken entry"),
        pytest.param({"API_KEYS_FILE": "nowhere.txt"}, ["nowhere.txt", "cannot be read"], id="no file"),
    ],
)
def test_production_does_not_start_without_safe_keys(
    tmp_path: Path, environment: dict[str, str], told: list[str]
) -> None:
    ended = start(tmp_path, ENVIRONMENT="production", **environment)

    assert ended.returncode == 2
    assert all(words in ended.stderr for words in told)
    assert "sesame" not in ended.stderr


def test_production_is_open_to_everybody_only_where_that_was_said(tmp_path: Path) -> None:
    said = {"ENVIRONMENT": "production", "ALLOW_ANONYMOUS": "true"}
    with running_service(tmp_path, **said) as service, service.client() as anybody:
        assert anybody.get(INSIGHTS).status_code == 200


def test_a_revoked_key_opens_nothing_and_its_stream_ends(secured: Secured, client: httpx2.Client) -> None:
    new_key(secured.file, "leaving", [Scope.READ])
    leaving = new_key(secured.file, "leaving", [Scope.READ])
    wait_until(lambda: client.get(INSIGHTS, headers={"x-api-key": leaving}).status_code == 200, within_s=5)

    with client.stream("GET", "/api/v1/events", headers={"x-api-key": leaving}) as stream:
        lines = stream.iter_lines()
        while next(lines) != "event: status":
            pass
        revoke(secured.file, "leaving")
        rest = list(takewhile(lambda line: line != ": still here", lines))

    assert 'data: {"reason":"key_revoked"}' in rest
    assert client.get(INSIGHTS, headers={"x-api-key": leaving}).status_code == 401


def revoke(file: Path, name: str) -> None:
    command = [sys.executable, "-m", "access", "revoke", name, "--file", str(file)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


async def test_the_keys_of_one_client_share_its_limit_and_its_requests(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    old, new = (new_key(file, "loader", [Scope.INGEST]) for _ in range(2))
    limits: Json = {"rate_limit_requests": 3, "rate_limit_window_seconds": 60}
    async with running_app(tmp_path, api_keys_file=file, **limits) as api:
        answers = [
            await api.post(ONE, json={"text": "late"}, headers={"x-api-key": key, "idempotency-key": "one"})
            for key in (old, new, new, old)
        ]

    assert [answer.status_code for answer in answers] == [202, 202, 202, 429]
    assert len({answer.json()["conversation_id"] for answer in answers[:3]}) == 1


async def test_those_without_a_key_take_no_place_of_those_who_have_one(tmp_path: Path) -> None:
    sent, key = make_key("board", [Scope.READ])
    async with running_app(tmp_path, api_keys=str(key), rate_limit_requests=5, rate_limit_window_seconds=60) as client:
        strangers = [(await client.get("/api/v1/insights")).status_code for _ in range(8)]

        known = [(await client.get("/api/v1/insights", headers={"x-api-key": sent})).status_code for _ in range(6)]

    assert strangers == [401] * 5 + [429] * 3
    assert known == [200] * 5 + [429]


def test_no_key_is_stored_as_it_is_sent(secured: Secured) -> None:
    stored = secured.file.read_text(encoding="utf-8")

    assert len(read_keys(secured.file)) >= len(secured.keys)
    assert not [key for key in secured.keys.values() if key in stored or key.removeprefix("ins_") in stored]


# Client identity


@pytest.mark.parametrize(
    ("trusted", "statuses"),
    [
        pytest.param("127.0.0.0/8", [200, 200, 200, 429, 200], id="a proxy of ours: each has a share"),
        pytest.param("", [200, 200, 200, 200, 429], id="a stranger: all of it is one client"),
    ],
)
async def test_forwarded_addresses_count_only_from_our_proxies(
    tmp_path: Path, trusted: str, statuses: list[int]
) -> None:
    limits: Json = {"rate_limit_requests": 4, "rate_limit_window_seconds": 60, "trusted_proxies": trusted}
    async with running_app(tmp_path, **limits) as api:
        answers = [
            await api.get(INSIGHTS, headers={"x-forwarded-for": f"198.51.100.{host}"}) for host in (2, 1, 1, 1, 2)
        ]

    assert [answer.status_code for answer in answers] == statuses


# Outbound calls


def test_grok_is_called_where_the_settings_say_and_nowhere_else(tmp_path: Path) -> None:
    """Neither a redirect nor a proxy of the environment leads the key elsewhere."""
    with running_fake_xai() as elsewhere, running_fake_xai() as xai:
        xai.fake.plan = always(say("", status=307, location=f"{elsewhere.url}/chat/completions"))
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), f"http://127.0.0.1:{elsewhere.port}")
        with running_service(tmp_path, **xai.environment, **proxies) as service, service.client() as client:
            post_one(client, "late parcel")
            wait_until(lambda: bool(xai.journal.chats))
            wait_until(lambda: client.get("/ready").status_code == 503)
            told = client.get("/ready").json()["details"]

        assert elsewhere.journal.calls == []
        assert elsewhere.connections == set()
    assert "Grok cannot be used" in told
    assert str(elsewhere.port) not in told


# Logs, metrics, errors: what was said stays with who said it

SAID = {
    "text": "zanzibar parcel",
    "e-mail address": "zanzibar.person@example.org",
    "author": "zanzibar-author",
    "query value": "zanzibar-query",
    "wrong key": "ins_zanzibar-wrong-key-0123456789",
}
TEXT, MAIL, AUTHOR, QUERY, WRONG = SAID.values()
HOSTILE_BODIES = [
    f'{{"text": "{TEXT}'.encode(),
    json.dumps({"text": TEXT, MAIL: 1}).encode(),
    json.dumps({"text": [TEXT]}).encode(),
    f'{{"text": "{TEXT}", "timestamp": "{MAIL}"}}'.encode(),
    f'{{"text": "{TEXT} \\ud800"}}'.encode(),
    f'{{"text": "{TEXT}", "text": "{MAIL}"}}'.encode(),
    json.dumps({"conversations": [{"text": TEXT, AUTHOR: MAIL}, MAIL]}).encode(),
    json.dumps({"sentiment": TEXT, "topics": [QUERY], "note": MAIL}).encode(),
    TEXT.encode("utf-16"),
]


REPEATED = f"cannot read {TEXT} of {MAIL} with {GOOD_KEY}"
GROK_FAILURES: list[Choice] = [
    *("prose", "truncated_json", "finish_length", "refusal", "null_content", "missing_id", "html_200", "reset", "cut"),
    say({"error": REPEATED}, status=400),
    say({"error": {"message": REPEATED, "code": MAIL}}, status=422),
    say({"error": REPEATED}, status=500),
    say(REPEATED),
    say({"choices": [{"message": {"content": REPEATED}, "finish_reason": MAIL}], "model": "grok-4.3"}),
    say({"error": f"Incorrect API key provided: {GOOD_KEY}"}, status=401),  # the last: it shuts the lane
]


@pytest.mark.slow
@pytest.mark.parametrize("debug", ["false", "true"])
def test_what_was_said_is_in_no_log_no_metric_and_no_error(tmp_path: Path, debug: str) -> None:
    file = tmp_path / "keys.txt"
    key = new_key(file, "all", list(Scope))
    unfit = [*SAID.values(), key, read_keys(file)[0].digest, GOOD_KEY]
    quick = {"GROK_PACK_SIZE": "1", "CIRCUIT_BREAKER_COOLDOWN_SECONDS": "0.1", "POLL_INTERVAL_SECONDS": "0.1"}
    with running_fake_xai(FakeXai(script=list(GROK_FAILURES))) as xai:
        environment = {**xai.environment, **quick, "DEBUG": debug, "API_KEYS_FILE": str(file)}
        with running_service(tmp_path, **environment) as service, service.client() as client:
            client.headers["x-api-key"] = key
            for number in range(len(GROK_FAILURES)):
                post_one(client, f"{TEXT} {number}, write to {MAIL}", author=AUTHOR)
            wait_until(lambda: client.get("/ready").status_code == 503, within_s=30)  # every failure has been had
            told = [client.get(path).text for path in ("/metrics", "/status/summary", "/health", "/ready")]
            errors = say_everywhere(client)
            service.stop()

    log = service.log.read_text(encoding="utf-8")
    places = {"the log": log, "what is told": "".join(told), "an error": "".join(errors)}
    assert [(place, word) for place, text in places.items() for word in unfit if word in text] == []
    assert len(errors) > 400
    assert {"conversation_failed", "grok_lane_closed", "request"} <= {line["event"] for line in service.log_lines()}


def say_everywhere(client: httpx2.Client) -> list[str]:
    """In every place of every operation where something can be said; each error that was answered, headers and all."""
    accepted = post_one(client, f"{TEXT}, write to {MAIL}", external_id=MAIL, raw_data={"mail": MAIL})
    answers: list[httpx2.Response] = []
    for route in ROUTES.values():
        (method,) = route.methods or {""}
        if route.name == "follow_events":
            continue  # has no end; its parameters are those of find_insights
        for one in (accepted, MAIL):
            path = re.sub(r"\{\w+\}", one, route.path)
            answers += ask_in_every_way(client, method, path)
    answers += [client.get(f"/{MAIL}"), client.request(WRONG, ONE), client.get(f"/api/v1/{MAIL}?{QUERY}={MAIL}")]
    return [f"{answer.text} {answer.headers}" for answer in answers if answer.status_code >= 400]


def ask_in_every_way(client: httpx2.Client, method: str, path: str) -> Iterator[httpx2.Response]:
    queries = ("author", "topic", "q", "cursor", "start_time", "tz", "model", "status", "limit", QUERY)
    for name in queries if method in {"GET", "DELETE"} else queries[-1:]:
        yield client.request(method, path, params={name: QUERY if name != "author" else AUTHOR})
    for headers in ({"x-api-key": WRONG}, {"authorization": f"Bearer {WRONG}"}, {"x-request-id": f"{MAIL} {TEXT}"}):
        yield client.request(method, path, headers=headers)
    yield client.request(method, path, headers={"x-forwarded-for": MAIL, "referer": MAIL, "user-agent": MAIL})
    if method in {"POST", "PUT"}:
        for body in HOSTILE_BODIES:
            yield client.request(method, path, content=body, headers={"content-type": "application/json"})
        yield client.request(method, path, content=TEXT, headers={"content-type": MAIL, "idempotency-key": MAIL * 20})


# Request ids


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        pytest.param("A-z_0.9", True, id="letters, digits, point, hyphen, underscore"),
        pytest.param("x" * 64, True, id="64 of them"),
        pytest.param("x" * 65, False, id="one more"),
        pytest.param("", False, id="none"),
        pytest.param("a b", False, id="a blank"),
        pytest.param('"}', False, id="an end of JSON"),
        pytest.param("\u00e9", False, id="a letter that is not ASCII"),
    ],
)
def test_a_request_id_is_a_plain_word_or_a_new_one(client: httpx2.Client, sent: str, kept: bool) -> None:  # noqa: FBT001
    headers = [(b"x-request-id", sent.encode("latin-1"))]

    answered = client.get("/health", headers=headers).headers["x-request-id"]

    assert (answered == sent) == kept
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", answered)


# Exports


def test_no_cell_of_a_file_is_a_formula(secured: Secured, client: httpx2.Client) -> None:
    client.headers["x-api-key"] = secured.keys["all"]
    starts = ["=", "+", "-", "@", "\t=", "\r=", "'=", '"=']
    items = [{"text": f"{start}1+1 late parcel", "author": f"{start}A1"} for start in starts]
    results = client.post(BULK, json={"conversations": items}).json()["results"]
    for result in results:
        wait_for_status(client, result["conversation_id"], "completed")

    rows = list(csv.DictReader(io.StringIO(client.get(f"{INSIGHTS}?format=csv").text, newline="")))

    numbers = {"sentiment_score", "confidence"}
    cells = [cell for row in rows for name, cell in row.items() if name not in numbers]
    assert len(rows) >= len(starts)
    assert not [cell for cell in cells if cell[:1] in set("=+-@\t\r")]


# Container


@pytest.mark.unit
def test_a_container_is_reached_from_its_host_only_and_has_time_to_end() -> None:
    services: Json = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    run = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\ndocker-run:")[2].partition("\n\n")[0]

    for name in ("api", "api-postgres"):
        assert all(port.startswith("127.0.0.1:") for port in services[name]["ports"])
        assert (services[name]["init"], services[name]["stop_grace_period"]) == (True, "20s")
    assert "ports" not in services["postgres"]
    assert '--publish "127.0.0.1:' in run
    for option in ("--init", "--read-only", "--cap-drop ALL", "--security-opt no-new-privileges"):
        assert option in run


@pytest.mark.unit
def test_the_image_is_of_production_and_not_of_root() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")

    assert "ENVIRONMENT=production" in dockerfile
    assert re.findall(r"^USER (.+)$", dockerfile, flags=re.MULTILINE) == ["10001:10001"]
    assert not re.search(r"^ARG |KEY=", dockerfile, flags=re.MULTILINE)


# Packages


@pytest.mark.unit
@pytest.mark.parametrize(
    ("said", "status", "ended", "told"),
    [
        pytest.param("No known vulnerabilities found", 0, 0, "No known vulnerabilities", id="none is known"),
        pytest.param("Found 2 known vulnerabilities in 1 package", 1, 1, "Found 2 known", id="two are known"),
        pytest.param("Found 1 known vulnerability in 1 package", 1, 1, "Found 1 known", id="one is known"),
        pytest.param("ERROR: a: Dependency not found on PyPI", 1, 0, "NOT RUN: ", id="a package nobody knows"),
        pytest.param("ConnectionError: no route to host", 1, 0, "NOT RUN: ", id="nobody to ask"),
        pytest.param("pip-audit: error: unrecognized arguments", 2, 0, "NOT RUN: ", id="another pip-audit"),
    ],
)
def test_an_audit_that_was_not_made_never_looks_like_one_that_was(
    tmp_path: Path, said: str, status: int, ended: int, told: str
) -> None:
    fake = tmp_path / "pip-audit"
    fake.write_text(f'#!/bin/sh\necho "$@" > "$0.asked"\necho "{said}" >&2\nexit {status}\n', encoding="utf-8")
    fake.chmod(0o755)

    audit = subprocess.run(
        [ROOT / ".ci" / "audit"], env={"PIP_AUDIT": str(fake)}, capture_output=True, text=True, check=False
    )

    assert audit.returncode == ended
    assert told in audit.stdout + audit.stderr
    assert ("NOT RUN" in audit.stderr) == told.startswith("NOT RUN")
    assert "--strict" in fake.with_name("pip-audit.asked").read_text(encoding="utf-8")


@pytest.mark.unit
def test_every_check_includes_the_audit() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert "audit" in re.findall(r"^check: (.*?) ##", makefile, flags=re.MULTILINE)[0].split()
    assert "make audit" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
