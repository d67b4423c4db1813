"""JSON log lines on stderr, each with the request id it belongs to, and the metrics that Prometheus reads."""

import json
import logging
import re
import sys
from collections.abc import Generator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import orjson
import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

METRICS_TYPE = CONTENT_TYPE_LATEST
_KEPT_CHARS = 2000  # enough to see what it was
_REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15)
_CALL_BUCKETS_S = (0.1, 0.25, 0.5, 1, 2, 4, 6, 10, 15, 30, 60, 120)  # a tweet takes 2 s, a pack of ten 4 to 6 s

Logger = structlog.stdlib.BoundLogger

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

# Ids of teams and keys, and masked keys, as xAI's messages show them (XAI documents none of this: seen in its errors).
_SECRETS = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\bxai?-?[\w-]*\*{2,}\w*|\bxai-[\w-]{8,}|\bteam-\d+",
    re.IGNORECASE,
)


def configure_logging(level: str, *, environment: str) -> None:
    """Send structlog and the standard library's loggers to stderr, one JSON object a line; call once, from `main`."""
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr, force=True)
    formatter = structlog.stdlib.ProcessorFormatter(
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _render_json],
        foreign_pre_chain=[
            *_shared_processors(environment),
            structlog.stdlib.add_logger_name,
            structlog.processors.format_exc_info,
        ],
    )
    logging.getLogger().handlers[0].setFormatter(formatter)
    for noisy in ("httpx2", "httpcore2", "alembic", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*_shared_processors(environment), structlog.processors.format_exc_info, _render_json_bytes],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )


def get_logger() -> Logger:
    logger: Logger = structlog.get_logger()
    return logger


def redact(text: str) -> str:
    """`text` without key and team ids; apply to whatever xAI said before it is logged or stored."""
    return _SECRETS.sub("[redacted]", text)


def excerpt(text: str) -> str:
    """The beginning of what xAI said, as it is kept: redacted first, for half an id would not be known for one."""
    return redact(text[: 2 * _KEPT_CHARS])[:_KEPT_CHARS]


class Metrics:
    """Every metric of the service, in a registry of its own; labels are closed sets: routes, statuses, codes."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody reads
        self._registry = CollectorRegistry()
        r = self._registry
        self._requests = Counter(
            "insights_requests", "HTTP requests answered.", ["method", "route", "status"], registry=r
        )
        self._request_latency = Histogram(
            "insights_request_latency_seconds",
            "From the first byte of a request to the end of its answer.",
            ["route"],
            buckets=_REQUEST_BUCKETS_S,
            registry=r,
        )
        self._calls = Counter("insights_grok_calls", "Calls to Grok, retries included.", registry=r)
        self._call_errors = Counter(
            "insights_grok_call_errors",
            "Calls to Grok that gave no value, by what they ended in.",
            ["error"],
            registry=r,
        )
        self._call_latency = Histogram(
            "insights_grok_call_latency_seconds", "Duration of a call to Grok.", buckets=_CALL_BUCKETS_S, registry=r
        )
        self._mismatches = Counter(
            "insights_grok_model_mismatches", "Answers by another model than the one asked for.", registry=r
        )
        self._cache_hits = Counter(
            "insights_analysis_cache_hits", "Conversations answered without a call: their text was known.", registry=r
        )
        self._skips = Counter(
            "insights_prefilter_skips", "Conversations with nothing to read, by reason.", ["reason"], registry=r
        )
        self._unlisted = Counter("insights_unlisted_topics", "Topics named by the model that are none.", registry=r)
        self._finished = Counter(
            "insights_conversations_finished", "Conversations that came to an end.", ["status"], registry=r
        )
        self._tokens = Counter(
            "insights_estimated_tokens", "Tokens used by Grok, as it reports them.", ["kind"], registry=r
        )
        self._cost = Counter("insights_estimated_cost_usd", "Cost of the calls to Grok, in USD.", registry=r)
        self._depth = Gauge(
            "insights_processing_queue_depth", "Conversations that wait or are being analyzed.", registry=r
        )

    def count_request(self, *, method: str, route: str, status: int, seconds: float | None) -> None:
        """`seconds` is None for a stream: it lasts as long as its client likes."""
        self._requests.labels(method, route, str(status)).inc()
        if seconds is not None:
            self._request_latency.labels(route).observe(seconds)

    @contextmanager
    def time_call(self) -> Generator[None, None, None]:
        self._calls.inc()
        with self._call_latency.time():
            yield

    def count_call_error(self, code: str) -> None:
        self._call_errors.labels(code).inc()

    def count_model_mismatch(self) -> None:
        self._mismatches.inc()

    def model_mismatches(self) -> int:
        """How many since the start."""
        return sum(int(s.value) for m in self._mismatches.collect() for s in m.samples if s.name.endswith("_total"))

    def count_cache_hit(self) -> None:
        self._cache_hits.inc()

    def count_skip(self, reason: str) -> None:
        self._skips.labels(reason).inc()

    def count_unlisted_topics(self, count: int) -> None:
        self._unlisted.inc(count)

    def count_finished(self, status: str) -> None:
        self._finished.labels(status).inc()

    def count_tokens(self, kind: str, count: int) -> None:
        """`kind` is uncached, cached, output or reasoning."""
        self._tokens.labels(kind).inc(count)

    def count_cost(self, usd: float) -> None:
        self._cost.inc(usd)

    def render(self, *, queue_depth: int | None) -> bytes:
        """The text that Prometheus reads."""
        if queue_depth is not None:
            self._depth.set(queue_depth)
        return generate_latest(self._registry)


def _shared_processors(environment: str) -> list[structlog.typing.Processor]:
    def add_context(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["environment"] = environment
        if (current := request_id.get()) is not None:
            event.setdefault("request_id", current)
        return event

    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        add_context,
    ]


def _render_json(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> str:
    return _render_json_bytes(_logger, _name, event).decode()


def _render_json_bytes(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(dict(event), default=repr, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z)
    except orjson.JSONEncodeError:  # a lone surrogate, a value that holds itself; a log line must never raise
        plain = {str(key): value if isinstance(value, str | int) else repr(value) for key, value in event.items()}
        return json.dumps(plain).encode()
