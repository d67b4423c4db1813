"""What the operator sees over HTTP: the summary, the metrics, and whether the service is ready."""

import asyncio
import itertools
import random
import string
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from errors import DatabaseBusy, GrokBudgetReached, GrokOutage, GrokThrottled, GrokUnavailable
from tests.fake_xai import FakeXaiServer, running_fake_xai
from tests.fake_xai_answers import GOOD_KEY
from tests.fake_xai_faults import always, no_faults
from tests.harness import Json, running_app
from tests.test_http_intake import BULK, ONE, assert_problem
from tests.test_http_operations import INSIGHTS, KEY, failing_with

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

SUMMARY, METRICS = "/status/summary", "/metrics"
COMPLAINTS = [f"my parcel number {number} is late again" for number in range(7)]
CANARY = "canary-4711"


async def until(holds: Callable[[], Any], *, within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not await holds():  # noqa: ASYNC110 - what is waited for is on the other side of HTTP
            await asyncio.sleep(0.02)


async def load(api: httpx2.AsyncClient, *texts: str) -> None:
    answer = await api.post(BULK, json={"conversations": [{"text": text} for text in texts]})
    assert answer.status_code == 202


async def summary_of(api: httpx2.AsyncClient) -> Json:
    answer = await api.get(SUMMARY)
    assert answer.status_code == 200, answer.text
    told: Json = answer.json()
    return told


async def is_done(api: httpx2.AsyncClient) -> bool:
    counts = (await summary_of(api))["queue"]["counts"]
    return bool(counts["pending"] + counts["processing"] == 0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[httpx2.AsyncClient]:
    """A service in mock mode that has read a little of everything."""
    async with running_app(tmp_path_factory.mktemp("status")) as client:
        await load(client, *COMPLAINTS, COMPLAINTS[0], "https://t.co/x", "@support")
        await until(lambda: is_done(client))
        yield client


@pytest.fixture(scope="module")
def xai() -> Generator[FakeXaiServer]:
    with running_fake_xai() as running:
        yield running


@pytest.fixture(autouse=True)
def well(xai: FakeXaiServer) -> Generator[None]:
    """Every test begins and ends with a healthy xAI."""
    yield
    xai.fake.plan = no_faults
    xai.fake.account = {}
    xai.fake.check_script.clear()


def real(xai: FakeXaiServer, **values: object) -> dict[str, Any]:
    """Settings under which the fake is taken for xAI."""
    return {"grok_mode": "real", "grok_key": GOOD_KEY, "grok_base_url": xai.url, **values}


# The summary


async def test_in_mock_mode_the_summary_tells_what_was_done_for_nothing(api: httpx2.AsyncClient) -> None:
    told = await summary_of(api)

    assert told["queue"]["counts"] == {"pending": 0, "processing": 0, "completed": 8, "failed": 0, "skipped": 2}
    assert (told["grok"]["mode"], told["grok"]["model"]) == ("mock", "local-linear-1")
    assert told["grok"]["key_check"]["verdict"] == "not_needed"
    assert (told["usage"]["total"]["calls"], told["usage"]["total"]["cost_usd"]) == (0, 0)
    assert (told["savings"]["cached"]["count"], told["savings"]["skip_reasons"]) == (
        1,
        {"link_only": 1, "mention_only": 1},
    )


async def test_the_summary_is_what_the_document_says(api: httpx2.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()

    schema = document["paths"][SUMMARY]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(await summary_of(api), {**schema, "components": document["components"]})


async def test_with_keys_the_summary_asks_for_one_and_metrics_do_not(tmp_path: Path) -> None:
    async with running_app(tmp_path, api_keys=KEY) as own:
        without, with_key = await own.get(SUMMARY), await own.get(SUMMARY, headers={"x-api-key": KEY})
        metrics = await own.get(METRICS)

    assert_problem(without, 401, "unauthorized")
    assert (with_key.status_code, metrics.status_code) == (200, 200)


async def test_the_summary_is_limited_together_with_the_api(tmp_path: Path) -> None:
    async with running_app(tmp_path, rate_limit_requests=3, rate_limit_window_seconds=60) as own:
        answers = [await own.get(path) for path in (SUMMARY, INSIGHTS, SUMMARY, SUMMARY, METRICS)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 200]


async def test_a_database_that_refuses_has_no_summary_but_metrics(tmp_path: Path) -> None:
    async with running_app(tmp_path, change_state=failing_with(DatabaseBusy("locked"), tmp_path)) as own:
        summary, metrics = await own.get(SUMMARY), await own.get(METRICS)

    assert_problem(summary, 503, "database_busy")
    assert metrics.status_code == 200
    assert "\ninsights_database_up 0.0\n" in metrics.text
    assert "insights_processing_queue_depth" not in metrics.text


@dataclass
class SilentDatabase:
    """One that never answers, and is asked nothing else by `/metrics`."""

    dialect = "postgresql"
    file = None

    async def read(self, _unit: Callable[..., Any]) -> Any:
        await asyncio.Event().wait()


@pytest.mark.slow
async def test_a_database_that_never_answers_does_not_hold_up_metrics(tmp_path: Path) -> None:
    async with running_app(tmp_path, change_state=lambda state: {**state, "database": SilentDatabase()}) as own:
        metrics = await own.get(METRICS)

    assert metrics.status_code == 200
    assert "\ninsights_database_up 0.0\n" in metrics.text


async def test_the_summary_tells_what_calls_have_cost(tmp_path: Path, xai: FakeXaiServer) -> None:
    before = len(xai.journal.chats)
    async with running_app(tmp_path, **real(xai, grok_pack_size=5, canary_share=0, prefilter_audit=0)) as own:
        await load(own, *COMPLAINTS, COMPLAINTS[0], "thank you so much", "https://t.co/x")
        await until(lambda: is_done(own))
        told = await summary_of(own)

    calls = xai.journal.chats[before:]
    spent = told["usage"]["today"]
    assert (spent["calls"], spent["conversations"], spent["unreported_calls"]) == (len(calls), 7, 0)
    assert spent["cost_usd"] == pytest.approx(sum(call.cost_ticks for call in calls) / 10**10)
    assert spent["uncached_tokens"] + spent["cached_tokens"] == sum(call.prompt_tokens for call in calls)
    saved = {kind: told["savings"][kind]["count"] for kind in ("cached", "skipped", "little_to_read", "cascade")}
    assert saved == {"cached": 1, "skipped": 1, "little_to_read": 1, "cascade": 0}
    usd = pytest.approx(3 * spent["cost_usd"] / 7, abs=1e-6)
    assert told["savings"]["total"] == {"count": 3, "of": 10, "share": 0.3, "estimated_usd": usd}


async def test_when_the_budget_is_spent_rows_wait_and_the_service_stays_ready(
    tmp_path: Path, xai: FakeXaiServer
) -> None:
    before = len(xai.journal.chats)
    tiny = real(xai, grok_daily_budget_usd=0.02, grok_pack_size=1, grok_max_concurrency=1, canary_share=0)
    async with running_app(tmp_path, **tiny) as own:
        await load(own, *(f"my parcel number {number} is late" for number in range(60)))
        await until(lambda: budget_is_reached(own))
        told, ready, health = await summary_of(own), await own.get("/ready"), await own.get("/health")
        found = await samples_of(own)

    counts, budget = told["queue"]["counts"], told["budget"]
    spent_ticks = sum(call.cost_ticks for call in xai.journal.chats[before:])
    assert counts["completed"] + counts["pending"] == 60
    assert 0 < counts["completed"] == len(xai.journal.chats) - before < 60
    assert budget["spent_usd"] == pytest.approx(spent_ticks / 10**10)
    assert 0 < budget["spent_usd"] <= 0.02
    assert budget["resumes_at"].endswith("T00:00:00Z")
    assert found["insights_budget_spent_usd"][()] == pytest.approx(budget["spent_usd"])
    assert found["insights_budget_limit_usd"][()] == 0.02
    assert found["insights_budget_wait_seconds"][()] > 0
    assert (ready.status_code, health.json()["status"], told["grok"]["outage"]) == (200, "ok", None)


async def budget_is_reached(api: httpx2.AsyncClient) -> bool:
    told = await summary_of(api)
    counts = told["queue"]["counts"]
    return told["budget"]["resumes_at"] is not None and counts["processing"] == 0


# Ready


async def test_ready_tells_what_xai_said_of_the_key(tmp_path: Path, xai: FakeXaiServer) -> None:
    async with running_app(tmp_path, **real(xai)) as own:
        await until(lambda: has_verdict(own, "ok"))
        answer = await own.get("/ready")

    assert (answer.status_code, answer.json()["details"]) == (200, "Key and model are good.")


async def has_verdict(api: httpx2.AsyncClient, verdict: str) -> bool:
    return bool((await summary_of(api))["grok"]["key_check"]["verdict"] == verdict)


async def test_a_key_that_is_blocked_turns_ready_red_and_says_why(tmp_path: Path, xai: FakeXaiServer) -> None:
    xai.fake.account = {"api_key_blocked": True}
    async with running_app(tmp_path, **real(xai)) as own:
        await until(lambda: has_verdict(own, "key_refused"))
        ready, health, told = await own.get("/ready"), await own.get("/health"), await summary_of(own)

    assert_problem(ready, 503, "overloaded")
    assert "blocked" in ready.json()["details"]
    assert (health.json()["status"], told["grok"]["outage"]["code"]) == ("degraded", "grok_auth")


async def test_a_model_that_is_not_listed_is_told_and_no_obstacle(tmp_path: Path, xai: FakeXaiServer) -> None:
    async with running_app(tmp_path, **real(xai, grok_model="grok-3")) as own:
        await until(lambda: has_verdict(own, "model_unknown"))
        ready = await own.get("/ready")

    assert (ready.status_code, ready.json()["grok"]) == (200, "model_unknown")
    assert ready.json()["details"].startswith("grok-3 is not among this key's models")


async def test_an_xai_that_cannot_be_asked_is_told_and_no_obstacle(tmp_path: Path, xai: FakeXaiServer) -> None:
    xai.fake.check_script = ["cloudflare_html"]
    async with running_app(tmp_path, **real(xai)) as own:
        await until(lambda: has_verdict(own, "unreachable"))
        ready = await own.get("/ready")

    assert (ready.status_code, ready.json()["grok"]) == (200, "unreachable")


async def test_an_outage_of_calls_turns_ready_red_until_one_succeeds(tmp_path: Path, xai: FakeXaiServer) -> None:
    xai.fake.plan = always("bad_key_masked")
    async with running_app(tmp_path, **real(xai)) as own:
        await until(lambda: has_verdict(own, "ok"))
        await load(own, COMPLAINTS[0])
        await until(lambda: is_red(own))
        told, found = await summary_of(own), await samples_of(own)

    assert told["grok"]["outage"]["code"] == "grok_auth"
    assert told["queue"]["counts"]["failed"] == 0
    assert holding(found["insights_grok_outage"]) == ["grok_auth"]
    assert found["insights_grok_wait_seconds"][()] > 0


async def is_red(api: httpx2.AsyncClient) -> bool:
    return (await api.get("/ready")).status_code == 503


@dataclass
class OldSchema:
    """A database whose tables are not those of this version."""

    async def schema_is_current(self) -> bool:
        return False


async def test_with_the_schema_of_another_version_it_is_not_ready(tmp_path: Path) -> None:
    async with running_app(tmp_path, change_state=lambda state: {**state, "database": OldSchema()}) as own:
        answer = await own.get("/ready")

    assert_problem(answer, 503, "overloaded")
    assert "schema" in answer.json()["details"]


# Metrics


async def samples_of(api: httpx2.AsyncClient) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """The values of each metric by its labels, as Prometheus reads them."""
    answer = await api.get(METRICS)
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


async def test_prometheus_reads_what_was_done(api: httpx2.AsyncClient) -> None:
    found = await samples_of(api)

    finished = found["insights_conversations_finished_total"]
    assert {dict(labels)["status"]: count for labels, count in finished.items()} == {
        "completed": 8, "skipped": 2, "failed": 0
    }  # fmt: skip
    assert found["insights_processing_queue_depth"] == {(): 0}
    assert found["insights_analysis_cache_hits_total"] == {(): 1}
    assert found["insights_grok_calls_total"][()] >= 1
    assert (("method", "POST"), ("route", BULK), ("status", "202")) in found["insights_requests_total"]


async def test_prometheus_reads_what_the_summary_tells(api: httpx2.AsyncClient) -> None:
    found, told = await samples_of(api), await summary_of(api)

    by_status = {dict(labels)["status"]: count for labels, count in found["insights_conversations"].items()}
    assert by_status == told["queue"]["counts"]
    assert holding(found["insights_breaker_state"]) == [told["grok"]["breaker"]]
    assert holding(found["insights_grok_key_check"]) == [told["grok"]["key_check"]["verdict"]]
    assert found["insights_pack_size"][()] == told["grok"]["pack_size"]
    assert found["insights_tally_total"][(("tally", "cached"),)] == told["savings"]["cached"]["count"]


async def test_prometheus_reads_how_commits_and_the_worker_do(api: httpx2.AsyncClient) -> None:
    found = await samples_of(api)

    commits, units = (found[f"insights_database_commit_units_{what}"][()] for what in ("count", "sum"))
    assert 0 < commits <= units
    assert found["insights_database_commit_seconds_count"][()] == commits
    assert found["insights_worker_running"][()] == found["insights_database_up"][()] == 1
    assert found["insights_worker_last_tick_timestamp_seconds"][()] > 1_700_000_000
    assert found["insights_database_bytes"][()] > 0


async def test_every_outage_that_somebody_has_to_mend_has_its_series(api: httpx2.AsyncClient) -> None:
    found = await samples_of(api)

    passing = (GrokUnavailable, GrokThrottled, GrokBudgetReached)  # mended by waiting
    codes = {kind.code for kind in GrokOutage.__subclasses__() if not issubclass(kind, passing)}
    assert {dict(labels)["error"] for labels in found["insights_grok_outage"]} == codes


def holding(samples: dict[tuple[tuple[str, str], ...], float]) -> list[str]:
    """The words of the one label whose value is 1."""
    return [word for ((_, word),), value in samples.items() if value == 1]


async def test_prometheus_reads_what_calls_have_cost(tmp_path: Path, xai: FakeXaiServer) -> None:
    async with running_app(tmp_path, **real(xai, canary_share=0)) as own:
        await load(own, *COMPLAINTS)
        await until(lambda: is_done(own))
        found, told = await samples_of(own), await summary_of(own)

    assert found["insights_estimated_cost_usd_total"][()] == pytest.approx(told["usage"]["total"]["cost_usd"])
    kinds = {dict(labels)["kind"]: value for labels, value in found["insights_estimated_tokens_total"].items()}
    assert kinds == {kind: told["usage"]["total"][f"{kind}_tokens"] for kind in kinds}
    assert set(kinds) == {"uncached", "cached", "output", "reasoning"}


STEMS = ["/", "/api/v1/", f"{ONE}/", f"{ONE}/{CANARY}/", "/docs/", "/metrics/", "/status/"]
METHODS = ["GET", "POST", "PUT", "BREW"]


def draw_word(dice: random.Random) -> str:
    return "".join(dice.choices(string.ascii_letters, k=12))


async def test_strange_paths_and_methods_do_not_become_labels(api: httpx2.AsyncClient) -> None:
    dice = random.Random(7)
    for method, stem in [*itertools.product(METHODS, STEMS), ("GET", METRICS)]:
        await api.request(method, f"{stem}once" if stem.endswith("/") else stem)
    before = await samples_of(api)

    for _ in range(200):
        method = dice.choice([*METHODS, draw_word(dice).upper()])
        await api.request(method, f"{dice.choice(STEMS)}{draw_word(dice)}")
    text = (await api.get(METRICS)).text

    grown = {name: set(labels) - set(before[name]) for name, labels in (await samples_of(api)).items()}
    assert {name for name, labels in grown.items() if labels} == set()
    assert CANARY not in text
    assert not [line for line in text.splitlines() if "conv_" in line]
