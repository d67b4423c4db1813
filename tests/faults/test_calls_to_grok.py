"""Calls to xAI over sockets: none within a told wait, each ends at its deadline, cancelled ones leave nothing."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from errors import GrokRefused, GrokThrottled, GrokUnavailable
from grok_client import GrokClient
from tests.fake_xai import FakeXai, FakeXaiServer, running_fake_xai
from tests.fake_xai_answers import Answer, Draft
from tests.fake_xai_faults import FAULTS, Choice, Fault, always, delay, drip, fixture, no_faults, say
from tests.faults.figures import Figures
from tests.test_throttle import calls_within_waits, is_good, note_waits, real_client

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CALLERS = 3
SWIFT = {"error_threshold": 1, "circuit_breaker_cooldown_seconds": 0.1}  # no call is tried again inside the client
TOUGH = {"error_threshold": 1000, "circuit_breaker_cooldown_seconds": 0.1, "grok_calls_per_second": 100}
TOO_MANY = {"error": "Too many requests"}
GIVEN_UP_AFTER_S = 60.0  # by the test, when a call does not end by itself


def dated(draft: Draft) -> Answer:
    """A date has whole seconds: two from now is told as one or two."""
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    return say(TOO_MANY, status=429, retry_after=moment)(draft)


# What a 429 looks like, and the least that it asks to wait, in seconds.
TOLD: dict[str, tuple[Fault, float]] = {
    "digits": (fixture("rate_limit", retry_after="1"), 1),
    "a date": (dated, 1),
    "in the text": (say({"error": "Too many requests for team x. Resets in: 1s"}, status=429), 1),
    "in the text, in milliseconds": (say({"error": {"message": "Too many requests. Resets in: 700ms"}}, status=429), 1),
    "not told": (fixture("rate_limit"), 2),
    "plain text": (say("Too Many Requests", status=429), 2),
    "no words": (say("", status=429), 2),
}


@asynccontextmanager
async def one_client_each(
    names: Iterable[str], folder: Path, *, latency_s: float = 0.0, **values: Any
) -> AsyncGenerator[dict[str, tuple[FakeXaiServer, GrokClient]], None]:
    """A fake and a client of its own for each name: what befalls one is not another's lane."""
    async with AsyncExitStack() as opened:
        pairs: dict[str, tuple[FakeXaiServer, GrokClient]] = {}
        for name in names:
            (folder / name).mkdir()
            fake = FakeXai(latency_s=latency_s, keeps_payloads=False)
            server = opened.enter_context(running_fake_xai(fake))
            pairs[name] = server, await opened.enter_async_context(real_client(server, folder / name, **values))
        yield pairs


@pytest.mark.fault(8)
async def test_nothing_is_sent_within_a_told_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: Figures
) -> None:
    """Every form of 429 at once, each to a client of its own that several callers press."""
    rounds = figures.times(1, 200)

    async def press(form: str, server: FakeXaiServer, client: GrokClient) -> None:
        fault, wait_s = TOLD[form]
        read_at = note_waits(client, monkeypatch)
        for _ in range(rounds):
            server.fake.script = [None, None, fault]
            await asyncio.gather(*(call_until_it_rests(client) for _ in range(CALLERS)))
        figures.count(
            told_waits=len(read_at),
            calls=len(server.journal.chats),
            calls_within_a_wait=calls_within_waits(server, read_at, wait_s),
        )

    async with one_client_each(TOLD, tmp_path, latency_s=0.02, places=CALLERS) as pairs:
        await asyncio.gather(*(press(form, *pair) for form, pair in pairs.items()))

    assert figures.counts["calls_within_a_wait"] == 0
    assert figures.counts["told_waits"] >= rounds * len(TOLD)


async def call_until_it_rests(client: GrokClient) -> None:
    """Until some caller was told to wait; then insist, to no avail, until a call is let through again."""
    rested = False
    while True:
        try:
            await client.analyze(["a text"])
        except GrokThrottled:
            rested = True
        except GrokUnavailable:
            rested = True
            await asyncio.sleep(0.02)
        else:
            if rested:
                return


