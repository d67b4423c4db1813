"""What the service finds out about its key and its model at the start, and that nothing of it is ever fatal."""

from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2
import pytest

from account import KeyCheck
from circuit_breaker import State
from errors import DatabaseBusy
from grok_client import GrokClient, PlannedCall
from tests.clients import NotedAccount, Terms, make_grok_client, open_http
from tests.fake_xai import FakeXaiServer, running_fake_xai
from tests.fake_xai_answers import GOOD_KEY, MODELS, language_models_body
from tests.fake_xai_faults import Choice, fixture, html_200, say
from tests.harness import HandClock
from xai import PriceList

pytestmark = pytest.mark.integration

PRICES = PriceList.load()


@dataclass
class Checked:
    """A check that has been run, and all that it could have touched."""

    check: KeyCheck
    client: GrokClient
    clock: HandClock = field(default_factory=HandClock)
    account: NotedAccount = field(default_factory=NotedAccount)


@pytest.fixture
def server() -> Generator[FakeXaiServer, None, None]:
    with running_fake_xai() as running:
        running.fake.keys = {GOOD_KEY}
        yield running


@pytest.fixture
async def http(server: FakeXaiServer) -> AsyncGenerator[httpx2.AsyncClient, None]:
    async with open_http(url=server.url) as opened:
        yield opened


async def run_check(http: httpx2.AsyncClient, *, model: str = "grok-4.3", prices: PriceList = PRICES) -> Checked:
    account = NotedAccount()
    clock = HandClock()
    client = make_grok_client(http, clock, terms=Terms(model=model, deadline_s=0.5), account=account)
    check = KeyCheck(client, prices, model=model, needed=True)
    await check.run()
    return Checked(check, client, clock, account)


async def test_a_good_key_and_a_known_model_are_good(server: FakeXaiServer, http: httpx2.AsyncClient) -> None:
    checked = await run_check(http)

    assert (checked.check.verdict, checked.check.details) == ("ok", "Key and model are good.")
    assert server.journal.paths == ["/v1/api-key", "/v1/language-models"]


async def test_the_check_is_free_and_counts_among_the_calls(http: httpx2.AsyncClient) -> None:
    account = (await run_check(http)).account

    assert [call.conversations for call in account.planned] == [0, 0]
    assert account.costs == ["free", "free"]


async def test_a_models_other_name_is_as_good(http: httpx2.AsyncClient) -> None:
    assert (await run_check(http, model="grok-4.3-latest")).check.verdict == "ok"


async def test_a_model_that_the_key_does_not_have_is_told_of_and_calls_go_on(http: httpx2.AsyncClient) -> None:
    checked = await run_check(http, model="grok-3")

    assert checked.check.verdict == "model_unknown"
    assert "grok-3" in checked.check.details
    assert checked.client.wait_s() == 0


@pytest.mark.parametrize(
    "key", [pytest.param("xai-wrong-0123456789", id="a wrong key"), pytest.param("", id="no key at all")]
)
async def test_a_key_that_xai_does_not_take_closes_the_lane(server: FakeXaiServer, key: str) -> None:
    async with open_http(url=server.url, key=key) as http:
        checked = await run_check(http)

    assert checked.check.verdict == "key_refused"
    assert checked.client.lane.outage is not None
    assert checked.client.wait_s() == 60


@pytest.mark.parametrize("member", ["team_blocked", "api_key_blocked", "api_key_disabled"])
async def test_a_blocked_key_is_refused_before_a_call_is_wasted(
    server: FakeXaiServer, http: httpx2.AsyncClient, member: str
) -> None:
    server.fake.account = {member: True}

    checked = await run_check(http)

    assert checked.check.verdict == "key_refused"
    assert checked.client.wait_s() == 60


async def test_missing_credits_are_told_as_a_refused_key(server: FakeXaiServer, http: httpx2.AsyncClient) -> None:
    server.fake.check_script = [fixture("no_credits")]

    checked = await run_check(http)

    assert (checked.check.verdict, checked.client.wait_s()) == ("key_refused", 60)


async def test_a_lane_that_the_check_closed_opens_when_a_call_succeeds(server: FakeXaiServer) -> None:
    clock = HandClock()
    async with open_http(url=server.url) as http:
        client = make_grok_client(http, clock)
        server.fake.account = {"api_key_blocked": True}
        await KeyCheck(client, PRICES, model="grok-4.3", needed=True).run()

        clock.turn(61)
        await client.analyze(["a text"])

    assert client.lane.outage is None


@pytest.mark.parametrize(
    ("changed", "differs"),
    [
        pytest.param({}, False, id="the same"),
        pytest.param({"input_usd": 1.5}, True, id="a dearer prompt"),
        pytest.param({"output_usd": 2.0}, True, id="cheaper words"),
    ],
)
async def test_prices_that_are_not_those_of_the_list_are_told_of(
    server: FakeXaiServer, http: httpx2.AsyncClient, changed: dict[str, Any], *, differs: bool
) -> None:
    server.fake.models = {**MODELS, "grok-4.3": replace(MODELS["grok-4.3"], **changed)}

    checked = await run_check(http)

    assert checked.check.verdict == "ok"
    assert ("prices differ" in checked.check.details) is differs


