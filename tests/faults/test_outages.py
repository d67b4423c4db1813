"""xAI down or refusing, for as long as it likes: nothing fails, hardly anything is sent in vain, all resumes."""

import time
from collections.abc import Generator

import httpx2
import pytest

from tests.fake_xai import FakeXai, FakeXaiServer, running_fake_xai
from tests.fake_xai_answers import GOOD_KEY, score_of
from tests.fake_xai_faults import always, fixture, no_faults
from tests.faults.figures import FULL, Figures
from tests.faults.invariants import find_broken
from tests.harness import Service, post_one, running_service, wait_until
from tests.nursery import Nursery

pytestmark = [pytest.mark.integration, pytest.mark.slow]

BULK = "/api/v1/conversations/bulk"
COOLDOWN_S, LONGEST_COOLDOWN_S = (10.0, 120.0) if FULL else (0.2, 120.0)
CALLS_AT_A_TIME = 10
DOWN = ("unavailable", "reset", "cf_524", "empty_200", "cloudflare_html")
REFUSALS = ("bad_key_masked", "credits_out_429", "model_missing_404", "no_key", "no_credits", "spending_402", "cf_526")
SETTINGS = {
    "CIRCUIT_BREAKER_COOLDOWN_SECONDS": f"{COOLDOWN_S:g}",
    "POLL_INTERVAL_SECONDS": "0.1",
    "ERROR_THRESHOLD": "3",
    "GROK_CALLS_PER_SECOND": "100",
    "LOG_LEVEL": "WARNING",
}


@pytest.fixture(scope="module")
def xai() -> Generator[FakeXaiServer]:
    with running_fake_xai(FakeXai(keys={GOOD_KEY})) as running:
        yield running


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery, xai: FakeXaiServer) -> Generator[Service]:
    folder = tmp_path_factory.mktemp("outages")
    with running_service(folder, nursery, **SETTINGS, **xai.environment) as running:
        yield running


@pytest.fixture
def client(service: Service) -> Generator[httpx2.Client]:
    with service.client() as opened:
        yield opened


def load(client: httpx2.Client, name: str, count: int) -> dict[str, str]:
    """Texts by id."""
    texts = [f"{name}: parcel {number} is late" for number in range(count)]
    results = client.post(BULK, json={"conversations": [{"text": text} for text in texts]}).json()["results"]
    return {result["conversation_id"]: text for result, text in zip(results, texts, strict=True)}


def open_rows(service: Service) -> int:
    [(count,)] = service.query("SELECT count(*) FROM conversations WHERE status IN ('pending', 'processing')")
    return int(count)


def spoilt_rows(service: Service) -> list[tuple[str, str | None, int]]:
    """Those that failed or were charged an attempt, which no outage may do."""
    return service.query("SELECT id, error_code, attempts FROM conversations WHERE status = 'failed' OR attempts > 0")


def assert_own_insights(service: Service, texts: dict[str, str]) -> None:
    stored = dict(service.query("SELECT conversation_id, sentiment_score FROM insights"))
    assert {one: stored.get(one) for one in texts} == {one: score_of(text) for one, text in texts.items()}


def most_probes(outage_s: float) -> int:
    """Of a breaker that waits twice as long after each."""
    probes, rest_s = 0, COOLDOWN_S
    while outage_s > 0:
        probes, outage_s, rest_s = probes + 1, outage_s - rest_s, min(2 * rest_s, LONGEST_COOLDOWN_S)
    return probes


@pytest.mark.fault(8)
def test_an_outage_fails_nothing_and_costs_only_probes(
    service: Service, client: httpx2.Client, xai: FakeXaiServer, figures: Figures
) -> None:
    outage_s = figures.times(2, 600)
    called = len(xai.journal.chats)
    xai.fake.plan = lambda number, _payload: DOWN[number % len(DOWN)]
    texts = load(client, "down", 60)
    began = time.monotonic()
    while (left_s := began + outage_s - time.monotonic()) > 0:
        time.sleep(min(left_s, outage_s / 8))
        text = f"down: {left_s} s before the end"
        texts[post_one(client, text)] = text
    during, spoilt = len(xai.journal.chats) - called, spoilt_rows(service)
    open_at_the_end = open_rows(service)

    xai.fake.plan = no_faults
    ended = time.monotonic()
    figures.count(outage_s=ended - began)
    wait_until(lambda: len(xai.journal.chats) > called + during, within_s=LONGEST_COOLDOWN_S + 60)
    figures.note_most(first_call_after_s=time.monotonic() - ended)
    wait_until(lambda: open_rows(service) == 0, within_s=LONGEST_COOLDOWN_S + 60)
    figures.note_most(recovered_s=time.monotonic() - ended)

    figures.count(calls_during_it=during, rows=len(texts), failed=len(spoilt))
    assert (spoilt, spoilt_rows(service), open_at_the_end) == ([], [], len(texts))
    assert during <= CALLS_AT_A_TIME + 3 + most_probes(figures.counts["outage_s"])
    assert_own_insights(service, texts)
    assert find_broken(service.query, acknowledged=texts) == []


@pytest.mark.fault(8)
def test_a_closed_lane_fails_nothing_and_opens_when_it_is_mended(
    service: Service, client: httpx2.Client, xai: FakeXaiServer, figures: Figures
) -> None:
    """In `make test` xAI itself tells a short wait; without one the service asks again after a minute."""
    told = {} if figures.full else {"retry_after": "1"}
    for refusal in REFUSALS[: figures.times(2, len(REFUSALS))]:
        xai.fake.plan = always(fixture(refusal, **told))
        texts = load(client, refusal, 30)
        wait_until(lambda: client.get("/ready").status_code == 503)
        details = client.get("/ready").json()["details"]
        spoilt, waiting = spoilt_rows(service), open_rows(service)

        xai.fake.plan = no_faults
        mended = time.monotonic()
        wait_until(lambda: open_rows(service) == 0, within_s=150)
        figures.note_most(recovered_s=time.monotonic() - mended)

        figures.count(refusals=1, rows=len(texts), failed=len(spoilt))
        assert "Grok cannot be used, conversations wait." in details
        assert client.get("/ready").status_code == 200
        assert (spoilt, spoilt_rows(service), waiting) == ([], [], 30), refusal
        assert_own_insights(service, texts)
        assert find_broken(service.query, acknowledged=texts) == []
