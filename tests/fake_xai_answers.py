"""What the fake xAI says when nothing goes wrong: who judges a text, what a call costs, and the forms of its bodies."""

import json
import re
import time
import uuid
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import orjson

from local_analyzer import LocalAnalyzer
from topics import load_topics, topic_patterns

XAI = Path(__file__).resolve().parent / "xai"
GOOD_KEY = "xai-test-key-0123456789"
TICKS_PER_USD = 10_000_000_000
_CHARS_PER_TOKEN = 4
_LONG_PROMPT_TOKENS = 200_000  # above it everything costs double

Json = dict[str, Any]


# Judges: a text in, the members of its result out


Judge = Callable[[str], Json]


def score_of(text: str) -> float:
    """A score that belongs to this text alone, so that crossed answers show."""
    return (zlib.crc32(text.encode()) % 2001 - 1000) / 1000


def derived(text: str) -> Json:
    """Judge by the text's checksum: means nothing, and cannot be mistaken for another's."""
    return {
        "sentiment_score": score_of(text),
        "clusters": ["other"],
        "confidence": 0.9,
        "reasoning": f"crc {zlib.crc32(text.encode())}",
        "summary": "what the customer wants",
        "language": "en",
    }


def local_judge() -> Judge:
    """Judge by the project's offline analyzer: labels that mean something."""
    analyzer = LocalAnalyzer.load(topic_patterns=topic_patterns(load_topics()))

    def judge(text: str) -> Json:
        analysis = analyzer.analyze(text)
        return {name: getattr(analysis, name) for name in _RESULT_MEMBERS}

    return judge


_RESULT_MEMBERS = ("sentiment_score", "clusters", "confidence", "reasoning", "summary", "language")
_LABEL_SCORES = {"positive": 1.0, "neutral": 0.0, "negative": -1.0}
_TOLD_SCORE = re.compile(r"score[^\w-]{1,4}(-?\d+(?:\.\d+)?)", re.IGNORECASE)
_TOLD_LABEL = re.compile(
    r"(?:\b(?:label|classify|mark|rate|score|judge|tag|answer)\b[^.\n]{0,40}?|\bsentiment\W{1,4})"
    r"\b(positive|neutral|negative)\b",
    re.IGNORECASE,
)


def obedient(judge: Judge = derived) -> Judge:
    """Obey what a text says of its own label, and else judge as `judge` does: a model without any defence."""

    def obey(text: str) -> Json:
        score = _told_score(text)
        told = {} if score is None else {"sentiment_score": score, "confidence": 1.0, "reasoning": "as the text asks"}
        return judge(text) | told

    return obey


def _told_score(text: str) -> float | None:
    if number := _TOLD_SCORE.search(text):
        return max(-1.0, min(1.0, float(number[1])))
    label = _TOLD_LABEL.search(text)
    return _LABEL_SCORES[label[1].lower()] if label else None


# Requests


def chat_payload(*texts: str, **changed: object) -> Json:
    """A small request as the service makes it, ids from 1, with members replaced."""
    items = [{"id": number, "text": text} for number, text in enumerate(texts, start=1)]
    schema = {"type": "object", "properties": {"results": {"type": "array"}}, "required": ["results"]}
    return {
        "model": REDIRECTED_TO,
        "reasoning_effort": "none",
        "messages": [
            {"role": "system", "content": "You judge what customers write. " * 20},
            {"role": "user", "content": json.dumps({"nonce": "n", "items": items})},
        ],
        "response_format": {"type": "json_schema", "json_schema": {"name": "small", "strict": True, "schema": schema}},
        **changed,
    }


def items_of(payload: Json) -> list[Json]:
    """The items of the newest user message that has some; none when it is another kind of conversation."""
    for message in reversed(payload["messages"]):
        try:
            items: list[Json] = orjson.loads(message["content"])["items"]
        except (orjson.JSONDecodeError, TypeError, KeyError):
            continue
        return items
    return []


def texts_of(payload: Json) -> list[str]:
    return [item["text"] for item in items_of(payload)]


def result_for(item: Mapping[str, Any], **changed: object) -> Json:
    """What `derived` says of an item, with members replaced."""
    return {"id": item["id"], **derived(item["text"]), **changed}


# Models and what they cost


@dataclass(frozen=True, slots=True)
class Model:
    """What xAI asks in USD per million tokens, and the efforts it knows; without any, the parameter is refused."""

    input_usd: float
    cached_usd: float
    output_usd: float
    context_tokens: int
    efforts: tuple[str, ...] = ()
    default_effort: str = "low"

    def cost_ticks(self, *, prompt: int, cached: int, output: int) -> int:
        usd = (prompt - cached) * self.input_usd + cached * self.cached_usd + output * self.output_usd
        return round(usd * TICKS_PER_USD / 1_000_000 * (2 if prompt > _LONG_PROMPT_TOKENS else 1))


