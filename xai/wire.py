"""The wire format of chat completions, in one place: what is sent, and the part of the answer that is read.

xAI calls the format legacy beside its Responses API, with no end date; who changes to that changes this module.
Source: docs.x.ai/docs/api-reference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import orjson
from pydantic import BaseModel, Field, ValidationError

from errors import GrokRefused, GrokReplyInvalid, GrokTooLarge, GrokUnavailable
from telemetry import excerpt
from xai.prices import Usage

# What a transport tells of a request, by httpcore's trace extension: its connection stands; its last byte has gone.
SENDING: Final = "http11.send_request_headers.started"
SENT: Final = "http11.send_request_body.complete"

_TEMPERATURE: Final = 0.3
_TOKENS_PER_RESULT: Final = 160


@dataclass(frozen=True, slots=True)
class WireRequest:
    """One request; only what xAI documents is ever sent, for it ignores a field that it does not know."""

    model: str
    messages: Sequence[Mapping[str, str]]
    response_format: Mapping[str, Any]
    results: int
    effort: str | None  # of reasoning; None leaves the field out

    @property
    def max_output_tokens(self) -> int:
        """Of visible text; xAI does not let reasoning be capped."""
        return _TOKENS_PER_RESULT * (self.results + 1)

    def encode(self) -> bytes:
        payload: dict[str, Any] = {
            "model": self.model,
            "temperature": _TEMPERATURE,
            "max_completion_tokens": self.max_output_tokens,
            "messages": self.messages,
            "response_format": self.response_format,
        }
        if self.effort is not None:
            payload["reasoning_effort"] = self.effort
        return orjson.dumps(payload)


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Body(BaseModel):
    """The part of a chat completion that we read; the rest may change."""

    model: str = Field(default="unknown", max_length=200)
    choices: list[_Choice] = Field(min_length=1)
    usage: Any = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A chat completion; `usage` is None when xAI did not say what it used."""

    model: str
    usage: Usage | None
    choice: _Choice

    def content(self) -> str:
        """What the model wrote. An unknown `finish_reason` says nothing: what was written is judged by itself.

        Raises: GrokTooLarge (cut off), GrokRefused (content safety, said or by an empty content).
        """
        if self.choice.finish_reason == "length":
            raise GrokTooLarge("xAI cut the answer off at its length limit.")
        message = self.choice.message
        if message.refusal or not message.content or self.choice.finish_reason == "content_filter":
            raise GrokRefused("xAI refused to judge the text.")
        return message.content


def is_error(body: str) -> bool:
    """Whether a body that came with a 200 is an error all the same: `{"error": ...}` and no choices."""
    try:
        document: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(document, dict) and "error" in document and not cast("dict[str, object]", document).get("choices")


def read_completion(body: str) -> Completion:
    """Raises: GrokUnavailable for what xAI's API cannot have sent, GrokReplyInvalid for what is no completion."""
    if not body.strip():
        raise GrokUnavailable("xAI sent an empty answer.")
    try:
        document: object = orjson.loads(body)
        if not isinstance(document, dict):
            raise GrokUnavailable("Not xAI's API answered, but something on the way to it.")
        read = _Body.model_validate(document)
    except orjson.JSONDecodeError as exc:
        raise GrokUnavailable("Not xAI's API answered, but something on the way to it.") from exc
    except ValidationError as exc:
        raise GrokReplyInvalid("The answer is no chat completion.", raw_answer=excerpt(body)) from exc
    return Completion(read.model, Usage.read(read.usage), read.choices[0])
