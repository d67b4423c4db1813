"""What is counted as it happens, and the text that Prometheus reads."""

from collections.abc import Iterable
from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from telemetry.measurements import Measurement, to_text

METRICS_TYPE = CONTENT_TYPE_LATEST
_REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15)
_CALL_BUCKETS_S = (0.1, 0.25, 0.5, 1, 2, 4, 6, 10, 15, 30, 60, 120)  # a tweet takes 2 s, a pack of ten 4 to 6 s
_COMMIT_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)  # an fsync takes 1 to 10 ms
_COMMIT_UNITS = (1, 2, 5, 10, 25, 50, 100, 250, 500)  # 500 is the most


class Metrics:
    """Every metric of the service, in a registry of its own; labels are closed sets: routes, statuses, codes."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody reads
        self._registry = CollectorRegistry()
        counter, histogram = partial(Counter, registry=self._registry), partial(Histogram, registry=self._registry)
        self._requests = counter("insights_requests", "HTTP requests answered.", ["method", "route", "status"])
        self._request_latency = histogram(
            "insights_request_latency_seconds",
            "From the first byte of a request to the end of its answer.",
            ["route"],
            buckets=_REQUEST_BUCKETS_S,
        )
        self._calls = counter("insights_grok_calls", "Calls to Grok, retries included.")
        self._call_errors = counter(
            "insights_grok_call_errors", "Calls to Grok that gave no value, by what they ended in.", ["error"]
        )
        self._call_latency = histogram(
            "insights_grok_call_latency_seconds", "Duration of a call to Grok.", buckets=_CALL_BUCKETS_S
        )
        self._mismatches = counter("insights_grok_model_mismatches", "Answers by another model than the one asked for.")
        self._cache_hits = counter(
            "insights_analysis_cache_hits", "Conversations answered without a call: their text was known."
        )
        self._skips = counter("insights_prefilter_skips", "Conversations with nothing to read, by reason.", ["reason"])
        self._finished = counter(
            "insights_conversations_finished", "Conversations that came to an end, by status.", ["status"]
        )
        for status in ("completed", "failed", "skipped"):
            self._finished.labels(status)  # from 0: Prometheus sees no increase in a series that begins at 1
        self._failures = counter("insights_conversations_failed", "Conversations that failed, by the error.", ["error"])
        self._fenced = counter("insights_outcomes_fenced", "Outcomes refused: another worker had taken the row.")
        self._rescued = counter("insights_rescued_claims", "Claims of rows whose owner has died at least once.")
        self._restarts = counter("insights_loop_restarts", "Loops that died or hung and were started again.", ["loop"])
        for loop in ("processor", "upkeep", "key-check"):
            self._restarts.labels(loop)
        self._tokens = counter("insights_estimated_tokens", "Tokens used by Grok, as it reports them.", ["kind"])
        self._cost = counter("insights_estimated_cost_usd", "Cost of the calls to Grok, in USD.")
        self._commit_units = histogram(
            "insights_database_commit_units", "Units of work in one commit.", buckets=_COMMIT_UNITS
        )
        self._commit_latency = histogram(
            "insights_database_commit_seconds", "Duration of a transaction, commit included.", buckets=_COMMIT_BUCKETS_S
        )
        ProcessCollector(namespace="insights", registry=self._registry)  # reads /proc: on Linux only

    def count_request(self, *, method: str, route: str, status: int, seconds: float | None) -> None:
        """`seconds` is None for a stream or a file: it lasts as long as its client likes."""
        self._requests.labels(method, route, str(status)).inc()
        if seconds is not None:
            self._request_latency.labels(route).observe(seconds)

    def record_call(self, *, seconds: float) -> None:
        """A call that was sent, however it ended."""
        self._calls.inc()
        self._call_latency.observe(seconds)

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

    def count_finished(self, status: str) -> None:
        self._finished.labels(status).inc()

    def count_failure(self, code: str) -> None:
        self._failures.labels(code).inc()

    def count_fenced(self, outcomes: int) -> None:
        self._fenced.inc(outcomes)

    def count_rescued(self, claims: int) -> None:
        self._rescued.inc(claims)

    def count_restart(self, loop: str) -> None:
        """`loop` is processor, upkeep or key-check."""
        self._restarts.labels(loop).inc()

    def observe_commit(self, units: int, seconds: float) -> None:
        """Called on the writer's thread."""
        self._commit_units.observe(units)
        self._commit_latency.observe(seconds)

    def count_tokens(self, kind: str, count: int) -> None:
        """`kind` is uncached, cached, output or reasoning."""
        self._tokens.labels(kind).inc(count)

    def count_cost(self, usd: float) -> None:
        self._cost.inc(usd)

    def render(self, measurements: Iterable[Measurement] = ()) -> bytes:
        """The text that Prometheus reads: what was counted, then `measurements`."""
        return generate_latest(self._registry) + to_text(measurements)
