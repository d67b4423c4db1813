"""The offline mode speaks xAI's format, says so in its model, and answers the same every time."""

import json
from collections.abc import AsyncGenerator

import httpx2
import jsonschema
import pytest

from account import FreeCalls
from grok_client import GrokClient
from local_analyzer import LOCAL_MODEL, LocalAnalyzer
from mock_grok import MockGrokTransport
from prompts import Prompt
from schemas import Analysis, Sentiment
from tests.clients import Terms, make_grok_client
from tests.fake_xai_answers import XAI
from tests.harness import ROOT, HandClock
from topics import load_topics, topic_patterns

pytestmark = pytest.mark.unit

TEXTS = [
    "My parcel is three weeks late and nobody answers!",
    "Love the new app, thank you so much",
    "\U0001f621\U0001f621\U0001f621",
    "a" * 10_000,
    "\U0001f44d" * 10_000,
    "DROP TABLE insights; -- \u202e\u200b",
    "Wo bleibt meine Bestellung?",
]


@pytest.fixture
async def offline() -> AsyncGenerator[httpx2.AsyncClient, None]:
    topics = load_topics(ROOT / "topics.yaml")
    transport = MockGrokTransport(LocalAnalyzer.load(topic_patterns=topic_patterns(topics)))
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1/v1/") as http:
        yield http


@pytest.fixture
def prompt() -> Prompt:
    return Prompt({topic.id: topic.description for topic in load_topics(ROOT / "topics.yaml")})


@pytest.fixture
def client(offline: httpx2.AsyncClient, prompt: Prompt, clock: HandClock) -> GrokClient:
    terms = Terms(model=LOCAL_MODEL, prompt=prompt, deadline_s=30)
    return make_grok_client(offline, clock, terms=terms, account=FreeCalls())


async def test_every_text_is_answered_through_the_same_client(client: GrokClient) -> None:
    answer = await client.analyze(TEXTS)

    assert all(isinstance(result, Analysis) for result in answer.results)
    assert answer.model == LOCAL_MODEL
    assert client.wait_s() == 0


async def test_the_same_text_is_answered_the_same(client: GrokClient) -> None:
    first = await client.analyze(TEXTS)
    second = await client.analyze(list(reversed(TEXTS)))

    assert list(first.results) == list(reversed(second.results))


async def test_its_judgement_is_of_use(client: GrokClient) -> None:
    angry, happy = (await client.analyze(TEXTS[:2])).results

    assert isinstance(angry, Analysis)
    assert isinstance(happy, Analysis)
    assert (angry.sentiment, happy.sentiment) == (Sentiment.NEGATIVE, Sentiment.POSITIVE)


async def test_its_topics_are_ones_the_prompt_offers(client: GrokClient, prompt: Prompt) -> None:
    offered = prompt.response_format["json_schema"]["schema"]["properties"]["results"]["items"]["properties"]
    topics = set(offered["clusters"]["items"]["enum"])

    results = (await client.analyze(TEXTS)).results

    assert all(isinstance(result, Analysis) and set(result.clusters) <= topics for result in results)


async def test_its_body_is_one_that_xai_documents(offline: httpx2.AsyncClient, prompt: Prompt) -> None:
    schema = json.loads((XAI / "chat_response.schema.json").read_text())
    messages = prompt.messages({100_000: TEXTS[0]}, nonce="n")

    answer = await offline.post("chat/completions", json={"model": LOCAL_MODEL, "messages": messages})

    jsonschema.validate(answer.json(), schema)
    assert answer.json()["usage"]["total_tokens"] > 0
