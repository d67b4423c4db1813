"""Offline mode: an HTTP transport below the same client, which answers as xAI would, with the local analyzer."""

import asyncio
import uuid
from collections.abc import Sequence
from time import time
from typing import Any

import httpx2
import orjson

from local_analyzer import LocalAnalyzer
from xai import SENDING

_CHARS_PER_TOKEN = 4  # a rule of thumb for the usage numbers; nothing is billed


class MockGrokTransport(httpx2.AsyncBaseTransport):
    """Answers chat completions from this process. The analysis runs in a thread: the event loop stays free."""

    def __init__(self, analyzer: LocalAnalyzer) -> None:
        self._analyzer = analyzer

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        content = await request.aread()
        if trace := request.extensions.get("trace"):
            await trace(SENDING, {})  # as a connection does
        payload: dict[str, Any] = orjson.loads(content)
        items: list[dict[str, Any]] = orjson.loads(payload["messages"][-1]["content"])["items"]
        answer = await asyncio.to_thread(self._answer, items)
        body = _completion(payload["model"], answer, prompt_chars=len(content))
        return httpx2.Response(200, headers={"content-type": "application/json"}, content=orjson.dumps(body))

    def _answer(self, items: Sequence[dict[str, Any]]) -> str:
        return orjson.dumps({"results": [self._result(item["id"], item["text"]) for item in items]}).decode()

    def _result(self, item_id: int, text: str) -> dict[str, Any]:
        analysis = self._analyzer.analyze(text)
        return {
            "id": item_id,
            "sentiment_score": analysis.sentiment_score,
            "clusters": analysis.clusters,
            "confidence": analysis.confidence,
            "reasoning": analysis.reasoning,
            "summary": analysis.summary,
            "language": analysis.language,
        }


def _completion(model: str, content: str, *, prompt_chars: int) -> dict[str, Any]:
    prompt_tokens, completion_tokens = prompt_chars // _CHARS_PER_TOKEN, len(content) // _CHARS_PER_TOKEN
    return {
        "id": str(uuid.uuid4()),
        "object": "chat.completion",
        "created": int(time()),
        "model": model,
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"},
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "num_sources_used": 0,
            "prompt_tokens_details": {
                "text_tokens": prompt_tokens,
                "audio_tokens": 0,
                "image_tokens": 0,
                "cached_tokens": 0,
            },
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
    }
