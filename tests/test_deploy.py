"""What is in `deploy/` fits the service: every metric that an alert, a panel or the table names is really told."""

import json
import random
import re
import string
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
import yaml
from prometheus_client.parser import text_string_to_metric_families

from settings import Settings
from tests.fake_xai import running_fake_xai
from tests.harness import ROOT, Json, post_one, running_app, running_service, wait_for_status
from tests.test_http_intake import BULK, ONE
from tests.test_http_operations import INSIGHTS, KEY
from tests.test_http_status import METRICS, SUMMARY, is_done, load, real, until

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

DEPLOY = ROOT / "deploy"
MOST_SERIES = 1_000
OF_PROMETHEUS = frozenset({"job", "instance"})  # labels that every series is given when it is scraped
OF_OTHERS: Mapping[str, frozenset[str]] = {"up": frozenset()}
HISTOGRAM = {"_bucket": {"le"}, "_sum": set[str](), "_count": set[str]()}
WORDS = frozenset(
    {"and", "or", "unless", "by", "ignoring", "sum", "min", "max", "topk", "time", "rate", "increase", "changes"}
    | {"deriv", "histogram_quantile", "predict_linear"}
)


def alerts() -> list[Json]:
    groups: list[Json] = yaml.safe_load((DEPLOY / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> Json:
    read: Json = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
    return read


def panels() -> list[Json]:
    found: list[Json] = dashboard()["panels"]
    return found


def expressions() -> list[Any]:
    """Every PromQL of the folder, by where it stands."""
    of_alerts = [pytest.param(rule["expr"], id=rule["alert"]) for rule in alerts()]
    targets = [(panel["title"], target) for panel in panels() for target in panel.get("targets", [])]
    return [*of_alerts, *(pytest.param(t["expr"], id=f"{title} {t['refId']}") for title, t in targets)]


@dataclass(frozen=True, slots=True)
class Listed:
    """A row of the table of metrics."""

    kind: str
    labels: frozenset[str]


def listed() -> dict[str, Listed]:
    table = (DEPLOY / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(insights_\w+)` \| (\w+) \|([^|]*)\| \S", table, flags=re.MULTILINE)
    return {name: Listed(kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


@dataclass(frozen=True, slots=True)
class Told:
    """A metric of a real answer: what it is, and the labels and values of its samples."""

    kind: str
    samples: tuple[tuple[str, dict[str, str]], ...]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[dict[str, Told]]:
    """The metrics of a service in real mode that has seen some of everything."""
    folder = tmp_path_factory.mktemp("deploy")
    with running_fake_xai() as xai:
        xai.fake.script = ["refusal", "unavailable"]
        async with running_app(folder, **real(xai, grok_pack_size=1, grok_daily_budget_usd=5)) as api:
            await load(api, "my parcel is late again", "https://t.co/x", *(f"order {n} is lost" for n in range(5)))
            await until(lambda: is_done(api))
            await api.get("/nowhere")
            text = (await api.get(METRICS)).text
    yield told_in(text)


def told_in(text: str) -> dict[str, Told]:
    return {
        family.name + ("_total" if family.type == "counter" else ""): Told(
            family.type, tuple((sample.name, dict(sample.labels)) for sample in family.samples)
        )
        for family in text_string_to_metric_families(text)
    }


# The table

needs_proc = pytest.mark.skipif(not Path("/proc/stat").exists(), reason="what a process uses is told on Linux only")


@needs_proc
async def test_the_table_lists_every_metric_with_its_type(told: dict[str, Told]) -> None:
    assert {name: row.kind for name, row in listed().items()} == {name: metric.kind for name, metric in told.items()}


@needs_proc
async def test_the_table_lists_the_labels_of_every_metric(told: dict[str, Told]) -> None:
    own = {name: {frozenset(labels) - {"le"} for _, labels in metric.samples} for name, metric in told.items()}

    assert {name: {row.labels} for name, row in listed().items()} == own


async def test_names_end_as_prometheus_wishes(told: dict[str, Told]) -> None:
    counters = {name for name, metric in told.items() if metric.kind == "counter"}

    assert counters == {name for name in told if name.endswith("_total")}
    assert not [name for name in told if re.search(r"_(ms|kb|mb|minutes|percent)(_|$)", name)]


# PromQL


def selectors(expression: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Each metric with its matchers: label, operator, value."""
    for name, matchers in re.findall(r"\b([a-z_][a-z0-9_]*)(?:\{([^}]*)\})?", unsaid(expression)):
        if name not in WORDS:
            yield name, re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', matchers)


def unsaid(expression: str) -> str:
    """Without what only looks like a metric: times, and the labels that are grouped or matched by."""
    without_times = re.sub(r"\[[^\]]+\]", "", expression)
    return re.sub(r"\b(by|ignoring) \([\w, ]+\)", "", without_times)


def samples_named(name: str) -> frozenset[str] | None:
    """The labels of a series that the table promises; None when there is none of this name."""
    rows = listed()
    if name in rows and rows[name].kind != "histogram":
        return rows[name].labels
    for suffix, more in HISTOGRAM.items():
        row = rows.get(name.removesuffix(suffix))
        if name.endswith(suffix) and row is not None and row.kind == "histogram":
            return row.labels | more
    return OF_OTHERS.get(name)


@pytest.mark.parametrize("expression", expressions())
async def test_an_expression_is_balanced(expression: str) -> None:
    bare = re.sub(r'"[^"]*"', "", expression)
    opened: list[str] = []
    for sign in re.findall(r"[()\[\]{}]", bare):
        if sign in "([{":
            opened.append(sign)
        else:
            assert opened, f"{sign} closes nothing"
            assert opened.pop() + sign in {"()", "[]", "{}"}

    assert opened == []
    assert '"' not in bare
    assert all(re.fullmatch(r"[1-9]\d*[smhd]|\$__rate_interval", span) for span in re.findall(r"\[(.*?)\]", bare))


@pytest.mark.parametrize("expression", expressions())
async def test_an_expression_names_only_series_and_labels_that_there_are(expression: str) -> None:
    found = list(selectors(expression))

    assert found
    for name, matchers in found:
        labels = samples_named(name)
        assert labels is not None, f"there is no series {name}"
        assert {label for label, _, _ in matchers} <= labels | OF_PROMETHEUS


@pytest.mark.parametrize("expression", expressions())
async def test_what_is_grouped_by_is_a_label_of_a_series_in_the_expression(expression: str) -> None:
    grouped = {
        label
        for labels in re.findall(r"\b(?:by|ignoring) \(([^)]*)\)", expression)
        for label in re.findall(r"\w+", labels)
    }

    there = frozenset[str]().union(*(samples_named(name) or () for name, _ in selectors(expression)))
    assert grouped <= there | OF_PROMETHEUS


@pytest.mark.parametrize("expression", expressions())
async def test_a_value_that_is_asked_for_is_one_that_is_told(expression: str, told: dict[str, Told]) -> None:
    series = [(name, labels) for metric in told.values() for name, labels in metric.samples]

    for name, matchers in selectors(expression):
        for label, operator, value in matchers:
            if operator == "=" and label not in OF_PROMETHEUS | {"status"}:
                assert [1 for other, labels in series if other == name and labels[label] == value], f"{label}={value}"


async def test_a_name_that_does_not_exist_would_be_found() -> None:
    wrong = 'sum by (route) (rate(insights_request_latency_seconds_total{job=~"x"}[5m])) / insights_pack_sise'

    assert [name for name, _ in selectors(wrong)] == ["insights_request_latency_seconds_total", "insights_pack_sise"]
    assert {samples_named(name) for name, _ in selectors(wrong)} == {None}


# Alerts


async def test_alerts_have_names_of_their_own() -> None:
    names = [rule["alert"] for rule in alerts()]

    assert len(names) == len(set(names)) >= 15


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
async def test_an_alert_says_how_bad_it_is_and_what_to_do(rule: Json) -> None:
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"[1-9]\d*[mh]", rule["for"])
    assert rule["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    assert set(rule["annotations"]) == {"summary", "description"}
    assert all(text.endswith(".") for text in rule["annotations"].values())


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
async def test_what_an_alert_advises_exists(rule: Json) -> None:
    advice = " ".join(rule["annotations"].values())

    settings = set(re.findall(r"\b[A-Z]+(?:_[A-Z0-9]+)+\b", advice))
    events = set(re.findall(r"`([a-z]+_[a-z]+)`", advice))
    code = "".join(path.read_text(encoding="utf-8") for path in (*ROOT.glob("*.py"), *ROOT.glob("*/*.py")))
    assert settings <= {name.upper() for name in Settings.model_fields}
    assert all(f'"{event}"' in code for event in events)
    assert set(re.findall(r"insights_\w+", advice)) <= set(listed())


async def test_prometheus_loads_the_alerts_and_scrapes_the_job_they_ask_for() -> None:
    read: Json = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))

    [job] = read["scrape_configs"]
    assert read["rule_files"] == ["alerts.yml"]
    assert (job["metrics_path"], job["static_configs"]) == (METRICS, [{"targets": ["localhost:8000"]}])
    jobs = {value for rule in alerts() for value in re.findall(r'job="(\w+)"', rule["expr"])}
    assert jobs == {job["job_name"]}


# The dashboard


async def test_the_dashboard_can_be_imported_with_any_prometheus() -> None:
    board = dashboard()

    variables = {variable["name"]: variable["type"] for variable in board["templating"]["list"]}
    assert variables == {"datasource": "datasource", "job": "query", "instance": "query"}
    assert (board["id"], board["uid"], board["schemaVersion"]) == (None, "insights-platform", 39)
    asked = [panel["datasource"] for panel in panels() if panel["type"] != "row"]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in asked)
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(board))) == {*variables, "__rate_interval"}


async def test_every_panel_has_an_id_a_title_and_something_to_show() -> None:
    ids, titles = [panel["id"] for panel in panels()], [panel["title"] for panel in panels()]

    assert len(set(ids)) == len(ids)
    assert len(set(titles)) == len(titles)
    for panel in panels():
        references = [target["refId"] for target in panel.get("targets", [])]
        assert panel["type"] in {"row", "stat", "timeseries"}
        assert len(set(references)) == len(references) >= (panel["type"] != "row")
        assert panel["type"] == "row" or panel["description"].endswith(".")


async def test_no_two_panels_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in panels():
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


async def test_the_dashboard_has_a_row_for_each_part_of_the_service() -> None:
    rows = [panel["title"] for panel in panels() if panel["type"] == "row"]

    assert rows == ["Now", "Traffic", "Queue and worker", "Grok", "Cost", "Quality", "Storage and process"]


async def test_whatever_is_measured_is_shown_or_warned_of() -> None:
    seen = {name for expression in expressions() for name, _ in selectors(expression.values[0])}

    unseen = {name for name in listed() if not {name, *(name + suffix for suffix in HISTOGRAM)} & seen}
    assert unseen == {
        "insights_build_info",  # names the instances
        "insights_grok_key_check",  # an outage says it louder
        "insights_process_virtual_memory_bytes",
        "insights_process_max_fds",
    }


# Whatever clients send


def draw_request(dice: random.Random) -> tuple[str, str, dict[str, str]]:
    """Any method, a path that may exist, a query and headers that say anything."""

    def word() -> str:
        return "".join(dice.choices(string.ascii_letters + string.digits + "-._~%25", k=dice.randint(1, 20)))

    stems = ["/", "/api/v1/", f"{ONE}/", f"{ONE}/{word()}/", "/docs/", "/metrics/", "/status/", f"{INSIGHTS}/"]
    known = [ONE, BULK, INSIGHTS, "/health", SUMMARY, f"{INSIGHTS}/trends", f"{ONE}/retry", "/openapi.json"]
    path = dice.choice(known) if dice.random() < 0.2 else dice.choice(stems) + word()
    method = dice.choice(
        ["GET", "GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", word().strip("%.~") or "X"]
    )
    query = "" if dice.random() < 0.5 else f"?{word()}={CANARY}{word()}"
    return method, f"{path}{query}", {"x-request-id": f"{CANARY}-{word()}"[:64], "x-api-key": CANARY + word()}


CANARY = "canary4711"


@pytest.mark.slow
async def test_ten_thousand_random_requests_leave_few_series_and_no_text_of_theirs(tmp_path: Path) -> None:
    dice = random.Random(4711)
    sent: list[str] = []
    async with running_app(tmp_path) as api:
        for _ in range(10_000):
            method, path, headers = draw_request(dice)
            sent.append(path)
            await api.request(method, path, headers=headers)
        text = (await api.get(METRICS)).text

    series = [line for line in text.splitlines() if not line.startswith("#")]
    counted = sum(float(line.rsplit(" ", 1)[1]) for line in series if line.startswith("insights_requests_total"))
    words = {word for path in sent for word in re.split(r"[/?=]", path) if len(word) > 12 and not word.isalpha()}
    assert counted == 10_000
    assert len(series) <= MOST_SERIES
    assert CANARY not in text
    assert not [word for word in words if word in text]


TEXT, AUTHOR, ADDRESS = "my zanzibar parcel is late", "zanzibar-author", "zanzibar.person@example.org"


@pytest.mark.slow
async def test_what_is_private_is_in_no_metric_no_summary_and_no_log(tmp_path: Path) -> None:
    with running_service(tmp_path, API_KEYS=KEY, LOG_LEVEL="INFO") as service, service.client() as client:
        client.headers["authorization"] = f"Bearer {KEY}"
        stored = wait_for_status(client, say_what_is_private(client), "completed")
        metrics, summary = client.get(METRICS).text, client.get(SUMMARY)
        service.stop()
        log = service.log.read_text()

    assert (stored["author"], summary.json()["queue"]["counts"]["completed"]) == (AUTHOR, 1)
    assert "conversation_completed" in log
    for place in (metrics, summary.text, log):
        assert not [secret for secret in ("zanzibar", "example.org", KEY) if secret in place]


def say_what_is_private(client: httpx2.Client) -> str:
    """In every place where a client can say something, rightly or wrongly; the id of what was accepted."""
    members: Json = {"author": AUTHOR, "external_id": ADDRESS, "raw_data": {"mail": ADDRESS}}
    accepted = post_one(client, f"{TEXT}, write to {ADDRESS}", **members)
    client.post(ONE, json={"text": TEXT, **members})  # a conflict
    client.post(ONE, json={"text": TEXT, ADDRESS: 1})  # an unknown field
    client.post(ONE, content=f'{{"text": "{TEXT}')  # no JSON
    client.post(BULK, json={"conversations": [{"text": TEXT, AUTHOR: AUTHOR}]})
    for query in (f"author={AUTHOR}", f"topic={ADDRESS}", f"cursor={TEXT}", f"{AUTHOR}={ADDRESS}"):
        client.get(f"{INSIGHTS}?{query}")
    client.get(f"{ONE}/{ADDRESS}")
    client.get(SUMMARY, headers={"authorization": "Bearer zanzibar-wrong-key"})
    return accepted