GARBAGE: list[Choice] = [
    say("", status=200),
    html_200,
    say("[]"),
    say("null"),
    say('"ok"'),
    say({"api_key_blocked": "perhaps"}),
    say("x", status=302, location="http://127.0.0.1:9/"),
    fixture("unavailable"),
    fixture("rate_limit"),
    fixture("cloudflare_html"),
    "reset",
    "cut",
    "gzip_bomb",
    "delay",
]


@pytest.mark.parametrize("answer", GARBAGE, ids=str)
async def test_an_answer_about_the_key_that_says_nothing_is_no_verdict(
    server: FakeXaiServer, http: httpx2.AsyncClient, answer: Choice
) -> None:
    server.fake.check_script = [answer]

    checked = await run_check(http)

    assert (checked.check.verdict, checked.client.lane.breaker_state) == ("unreachable", State.CLOSED)


@pytest.mark.parametrize(
    "answer",
    [
        say("[]"),
        say({}),
        say({"models": [{"name": "a model without an id"}]}),
        say({"models": [{"id": "grok-4.3", "prompt_text_token_price": -1}]}),
        say({"models": [{"id": "grok-4.3", "prompt_text_token_price": "cheap"}]}),
        say({"models": None}),
        fixture("internal"),
    ],
    ids=str,
)
async def test_an_answer_about_models_that_says_nothing_is_no_verdict(
    server: FakeXaiServer, http: httpx2.AsyncClient, answer: Choice
) -> None:
    server.fake.check_script = [None, answer]

    assert (await run_check(http)).check.verdict == "unreachable"


async def test_models_without_prices_agree_with_any_list(server: FakeXaiServer, http: httpx2.AsyncClient) -> None:
    [model] = language_models_body({"grok-4.3": MODELS["grok-4.3"]})["models"]
    bare = {name: value for name, value in model.items() if "price" not in name}
    server.fake.check_script = [None, say({"models": [bare]})]

    assert (await run_check(http)).check.details == "Key and model are good."


async def test_a_server_that_is_not_there_is_no_verdict(server: FakeXaiServer) -> None:
    with running_fake_xai() as gone:
        url = gone.url
    async with open_http(url=url) as http:
        checked = await run_check(http)

    assert checked.check.verdict == "unreachable"
    assert checked.client.wait_s() == 0


class LockedAccount(NotedAccount):
    async def reserve(self, call: PlannedCall) -> int:  # noqa: ARG002 - as the protocol has it
        raise DatabaseBusy("locked")


async def test_a_database_that_is_locked_is_no_verdict(http: httpx2.AsyncClient) -> None:
    client = make_grok_client(http, HandClock(), account=LockedAccount())
    check = KeyCheck(client, PRICES, model="grok-4.3", needed=True)

    await check.run()

    assert check.verdict == "unreachable"


async def test_the_check_does_not_take_the_place_of_a_probe(server: FakeXaiServer, http: httpx2.AsyncClient) -> None:
    clock = HandClock()
    client = make_grok_client(http, clock, terms=Terms(threshold=1, deadline_s=0.5))
    admission = await client.lane.enter()
    admission.failed()
    admission.slot.mark_sent()
    clock.turn(10.01)
    await KeyCheck(client, PRICES, model="grok-4.3", needed=True).run()

    probe = await client.lane.enter()

    assert probe is not None
    assert client.lane.breaker_state is State.HALF_OPEN


async def test_the_offline_analyzer_is_not_checked(server: FakeXaiServer, http: httpx2.AsyncClient) -> None:
    client = make_grok_client(http, HandClock())
    check = KeyCheck(client, PRICES, model="local", needed=False)

    await check.run()

    assert check.verdict == "not_needed"
    assert server.journal.calls == []


async def test_nothing_is_known_before_the_check_has_been_run(http: httpx2.AsyncClient) -> None:
    check = KeyCheck(make_grok_client(http, HandClock()), PRICES, model="grok-4.3", needed=True)

    assert check.verdict == "unchecked"


async def test_an_outage_that_has_passed_is_found_out_without_any_conversation(
    server: FakeXaiServer, http: httpx2.AsyncClient
) -> None:
    server.fake.check_script = [fixture("no_credits")]
    checked = await run_check(http)
    red = checked.client.lane.outage

    await KeyCheck(checked.client, PRICES, model="grok-4.3", needed=True).run()  # the lane is shut: it cannot ask yet
    still_red = checked.client.lane.outage
    checked.clock.turn(61)
    await checked.check.run()

    assert red is still_red is not None
    assert (checked.client.lane.outage, checked.check.verdict) == (None, "ok")


async def test_a_call_that_succeeds_says_more_than_the_check_did(
    server: FakeXaiServer, http: httpx2.AsyncClient
) -> None:
    server.fake.check_script = [fixture("unavailable")]
    checked = await run_check(http)
    before = checked.check.verdict

    await checked.client.analyze(["a text"])

    assert (before, checked.check.verdict) == ("unreachable", "ok")
