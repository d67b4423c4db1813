"""Answers that cannot be used, and thousands that were good once: no error escapes, no score is made up or crossed."""

import json
import os
import random
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path

import pytest

from errors import GrokError
from schemas import Analysis
from tests.clients import ClientMaker
from tests.fake_xai import FakeXai, running_fake_xai
from tests.fake_xai_answers import Answer, Draft, completion, items_of, score_of
from tests.fake_xai_faults import always
from tests.faults.figures import Figures
from tests.faults.invariants import find_broken
from tests.harness import HandClock, ScriptedXai, running_service, wait_until
from tests.spoilt_answers import ITEM_ID, UNUSABLE, spoilt_answer

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SEED = int(os.environ.get("SPOIL_SEED", "0")) or random.randrange(1, 10**9)
SERVICE = {
    "GROK_PACK_SIZE": "1",
    "GROK_CALLS_PER_SECOND": "1000",
    "GROK_MAX_CONCURRENCY": "20",
    "MAX_ATTEMPTS": "1",
    "POLL_INTERVAL_SECONDS": "0.1",
    "LOG_LEVEL": "WARNING",
}


# The corpus, through the whole service


def travels(content: str) -> bool:
    """Half a character does not: such a body is no answer of xAI's, but an outage."""
    return not any("\ud800" <= character <= "\udfff" for character in content)


def answer_by_text(draft: Draft) -> Answer:
    """The entry whose number the text names, about the id that was asked."""
    [item] = items_of(draft.payload)
    return draft.saying(UNUSABLE[int(item["text"].split()[-1])].replace(str(ITEM_ID), str(item["id"])))


@pytest.mark.fault(9)
def test_no_unusable_answer_becomes_an_insight(tmp_path: Path, figures: Figures) -> None:
    texts = [f"late parcel {number}" for number in range(len(UNUSABLE)) if travels(UNUSABLE[number])]
    with (
        running_fake_xai(FakeXai(plan=always(answer_by_text))) as xai,
        running_service(tmp_path, **SERVICE, **xai.environment) as service,
    ):
        with service.client() as client:
            body = {"conversations": [{"text": text} for text in texts]}
            results = client.post("/api/v1/conversations/bulk", json=body).json()["results"]
        acknowledged = {result["conversation_id"] for result in results}
        open_rows = "SELECT id FROM conversations WHERE status IN ('pending', 'processing')"
        wait_until(lambda: service.query(open_rows) == [], within_s=60)

    ends = service.query("SELECT status, error_code, error, raw_answer FROM conversations")
    figures.count(entries=len(texts), invented=len(service.query("SELECT id FROM insights")))
    assert {(status, code) for status, code, _, _ in ends} <= {
        ("failed", "reply_invalid"),
        ("failed", "content_filtered"),  # it said nothing
    }
    assert all(raw for _, code, _, raw in ends if code == "reply_invalid"), "what it said is kept"
    assert (len(texts), figures.counts["invented"]) == (len(acknowledged), 0)
    assert find_broken(service.query, acknowledged=acknowledged) == []


# Mutations, through the client


def flip_a_byte(chance: random.Random, body: bytearray) -> None:
    body[chance.randrange(len(body))] = chance.randrange(256)


def drop_a_span(chance: random.Random, body: bytearray) -> None:
    start = chance.randrange(len(body))
    del body[start : start + chance.choice([1, 2, 9, 60])]


def say_a_span_twice(chance: random.Random, body: bytearray) -> None:
    start = chance.randrange(len(body))
    body[start:start] = body[start : start + chance.choice([1, 7, 50, 300])]


def put_a_token(chance: random.Random, body: bytearray) -> None:
    tokens = [b"NaN", b"null", b"-", b"e9", b"{}", b"[", b"]", b'"', b'\\"', b",", b"\\ud800", b"\xff", b"\x00", b"0"]
    start = chance.randrange(len(body))
    body[start:start] = chance.choice(tokens)


def swap_two_spans(chance: random.Random, body: bytearray) -> None:
    length = chance.choice([1, 6, 30])
    one, two = sorted(chance.sample(range(len(body)), 2))
    body[one : one + length], body[two : two + length] = body[two : two + length], body[one : one + length]


def cut_off(chance: random.Random, body: bytearray) -> None:
    del body[chance.randrange(1, len(body)) :]


MUTATIONS: tuple[Callable[[random.Random, bytearray], None], ...] = (
    *(flip_a_byte, drop_a_span, say_a_span_twice, put_a_token, swap_two_spans, cut_off),
)


class Spoiler:
    """Spoils one answer after the other, its results or its bytes, and remembers what it said last."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.body = b""
        self.ids: Mapping[str, int] = {}
        self.by_bytes = False

    def __call__(self, draft: Draft) -> Answer:
        items = {item["id"]: item["text"] for item in items_of(draft.payload)}
        self.ids = {text: item_id for item_id, text in items.items()}
        self.by_bytes = self.chance.random() < 0.5
        if not self.by_bytes:
            self.body = json.dumps(completion(spoilt_answer(self.chance, items))).encode()
            return Answer(200, self.body)
        body = bytearray(draft.answer().body)
        for _ in range(self.chance.randint(1, 3)):
            self.chance.choice(MUTATIONS)(self.chance, body)
            body = body or bytearray(b" ")
        self.body = bytes(body)
        return Answer(200, self.body)

    def said_by_accident(self, text: str, score: float) -> bool:
        """A digit that was changed on the way is nobody's invention: the text's own result has it."""
        if not self.by_bytes:
            return False
        said = self.body.decode(errors="replace").replace("\\", "")
        results = [
            result for result in re.findall(r"{[^{}]*}", said) if re.search(rf'"id": ?{self.ids[text]}\b', result)
        ]
        scores = [found for result in results for found in re.findall(r'"sentiment_score": ?(-?[0-9.eE+-]+)', result)]
        return any(float(found) == score for found in scores)


@pytest.fixture
async def make_client(clock: HandClock) -> AsyncGenerator[ClientMaker]:
    async with ClientMaker(clock) as maker:
        yield maker


@pytest.mark.fault(9)
async def test_a_good_answer_that_was_spoilt_is_its_own_or_nothing(
    make_client: ClientMaker, clock: HandClock, figures: Figures
) -> None:
    print(f"SPOIL_SEED={SEED}")  # shown when it fails: the same answers again
    chance = random.Random(SEED)
    spoiler = Spoiler(chance)
    xai = ScriptedXai()
    xai.fake.plan = always(spoiler)
    xai.fake.keeps_payloads = False
    client = make_client(xai)
    for number in range(figures.times(600, 10_000)):
        texts = [f"text {number} {at}" for at in range(chance.randint(2, 6))]
        clock.turn(client.wait_s() + 1)  # calls that failed opened the breaker
        try:
            results = (await client.analyze(texts)).results
        except GrokError:
            figures.count(mutations=1, refused_whole=1)
            continue
        figures.count(mutations=1, read=sum(isinstance(result, Analysis) for result in results))
        for text, result in zip(texts, results, strict=True):
            if not isinstance(result, Analysis) or result.sentiment_score == score_of(text):
                continue
            others = {score_of(other) for other in texts if other != text}
            invented = not spoiler.said_by_accident(text, result.sentiment_score)
            figures.count(digits_changed=1, invented=invented, anothers=result.sentiment_score in others)
            assert not invented, (text, result.sentiment_score, spoiler.body)
            assert result.sentiment_score not in others, (text, spoiler.body)
        xai.calls.clear()

    assert figures.counts["mutations"] == figures.times(600, 10_000)
    assert figures.counts["read"] > figures.counts["mutations"] / 2