# What keeps a call waiting, or breaks it off.
TROUBLES: dict[str, Fault] = {
    "nothing comes": delay(GIVEN_UP_AFTER_S),
    "a byte now and then": drip(0.2),
    "a byte now and then, compressed": lambda draft: replace(FAULTS["gzip_bomb"](draft), drip_s=0.2),
    "more than fits": FAULTS["gzip_bomb"],
    "cut in the middle": FAULTS["cut"],
    "reset": FAULTS["reset"],
    "nothing": FAULTS["empty_200"],
}


@pytest.mark.fault(8)
async def test_every_call_ends_at_its_deadline(tmp_path: Path, figures: Figures) -> None:
    rounds = figures.times(1, 60)

    async def suffer(trouble: str, server: FakeXaiServer, client: GrokClient) -> None:
        for _ in range(rounds):
            server.fake.plan = always(TROUBLES[trouble])
            await one_call_in_trouble(client, figures)
            server.fake.plan = no_faults
            await wait_for_an_open_lane(client)
            assert is_good(await client.analyze(["well again"]), "well again")

    async with one_client_each(TROUBLES, tmp_path, grok_timeout_seconds=1, **SWIFT) as pairs:
        await asyncio.gather(*(suffer(trouble, *pair) for trouble, pair in pairs.items()))

    assert figures.counts["calls"] == rounds * len(TROUBLES)
    assert figures.counts["longest_call_s"] < GIVEN_UP_AFTER_S / 2


async def one_call_in_trouble(client: GrokClient, figures: Figures) -> None:
    started = time.monotonic()
    async with asyncio.timeout(GIVEN_UP_AFTER_S):
        with pytest.raises((GrokUnavailable, GrokRefused)):
            await client.analyze(["a text"])
    figures.count(calls=1)
    figures.note_most(longest_call_s=time.monotonic() - started)


async def wait_for_an_open_lane(client: GrokClient) -> None:
    while (wait_s := client.wait_s()) > 0:  # noqa: ASYNC110 - it opens by the clock, and nobody is told
        await asyncio.sleep(min(wait_s, 0.1))


@pytest.mark.fault(8)
async def test_cancelled_calls_leave_the_pool_as_it_was(tmp_path: Path, figures: Figures) -> None:
    """Cancelled while they wait for a place, connect, are sent, or read an answer that drips."""
    chance = random.Random(8)
    places, wave = 10, 50
    kinds: list[Choice] = [None, drip(0.005), delay(0.05), delay(GIVEN_UP_AFTER_S), None, drip(0.005), "reset"]
    with running_fake_xai(FakeXai(keeps_payloads=False)) as server:
        async with real_client(server, tmp_path, places=places, **TOUGH) as client:
            tasks_before = len(asyncio.all_tasks())
            for _ in range(figures.times(6, 200)):
                server.fake.plan = lambda number, _payload: kinds[number % len(kinds)]
                calls = [asyncio.create_task(client.analyze(["a text"])) for _ in range(wave)]
                await asyncio.sleep(chance.uniform(0, 0.15))
                for call in calls:
                    call.cancel()
                    await asyncio.sleep(chance.uniform(0, 0.002))
                ends = await asyncio.gather(*calls, return_exceptions=True)
                figures.count(cancelled=sum(isinstance(end, asyncio.CancelledError) for end in ends))
                await wait_for_an_open_lane(client)
            server.fake.plan = no_faults
            texts = [f"text {number}" for number in range(5 * places)]
            answers = await asyncio.gather(*(client.analyze([text]) for text in texts))
            figures.note_most(connections=len(server.connections), tasks_left=len(asyncio.all_tasks()) - tasks_before)

    assert all(is_good(answer, text) for answer, text in zip(answers, texts, strict=True))
    assert figures.counts["cancelled"] > figures.times(6, 200) * wave / 2
    assert figures.counts["connections"] <= places
    assert figures.counts["tasks_left"] == 0