MODELS: Mapping[str, Model] = {
    "grok-4.7": Model(2.0, 0.5, 6.0, 500_000, ("low", "medium", "high", "xhigh"), "high"),
    "grok-4.6": Model(2.0, 0.5, 6.0, 500_000, ("low", "medium", "high", "xhigh"), "high"),
    "grok-4.5": Model(2.0, 0.3, 6.0, 500_000, ("low", "medium", "high"), "high"),
    "grok-4.3": Model(1.25, 0.2, 2.5, 1_000_000, ("none", "low", "medium", "high", "xhigh")),
    "grok-4.20-0309-non-reasoning": Model(1.25, 0.2, 2.5, 1_000_000, default_effort="none"),
    "grok-4.20-0309-reasoning": Model(1.25, 0.2, 2.5, 1_000_000),
    "grok-build-0.1": Model(1.0, 0.2, 2.0, 256_000),
}
REDIRECTED_TO = "grok-4.3"
REASONING_TOKENS = {"none": 0, "low": 200, "medium": 600, "high": 1500, "xhigh": 3000}  # about a pack
_RETIRED = re.compile(r"grok-[23](?!\d|\.)|grok-beta|grok-.*-fast")


def resolve_model(name: str) -> str:
    """The model that answers to a name: retired ones are redirected, and nobody is told."""
    return REDIRECTED_TO if _RETIRED.match(name) else name.removesuffix("-latest")


@dataclass(frozen=True, slots=True)
class Usage:
    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0
    cost_ticks: int = 0

    def body(self, *, ticks: bool) -> Json:
        """As xAI writes it: reasoning is in the total and not in the completion."""
        prompt = {"text_tokens": self.prompt, "audio_tokens": 0, "image_tokens": 0, "cached_tokens": self.cached}
        completion = dict.fromkeys(("audio_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens"), 0)
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion + self.reasoning,
            "num_sources_used": 0,
            "prompt_tokens_details": prompt,
            "completion_tokens_details": {"reasoning_tokens": self.reasoning, **completion},
            **({"cost_in_usd_ticks": self.cost_ticks} if ticks else {}),
        }


def tokens_of(text: str | bytes) -> int:
    return -(-len(text) // _CHARS_PER_TOKEN)


# Answers


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes out, and in which manner."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    usage: Usage = Usage()
    delay_s: float = 0.0  # before the first byte
    drip_s: float = 0.0  # after each byte of the body
    ending: Literal["whole", "cut", "reset"] = "whole"


@dataclass(frozen=True, slots=True)
class Draft:
    """The good answer that is about to go out, in the parts that a fault may spoil."""

    payload: Json
    results: list[Json]
    body: Json
    usage: Usage

    @property
    def content(self) -> str:
        content: str = self.body["choices"][0]["message"]["content"]
        return content

    def answer(self) -> Answer:
        return Answer(200, orjson.dumps(self.body), usage=self.usage)

    def changed(self, **members: object) -> Answer:
        return replace(self, body={**self.body, **members}).answer()

    def saying(self, content: str | None, *, finish_reason: str | None = "stop", refusal: str | None = None) -> Answer:
        return self.changed(choices=[_choice(content, finish_reason, refusal)])

    def with_results(self, results: Sequence[Json]) -> Answer:
        return self.saying(json.dumps({"results": list(results)}))  # orjson has no NaN


def completion(content: str | None, *, finish_reason: str | None = "stop", **changed: object) -> Json:
    """A chat completion in the form that xAI gives it, with members replaced."""
    return {
        "id": str(uuid.uuid4()),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": REDIRECTED_TO,
        "choices": [_choice(content, finish_reason, None)],
        "usage": None,
        "system_fingerprint": "fp_fake",
        **changed,
    }


def _choice(content: str | None, finish_reason: str | None, refusal: str | None) -> Json:
    message = {"role": "assistant", "content": content, "refusal": refusal}
    return {"index": 0, "message": message, "finish_reason": finish_reason}


def api_key_body(key: str, **changed: object) -> Json:
    """What `GET /v1/api-key` says of a good key."""
    nobody = "00000000-0000-0000-0000-000000000000"
    return {
        "redacted_api_key": f"xa...{key[-4:]}",
        "user_id": nobody,
        "name": "a key for tests",
        "create_time": "2026-01-01T00:00:00.000000Z",
        "modify_time": "2026-01-01T00:00:00.000000Z",
        "modified_by": nobody,
        "team_id": nobody,
        "acls": ["api-key:model:*", "api-key:endpoint:*"],
        "api_key_id": nobody,
        "team_blocked": False,
        "api_key_blocked": False,
        "api_key_disabled": False,
        **changed,
    }


def language_models_body(models: Mapping[str, Model]) -> Json:
    """What `GET /v1/language-models` says: a price divided by 10,000 is USD per million tokens."""
    return {"models": [_language_model(name, model) for name, model in models.items()]}


def _language_model(name: str, model: Model) -> Json:
    return {
        "id": name,
        "fingerprint": "fp_fake",
        "created": 1_772_000_000,
        "object": "model",
        "owned_by": "xai",
        "version": "1.0.0",
        "input_modalities": ["text"],
        "output_modalities": ["text"],
        "prompt_text_token_price": round(model.input_usd * 10_000),
        "cached_prompt_text_token_price": round(model.cached_usd * 10_000),
        "completion_text_token_price": round(model.output_usd * 10_000),
        "aliases": [f"{name}-latest"],
    }
