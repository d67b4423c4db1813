"""Every answer that xAI is known to give, over a socket: its class, what the client does of it, and what it keeps."""

import dataclasses
from collections.abc import AsyncGenerator, Generator

import httpx2
import pytest

from circuit_breaker import State
from errors import (
    GrokAtCapacity,
    GrokAuth,
    GrokBilling,
    GrokConfig,
    GrokError,
    GrokRefused,
    GrokReplyInvalid,
    GrokRequestRejected,
    GrokThrottled,
    GrokTooLarge,
    GrokUnavailable,
)
from grok_client import Cost, GrokClient
from tests.clients import NotedAccount, Terms, make_grok_client, open_http
from tests.fake_xai import FakeXaiServer, running_fake_xai
from tests.fake_xai_answers import GOOD_KEY, completion
from tests.fake_xai_faults import fixture, load_fixtures, say
from tests.harness import HandClock

pytestmark = pytest.mark.integration

FIXTURES = load_fixtures()
OPAQUE_KEY = "a-key-like-no-other"  # not in the form by which keys are known
IDS = ("00000000-0000-0000-0000-000000000000", "11111111-1111-1111-1111-111111111111", "xa***VY", "team-1 ")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a call that was answered so three times in a row comes to."""

    kind: type[GrokError] | None
    calls: int = 1
    wait_s: float = 0
    needs_mending: bool = False
    breaker: State = State.CLOSED  # after three failures it opens here
    calls_per_s: int = 10


AFTER = {
    "auth": Outcome(GrokAuth, wait_s=60, needs_mending=True),
    "billing": Outcome(GrokBilling, wait_s=60, needs_mending=True),
    "config": Outcome(GrokConfig, wait_s=60, needs_mending=True),
    "fatal_config": Outcome(GrokConfig, wait_s=60, needs_mending=True),
    "content_filter_bisect": Outcome(GrokRefused),
    "split_pack": Outcome(GrokTooLarge),
    "fatal_request": Outcome(GrokRequestRejected),
    "rate_limit": Outcome(GrokThrottled, wait_s=2, calls_per_s=5),
    "capacity": Outcome(GrokAtCapacity, calls=3, wait_s=10, breaker=State.OPEN),
    "transient": Outcome(GrokUnavailable, calls=3, wait_s=10, breaker=State.OPEN),
    "drop_param_retry": Outcome(None, calls=2),
}
TOLD = {"rate_limit_resets": 120.0}  # three minutes, of which we keep two


@pytest.fixture
def server() -> Generator[FakeXaiServer, None, None]:
    with running_fake_xai() as running:
        yield running


@pytest.fixture
async def http(server: FakeXaiServer) -> AsyncGenerator[httpx2.AsyncClient, None]:
    async with open_http(url=server.url) as opened:
        yield opened


@pytest.fixture
def account() -> NotedAccount:
    return NotedAccount()


@pytest.fixture
def client(http: httpx2.AsyncClient, clock: HandClock, account: NotedAccount) -> GrokClient:
    return make_grok_client(http, clock, terms=Terms(calls_per_s=10, threshold=3), account=account)


async def analyze(client: GrokClient) -> GrokError | None:
    try:
        await client.analyze(["a text"])
    except GrokError as error:
        return error
    return None


@pytest.mark.parametrize("name", FIXTURES)
async def test_a_known_answer_is_acted_upon_as_its_class_says(
    server: FakeXaiServer, client: GrokClient, name: str
) -> None:
    expected = AFTER[FIXTURES[name]["client_class"]]
    refuses_effort = expected.kind is None
    server.fake.script = [fixture(name)] * (1 if refuses_effort else 3)

    error = await analyze(client)

    lane = client.lane
    assert dataclasses.replace(expected, wait_s=TOLD.get(name, expected.wait_s)) == Outcome(
        kind=None if error is None else type(error),
        calls=len(server.journal.chats),
        wait_s=round(client.wait_s(), 6),  # the clock was turned by rests of any length
        needs_mending=lane.outage is not None,
        breaker=lane.breaker_state,
        calls_per_s=lane.window.current,
    )


@pytest.mark.parametrize("name", FIXTURES)
async def test_a_call_that_is_answered_with_an_error_costs_nothing(
    server: FakeXaiServer, client: GrokClient, account: NotedAccount, name: str
) -> None:
    server.fake.script = [fixture(name)] * 3

    await analyze(client)

    refused: list[Cost | None] = ["free"] * len(server.journal.chats)
    assert account.costs == refused


@pytest.mark.parametrize("name", FIXTURES)
async def test_no_id_of_a_team_or_a_key_is_kept(server: FakeXaiServer, client: GrokClient, name: str) -> None:
    server.fake.script = [fixture(name)] * 3

    error = await analyze(client)

    kept = f"{error and error.details} {error and error.raw_answer}"
    assert [secret for secret in IDS if secret in kept] == []


@pytest.mark.parametrize("name", ["effort_unsupported", "effort_value"])
async def test_an_effort_that_is_refused_is_never_sent_again(
    server: FakeXaiServer, client: GrokClient, name: str
) -> None:
    server.fake.script = [fixture(name)]

    for _ in range(3):
        await analyze(client)

    assert [call.effort for call in server.journal.chats] == ["none", None, None, None]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        pytest.param(400, {"error": f"Incorrect API key provided: {OPAQUE_KEY}."}, id="in a sentence of xAI's"),
        pytest.param(502, f"<html>authorization: Bearer {OPAQUE_KEY}</html>", id="in a page of a proxy's"),
        pytest.param(418, OPAQUE_KEY * 300, id="again and again"),
        pytest.param(200, completion(f"your key is {OPAQUE_KEY}"), id="in what the model wrote"),
        pytest.param(200, {"choices": [], "key": OPAQUE_KEY}, id="in what is no completion"),
    ],
)
async def test_our_own_key_is_not_kept_when_it_comes_back(
    server: FakeXaiServer, clock: HandClock, status: int, said: dict[str, object] | str
) -> None:
    server.fake.script = [say(said, status=status)] * 3

    async with open_http(url=server.url, key=OPAQUE_KEY) as http:
        error = await analyze(make_grok_client(http, clock))

    assert error is not None
    assert OPAQUE_KEY not in error.details + (error.raw_answer or "")


async def test_a_wrong_key_is_told_from_a_bad_request_by_its_words(server: FakeXaiServer, clock: HandClock) -> None:
    server.fake.keys = {GOOD_KEY}

    async with open_http(url=server.url, key="xai-wrong-0123456789") as http:
        error = await analyze(make_grok_client(http, clock))

    assert server.journal.chats[0].status == 400
    assert isinstance(error, GrokAuth)


@pytest.mark.parametrize(
    ("fault", "kind", "calls"),
    [
        ("reset", GrokUnavailable, 3),
        ("cut", GrokUnavailable, 3),
        ("empty_200", GrokUnavailable, 3),
        ("html_200", GrokUnavailable, 3),
        ("gzip_bomb", GrokUnavailable, 3),
        ("finish_length", GrokTooLarge, 1),
        ("refusal", GrokRefused, 1),
        ("null_content", GrokRefused, 1),
        ("truncated_json", GrokReplyInvalid, 1),
    ],
)
async def test_a_200_that_holds_no_analysis_has_its_class(
    server: FakeXaiServer, client: GrokClient, fault: str, kind: type[GrokError], calls: int
) -> None:
    server.fake.script = [fault] * 3

    error = await analyze(client)

    assert (type(error), len(server.journal.chats)) == (kind, calls)


async def test_a_server_that_is_not_there_is_an_outage_and_costs_nothing(
    clock: HandClock, account: NotedAccount
) -> None:
    with running_fake_xai() as gone:
        url = gone.url
    async with open_http(url=url) as http:
        error = await analyze(make_grok_client(http, clock, account=account))

    assert type(error) is GrokUnavailable
    assert account.costs == []  # without a connection nothing is reserved


@pytest.mark.parametrize("fault", ["reset", "cut", "empty_200", "gzip_bomb"])
async def test_a_call_whose_answer_is_lost_costs_all_that_was_reserved(
    server: FakeXaiServer, client: GrokClient, account: NotedAccount, fault: str
) -> None:
    server.fake.script = [fault]

    await analyze(client)

    assert account.costs[0] == "unknown"
