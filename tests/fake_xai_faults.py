"""The fake xAI's faults: each by its name, a small function that spoils the good answer, and the plan of when."""

import functools
import gzip
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import orjson

from tests.fake_xai_answers import XAI, Answer, Draft, Json

Fault = Callable[[Draft], Answer]
Choice = str | Fault | None  # a fault's name, a fault of the test's own, or none
Plan = Callable[[int, Json], Choice]  # asked with each call's number and payload

_LONG_S = 90.0  # longer than a client waits by default
_DRIP_S = 0.1
_BOMB_BYTES = 32 * 1024 * 1024


# When


def no_faults(_number: int, _payload: Json) -> Choice:
    return None


def always(fault: Choice) -> Plan:
    return lambda _number, _payload: fault


@dataclass(frozen=True)
class FaultPlan:
    """Spoils a share of the calls, each with one of `kinds`; the seed and a call's number decide, not the moment."""

    seed: int = 0
    share: float = 0.1
    kinds: Sequence[str] = ()  # all that pass by themselves, when none is named

    def __post_init__(self) -> None:
        if unknown := [kind for kind in self.kinds if kind not in FAULTS]:
            raise ValueError(f"{', '.join(unknown)}: no such fault; there are {', '.join(FAULTS)}")

    def __call__(self, number: int, _payload: Json) -> Choice:
        dice = random.Random(f"{self.seed}:{number}")
        return dice.choice(self.kinds or PASSING) if dice.random() < self.share else None


# Errors as xAI and its edge send them


@functools.cache
def load_fixtures() -> Mapping[str, Json]:
    return {fixture["name"]: fixture for fixture in json.loads((XAI / "error_bodies.json").read_text("utf-8"))}


def fixture(name: str, **headers: str) -> Fault:
    """An error body of tests/xai/error_bodies.json; header names with `_` for `-`."""
    found = load_fixtures()[name]
    body = found["body"]
    content = body.encode() if isinstance(body, str) else orjson.dumps(body)
    named = {"content-type": found["content_type"], **_named(headers)}
    return lambda _draft: Answer(found["status"], content, named)


def say(body: Json | str | bytes, *, status: int = 200, **headers: str) -> Fault:
    """Answer the same whatever was asked; header names with `_` for `-`."""
    content = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else orjson.dumps(body)
    return lambda _draft: Answer(status, content, {"content-type": "application/json", **_named(headers)})


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def html_200(_draft: Draft) -> Answer:
    return Answer(200, b"<!doctype html><title>Sign in to the network</title>", {"content-type": "text/html"})


def gzip_bomb(_draft: Draft) -> Answer:
    return Answer(200, _bomb(), {"content-type": "application/json", "content-encoding": "gzip"})


@functools.cache
def _bomb() -> bytes:
    return gzip.compress(b" " * _BOMB_BYTES, compresslevel=9, mtime=0)


# The wire


def delay(seconds: float) -> Fault:
    return lambda draft: replace(draft.answer(), delay_s=seconds)


def drip(every_s: float) -> Fault:
    """One byte of the body at a time."""
    return lambda draft: replace(draft.answer(), drip_s=every_s)


def reset(draft: Draft) -> Answer:
    return replace(draft.answer(), ending="reset")


def cut(draft: Draft) -> Answer:
    return replace(draft.answer(), ending="cut")


def wrong_content_type(draft: Draft) -> Answer:
    return replace(draft.answer(), headers={"content-type": "text/plain"})


# The message


def prose(draft: Draft) -> Answer:
    return draft.saying(f"Here is what I found:\n\n{draft.content}\n\nTell me if you need more.")


def fence(draft: Draft) -> Answer:
    return draft.saying(f"```json\n{draft.content}\n```")


def truncated_json(draft: Draft) -> Answer:
    return draft.saying(draft.content[: len(draft.content) // 2])


def finish_length(draft: Draft) -> Answer:
    return draft.saying(draft.content[: len(draft.content) // 2], finish_reason="length")


def refusal(draft: Draft) -> Answer:
    return draft.saying(None, refusal="I cannot help with that.")


def null_content(draft: Draft) -> Answer:
    return draft.saying(None)


def unknown_finish_reason(draft: Draft) -> Answer:
    return draft.saying(draft.content, finish_reason="something_new")


# The results


def spoil_first(**members: object) -> Fault:
    return lambda draft: draft.with_results([{**first, **members} for first in draft.results[:1]] + draft.results[1:])


def foreign_id(draft: Draft) -> Answer:
    return spoil_first(id=1 + max((result["id"] for result in draft.results), default=0))(draft)


def missing_id(draft: Draft) -> Answer:
    return draft.with_results(draft.results[1:])


def doubled_id(draft: Draft) -> Answer:
    return draft.with_results(draft.results + draft.results[:1])


def shuffled(draft: Draft) -> Answer:
    return draft.with_results(draft.results[::-1])


# What stands around them


def usage_null(draft: Draft) -> Answer:
    return draft.changed(usage=None)


def reasoning_tokens(draft: Draft) -> Answer:
    """Tokens that nobody asked for: in the total, and on the bill."""
    usage = replace(draft.usage, reasoning=draft.usage.reasoning + 500)
    return replace(draft, usage=usage).changed(usage=usage.body(ticks=False))


def other_model(draft: Draft) -> Answer:
    return draft.changed(model="grok-4.5")


_WIRE: Mapping[str, Fault] = {
    "delay": delay(_LONG_S),
    "drip": drip(_DRIP_S),
    "reset": reset,
    "cut": cut,
    "empty_200": say(""),
    "html_200": html_200,
    "gzip_bomb": gzip_bomb,
    "wrong_content_type": wrong_content_type,
}
_REPLIES: Mapping[str, Fault] = {
    "prose": prose,
    "fence": fence,
    "truncated_json": truncated_json,
    "finish_length": finish_length,
    "refusal": refusal,
    "null_content": null_content,
    "unknown_finish_reason": unknown_finish_reason,
    "nan": spoil_first(sentiment_score=float("nan")),
    "score_out_of_range": spoil_first(sentiment_score=42),
    "string_score": spoil_first(sentiment_score="0.5"),
    "foreign_id": foreign_id,
    "missing_id": missing_id,
    "doubled_id": doubled_id,
    "shuffled": shuffled,
    "extra_field": spoil_first(sentiment="positive"),
    "usage_null": usage_null,
    "reasoning_tokens": reasoning_tokens,
    "other_model": other_model,
}
FIXTURES: Mapping[str, Fault] = {name: fixture(name) for name in load_fixtures()}
FAULTS: Mapping[str, Fault] = {**FIXTURES, **_WIRE, **_REPLIES}

# What somebody who tries the service by hand wants to see: no fault that closes it for minutes or fails a row at once.
PASSING: Sequence[str] = (
    *("rate_limit", "capacity_429", "unavailable", "internal", "nested_openai", "cloudflare_html", "cf_524"),
    *("drip", "reset", "cut", "empty_200", "wrong_content_type"),
    *("prose", "fence", "truncated_json", "unknown_finish_reason", "nan", "score_out_of_range", "string_score"),
    *("foreign_id", "missing_id", "doubled_id", "shuffled", "extra_field", "usage_null", "reasoning_tokens"),
    "other_model",
)
