"""The benchmarks measure what they say: the load client, the figures, and the plain design they compare with."""

import asyncio
import itertools
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from benchmarks import servers
from benchmarks.figures import bucket_counts, histogram, percentile
from benchmarks.grok_bench import Report, compare
from benchmarks.grok_runs import Lane, fake_xai, share_of_rate, steady_part
from benchmarks.http_load import Address, Connection, TrivialServer, connect, drive, read_reply, request_bytes
from benchmarks.load_test import load, read_address
from benchmarks.single_posts import Round, SinglePosts, single_posts
from benchmarks.texts import conversation, conversation_text
from tests.fake_xai_journal import CHAT, Call

pytestmark = pytest.mark.integration

POST = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}"


class CountingServer(TrivialServer):
    """Counts what it answers, after a pause of its own for each."""

    answered_count = 0
    pause_s = 0.0

    def data_received(self, data: bytes) -> None:
        type(self).answered_count += 1
        asyncio.get_running_loop().call_later(self.pause_s, super().data_received, data)


class LimitedServer(TrivialServer):
    """Answers every second request with 429, to be tried again at once."""

    seen_count = 0

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - the protocol's signature
        type(self).seen_count += 1
        body = orjson.dumps({"conversation_id": f"conv_{self.seen_count}"})
        line = b"HTTP/1.1 202 Accepted" if self.seen_count % 2 == 0 else b"HTTP/1.1 429 Too Many\r\nRetry-After: 0"
        self._transport.write(b"%s\r\nContent-Length: %d\r\n\r\n%s" % (line, len(body), body))


class ClosingServer(TrivialServer):
    """Hangs up instead of answering."""

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - the protocol's signature
        self._transport.close()


async def serve(kind: type[TrivialServer]) -> tuple[asyncio.Server, Address]:
    server = await asyncio.get_running_loop().create_server(kind, "127.0.0.1", 0)
    return server, Address("127.0.0.1", server.sockets[0].getsockname()[1])


async def test_the_client_counts_just_what_the_server_answered() -> None:
    CountingServer.answered_count, CountingServer.pause_s = 0, 0.0
    server, address = await serve(CountingServer)

    async with server:
        tally = await drive(address, itertools.repeat(POST), clients=8, duration_s=0.3)

    assert tally.statuses == {202: CountingServer.answered_count}
    assert len(tally.bodies) == len(tally.latencies_s) == CountingServer.answered_count >= tally.in_time_count > 0


async def test_throughput_and_latency_agree_with_a_server_of_known_pace() -> None:
    CountingServer.answered_count, CountingServer.pause_s = 0, 0.02
    server, address = await serve(CountingServer)

    async with server:
        tally = await drive(address, itertools.repeat(POST), clients=4, duration_s=0.5)

    assert percentile(tally.latencies_s, 1) >= 0.019  # a timer may fire a little early
    assert 0 < tally.accepted_per_s <= 4 / 0.019


async def test_requests_that_run_out_end_the_run_early() -> None:
    server, address = await serve(TrivialServer)

    async with server, asyncio.timeout(5):
        tally = await drive(address, iter([POST] * 5), clients=3, duration_s=30)

    assert tally.statuses == {202: 5}


async def test_a_server_that_hangs_up_is_counted_as_lost() -> None:
    server, address = await serve(ClosingServer)

    async with server, asyncio.timeout(5):
        tally = await drive(address, itertools.repeat(POST), clients=3, duration_s=0.2)

    assert (tally.lost_count, tally.other_count, tally.statuses.total()) == (3, 3, 0)


async def test_the_load_test_comes_back_after_429_until_all_is_accepted() -> None:
    LimitedServer.seen_count = 0
    server, address = await serve(LimitedServer)

    async with server, asyncio.timeout(5):
        outcome = await load(address, count=20, concurrency=3)

    assert outcome.statuses == {202: 20, 429: 20}
    assert len(set(outcome.ids)) == 20


async def test_the_load_test_notes_every_conversation_that_was_not_accepted() -> None:
    server, address = await serve(ClosingServer)

    async with server, asyncio.timeout(5):
        outcome = await load(address, count=4, concurrency=2)

    assert len(outcome.problems) == 4


@pytest.mark.parametrize(
    ("received", "status"),
    [
        pytest.param(b"HTTP/1.1 202 Accepted\r\ncontent-le", None, id="half a head"),
        pytest.param(b"HTTP/1.1 202 Accepted\r\ncontent-length: 3\r\n\r\nab", None, id="half a body"),
        pytest.param(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\nx: y\r\n\r\nab", 202, id="a whole answer"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", 204, id="no body"),
    ],
)
def test_an_answer_is_read_when_it_is_complete(received: bytes, status: int | None) -> None:
    reply = read_reply(received)

    assert (reply and reply.status) == status


@pytest.mark.parametrize(
    ("percent", "expected"),
    [(0, 1), (50, 50), (90, 90), (99, 99), (99.5, 100), (100, 100)],
)
def test_a_percentile_is_the_nearest_rank(percent: float, expected: float) -> None:
    assert percentile([float(value) for value in range(100, 0, -1)], percent) == expected


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="needs values"):
        percentile([], 50)


def test_a_bucket_holds_what_lies_at_or_below_its_bound() -> None:
    assert bucket_counts([0.5, 1.0, 1.5, 2.0, 9.0], [1.0, 2.0]) == [2, 2, 1]


def test_a_histogram_shows_every_value_once() -> None:
    lines = histogram([0.7, 1.0, 3.0, 3.5], unit="ms")

    assert [line.split()[1] for line in lines] == ["1", "2", "4"]
    assert [line.split()[-2:] for line in lines] == [["2", "50.0%"], ["0", "0.0%"], ["2", "50.0%"]]


def test_the_conversations_of_a_run_are_all_different() -> None:
    texts = {conversation_text(number) for number in range(130_000)}

    assert len(texts) == 130_000


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://localhost:8000", Address("localhost", 8000)),
        ("https://insights.example", Address("insights.example", 443, tls=True)),
    ],
)
def test_an_address_is_read_from_a_url(url: str, address: Address) -> None:
    assert read_address(url) == address


def _rounds(plain_per_s: list[float]) -> SinglePosts:
    rows = [Round("plain", per_s, p50_ms=400, p99_ms=900, accepted_count=1, other_count=0) for per_s in plain_per_s]
    rows += [Round("service", 1200, p50_ms=40, p99_ms=100, accepted_count=1, other_count=0) for _ in plain_per_s]
    return SinglePosts(rounds=rows)


@pytest.mark.parametrize(
    ("plain_per_s", "passed"),
    [
        pytest.param([100, 110, 125], True, id="the rounds agree: their medians are compared"),
        pytest.param([40, 50, 110], True, id="they disagree, and each reaches the bar"),
        pytest.param([90, 100, 440], False, id="a disturbed plain design makes no victory"),
    ],
)
def test_medians_decide_only_where_the_rounds_agree(plain_per_s: list[float], passed: bool) -> None:  # noqa: FBT001
    assert _rounds(plain_per_s).passed is passed


async def _post(connection: Connection, address: Address, path: str, body: object) -> int:
    reply = await connection.exchange(request_bytes("POST", path, address, body=orjson.dumps(body)))
    return reply.status


async def test_the_plain_design_stores_what_it_accepts(tmp_path: Path) -> None:
    pytest.importorskip("aiosqlite", reason="the plain design needs the dependency group `bench`")

    with servers.plain_design(tmp_path) as plain:
        tally = await drive(plain.address, itertools.islice(single_posts(plain.address), 10), clients=2, duration_s=5)
        connection = await connect(plain.address)
        bulk = {"conversations": [conversation(number) for number in range(20)]}
        status = await _post(connection, plain.address, "/api/v1/conversations/bulk", bulk)
        connection.close()
        plain.kill()
        stored = plain.stored_ids()

    assert (tally.statuses, status) == ({202: 10}, 202)
    assert (len(stored), {orjson.loads(body)["conversation_id"] for body in tally.bodies} - set(stored)) == (30, set())


def _calls(*moments: float, texts_each: int = 1) -> list[Call]:
    """Calls that arrived then, each with texts of its own."""
    return [
        Call(number, at_s, at_s, CHAT, "key", None, 1, texts=[f"{number}.{place}" for place in range(texts_each)])
        for number, at_s in enumerate(moments, start=1)
    ]


@pytest.mark.parametrize(
    "moments",
    [
        pytest.param([number / 8 for number in range(100)], id="evenly"),
        pytest.param([number // 10 * 1.25 for number in range(100)], id="ten at once"),
    ],
)
def test_the_part_of_a_rate_that_is_used_is_told_whether_calls_come_in_bursts_or_not(moments: list[float]) -> None:
    assert share_of_rate(_calls(*moments), limit=10) == pytest.approx(0.8)


def test_a_rate_is_not_told_from_too_few_calls() -> None:
    with pytest.raises(RuntimeError, match="too few"):
        share_of_rate(_calls(*range(20)), limit=10)


def test_the_steady_part_has_whole_rounds_between_the_start_and_the_last_new_text() -> None:
    calls = _calls(*(number // 10 * 2.0 for number in range(67)))
    asked_again = [Call(68, 90.0, 90.0, CHAT, "key", None, 1, texts=["1.0"])]

    steady = steady_part(calls + asked_again)

    assert (steady[0].number, steady[-1].number) == (21, 61)


def _lane(name: str, *, conversations_per_s: float, usd: float, busiest_window: int = 10) -> Lane:
    return Lane(name, 1000, 1000, conversations_per_s, 5.0, busiest_window, usd, cached_share=0.5)


@pytest.mark.parametrize(
    ("packed", "missed"),
    [
        pytest.param(_lane("packed", conversations_per_s=47, usd=0.3), [], id="all is kept"),
        pytest.param(_lane("packed", conversations_per_s=44, usd=0.3), ["conversations/s"], id="too slow"),
        pytest.param(_lane("packed", conversations_per_s=47, usd=0.4), ["USD per 1,000 conversations"], id="too dear"),
        pytest.param(
            _lane("packed", conversations_per_s=47, usd=0.3, busiest_window=11),
            ["calls in the busiest 1 s"],
            id="above the limit",
        ),
    ],
)
def test_packs_are_held_to_what_was_promised(packed: Lane, missed: list[str]) -> None:
    plain = _lane("plain", conversations_per_s=5, usd=1.4)

    findings = compare(packed, packed, plain)

    assert [found.measured for found in findings if found.good is False] == missed


def test_a_part_that_is_missing_is_no_success() -> None:
    assert not Report("a machine").passed


def test_the_plain_way_to_ask_grok_analyzes_all_in_one_call_each(tmp_path: Path) -> None:
    with fake_xai(tmp_path, latency_s=0) as xai:
        program = str(servers.ROOT / "benchmarks" / "plain_grok.py")
        work = ["--db", str(tmp_path / "plain.db"), "--conversations", "12", "--calls-per-s", "1000"]
        plain = subprocess.run([sys.executable, program, "--url", xai.url, *work], capture_output=True, check=True)
        calls = xai.journal().chats

    assert orjson.loads(plain.stdout) == {"done": 12}
    assert [(len(call.texts), call.status, call.valid) for call in calls] == [(1, 200, True)] * 12
