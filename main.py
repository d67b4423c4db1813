"""The composition root: read the settings, build each object once, join them, serve."""

import asyncio
import gc
import ipaddress
import signal
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import httpx2
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from pydantic import ValidationError

import routes
from access import KeyRing, open_keys
from account import FreeCalls, KeyCheck, Ledger, SpendingLimits, ticks_of_one
from batch_processor import BatchProcessor, ProcessorLimits
from circuit_breaker import CircuitBreaker
from database import Database, file_of, find_damage, parse_database_url
from errors import InsightsError, StorageUnusable
from grok_client import Account, CallLimits, CallTemplate, GrokClient
from intake import Intake
from lane import Lane
from local_analyzer import LOCAL_MODEL, LocalAnalyzer
from middleware import ApiGate, RequestLog
from mock_grok import MockGrokTransport
from prefilter import Prefilter
from prompts import Prompt
from queue_lock import QueueLock
from rate_limiter import CallWindow, FairLimiter
from reader import PackLimits, PackSize, Reader, ReaderPolicy
from serving import serve_until_signal
from settings import Settings, check_env_file, describe_problems
from survival import Supervisor, arm, parse_failpoints
from telemetry import Metrics, configure_logging, get_logger
from topics import (
    TOPICS_PATH,
    Topic,
    TopicsInvalid,
    former_ids,
    load_topics,
    topic_aliases,
    topic_descriptions,
    topic_patterns,
)
from upkeep import Upkeep
from xai import PRICES_PATH, PriceList, PricesInvalid

log = get_logger()

_CALL_WINDOW_S = 1.01  # what is sent within 1 s may arrive within less: the way takes a varying time
_UNLIMITED_CALLS = 1_000_000  # the offline analyzer needs no protection from us
_KEPT_CONNECTIONS = 20  # more are walked at every call (DESIGN measured 5 to 10 ms of CPU a call with 200)
_PATIENCE_S = 120  # twice what any loop rests at most
_DAMAGED = """{file} is damaged: {damage}.
Nothing was changed. To go on with a backup: python -m backups restore FILE. It keeps what is there.
To see what is wrong: python -m backups check {file}"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service. Raises: ValueError, with a sentence for the user, when a setting cannot be used."""
    settings = settings or Settings()
    configure_logging("DEBUG" if settings.debug else settings.log_level, environment=settings.environment)
    arm(parse_failpoints(settings.failpoints or ""))
    keys = open_keys(
        [key.get_secret_value() for key in settings.api_keys],
        settings.api_keys_file,
        production=settings.environment == "production",
        allow_anonymous=settings.allow_anonymous,
        monotonic=time.monotonic,
        now=now,
    )
    parts = Parts.of(settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[routes.State, None]:
        await parts.database.open()
        try:
            async with build_http(settings, parts) as http, serve(settings, parts, http) as state:
                yield state
        finally:
            await parts.database.close()
            log.info("stopped")

    app = routes.make_application(lifespan)
    _add_middleware(app, settings, keys=keys, metrics=parts.metrics)
    return app


@dataclass(frozen=True, slots=True)
class Parts:
    """What is built once and lives as long as the application."""

    database: Database
    metrics: Metrics
    topics: tuple[Topic, ...]
    prices: PriceList

    @classmethod
    def of(cls, settings: Settings) -> "Parts":
        """Raises: ValueError, when a file or the database's address cannot be used."""
        metrics = Metrics()
        return cls(
            Database.connect(settings.database_url, on_commit=metrics.observe_commit),
            metrics,
            load_topics(settings.topics_file or TOPICS_PATH),
            PriceList.load(settings.prices_file or PRICES_PATH, usd_per_1k_tokens=settings.grok_cost_per_1k),
        )

    def local_analyzer(self) -> LocalAnalyzer:
        return LocalAnalyzer.load(topic_patterns=topic_patterns(self.topics), renamed=former_ids(self.topics))


@asynccontextmanager
async def serve(settings: Settings, parts: Parts, http: httpx2.AsyncClient) -> AsyncGenerator[routes.State, None]:
    """Work the queue for as long as the context lasts, and hand out what the handlers share."""
    client = build_client(settings, parts, http)
    reader = build_reader(settings, parts, client)
    processor = build_processor(settings, parts, reader)
    model = model_of(settings)
    key_check = KeyCheck(client, parts.prices, model=model, needed=settings.effective_grok_mode == "real")
    upkeep = build_upkeep(settings, parts, reader=reader, processor=processor)
    supervisor = Supervisor(patience_s=_PATIENCE_S, on_restart=parts.metrics.count_restart)
    worker = asyncio.create_task(supervisor.keep("processor", processor.run, beats=lambda: processor.beats))
    beside = [
        asyncio.create_task(supervisor.keep("key-check", key_check.watch, beats=lambda: key_check.beats)),
        asyncio.create_task(supervisor.keep("upkeep", upkeep.run, beats=lambda: upkeep.beats)),
    ]
    log.info("started", grok_mode=settings.effective_grok_mode, database=parts.database.dialect)
    state: routes.State = {
        "database": parts.database,
        "intake": Intake(parts.database, now=now, on_accepted=processor.wake),
        "processor": processor,
        "expensive_limiter": FairLimiter(10, window_s=60, monotonic=time.monotonic),
        "upkeep": upkeep,
        "files": routes.Files(parts.database),
        "ticks_of_one": ticks_of_one(parts.prices, model),
        "grok_mode": settings.effective_grok_mode,
        "grok_model": model,
        "worker_running": lambda: not worker.done(),
        "lane": client.lane,
        "key_check": key_check,
        "pack_size": reader.pack_size,
        "metrics": parts.metrics,
        "streams": routes.Streams(),
        "budget_usd": settings.grok_daily_budget_usd,
        "topics": parts.topics,
        "former_topics": former_ids(parts.topics),
    }
    try:
        yield state
    finally:
        supervisor.end()
        processor.stop()
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await worker


def model_of(settings: Settings) -> str:
    return LOCAL_MODEL if settings.effective_grok_mode == "mock" else settings.grok_model


def build_http(settings: Settings, parts: Parts) -> httpx2.AsyncClient:
    """The client's connection to xAI, or in mock mode to the local analyzer; no redirects, no environment."""
    key = settings.grok_key.get_secret_value() if settings.grok_key else ""
    transport: httpx2.AsyncBaseTransport
    if settings.effective_grok_mode == "mock":
        transport = MockGrokTransport(parts.local_analyzer())
        key = ""
    else:
        limits = httpx2.Limits(
            max_connections=settings.grok_max_concurrency, max_keepalive_connections=_KEPT_CONNECTIONS
        )
        transport = httpx2.AsyncHTTPTransport(limits=limits, trust_env=False)
    return httpx2.AsyncClient(
        base_url=settings.grok_base_url.rstrip("/") + "/",
        headers={"authorization": f"Bearer {key}"} if key else {},
        transport=transport,
        timeout=settings.grok_timeout_seconds,
        trust_env=False,
    )


def build_client(settings: Settings, parts: Parts, http: httpx2.AsyncClient) -> GrokClient:
    mock = settings.effective_grok_mode == "mock"
    calls_per_s = _UNLIMITED_CALLS if mock else settings.grok_calls_per_second
    limits = CallLimits(
        max_concurrency=settings.grok_max_concurrency,
        deadline_s=settings.grok_timeout_seconds,
        monotonic=time.monotonic,
    )
    breaker = CircuitBreaker(
        threshold=settings.error_threshold,
        cooldown_s=settings.circuit_breaker_cooldown_seconds,
        monotonic=time.monotonic,
    )
    window = CallWindow(calls_per_s, window_s=_CALL_WINDOW_S, monotonic=time.monotonic)
    model = model_of(settings)
    prompt = Prompt(topic_descriptions(parts.topics), aliases=topic_aliases(parts.topics))
    return GrokClient(
        http,
        template=CallTemplate(model, prompt, effort=parts.prices.least_effort(model)),
        lane=Lane(window, breaker, monotonic=time.monotonic),
        account=FreeCalls() if mock else build_ledger(settings, parts),
        limits=limits,
        metrics=parts.metrics,
    )


def build_ledger(settings: Settings, parts: Parts) -> Account:
    return Ledger(
        parts.database,
        parts.prices,
        limits=SpendingLimits(
            daily_budget_usd=settings.grok_daily_budget_usd,
            calls_per_window=settings.grok_calls_per_second,
            window_s=_CALL_WINDOW_S,
        ),
        metrics=parts.metrics,
        now=now,
        sleep=asyncio.sleep,
    )


def build_reader(settings: Settings, parts: Parts, client: GrokClient) -> Reader:
    mock = settings.effective_grok_mode == "mock"
    fixed = settings.grok_pack_size
    packs = (
        PackLimits(fixed, fixed, fixed)
        if fixed
        else PackLimits(settings.min_batch_size, settings.start_batch_size, settings.max_batch_size)
    )
    return Reader(
        parts.database,
        client,
        prefilter=Prefilter(
            None if mock else parts.local_analyzer(),
            cascade_confidence=settings.cascade_confidence,
            audit_share=0 if mock else settings.prefilter_audit,  # there is no other reader to audit with
        ),
        pack_size=PackSize(packs),
        policy=ReaderPolicy(
            max_attempts=settings.max_attempts,
            canary_share=0 if mock else settings.canary_share,
            # offline, analyzing is cheaper than remembering, and edited topics show at once; Grok's answers stay
            cache_lifetime=None if mock else timedelta(days=settings.cache_days),
        ),
        now=now,
    )


def build_processor(settings: Settings, parts: Parts, reader: Reader) -> BatchProcessor:
    return BatchProcessor(
        parts.database,
        reader,
        limits=ProcessorLimits(
            batch_size=settings.batch_size,
            max_calls=settings.grok_max_concurrency,
            poll_interval_s=settings.poll_interval_seconds,
            call_deadline_s=settings.grok_timeout_seconds,
            lease=timedelta(seconds=settings.lease_seconds),
        ),
        queue_lock=QueueLock(parts.database.file) if parts.database.file else None,
        metrics=parts.metrics,
        now=now,
    )


def build_upkeep(settings: Settings, parts: Parts, *, reader: Reader, processor: BatchProcessor) -> Upkeep:
    return Upkeep(
        parts.database,
        renamed=former_ids(parts.topics),
        retention=None if settings.retention_days is None else timedelta(days=settings.retention_days),
        now=now,
        on_requeued=processor.wake,
        on_erased=reader.forget_answers,
    )


def now() -> datetime:
    return datetime.now(UTC)


def main() -> None:
    """Start the service; a setting that cannot be used ends it with a sentence and status 2."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until it serves there is nothing to hand back: Ctrl-C just ends it
    try:
        check_env_file()
        settings = Settings()
        app = create_app(settings)
    except ValidationError as error:
        sys.exit(_refuse(describe_problems(error)))
    except (TopicsInvalid, PricesInvalid, ValueError) as error:
        sys.exit(_refuse(str(error)))
    try:
        _refuse_damage(settings.database_url)
        asyncio.run(_check_database(settings.database_url))
    except (InsightsError, OSError) as error:
        sys.stderr.write(f"The service cannot start: its database cannot be opened.\n{error}\n")
        sys.exit(3)
    gc.collect()
    gc.freeze()  # modules live as long as the process; walking them took 50 ms several times a second under load
    serve_until_signal(app, host=settings.host, port=settings.port, calls=settings.grok_max_concurrency)


def _refuse_damage(url: str) -> None:
    """Raises: StorageUnusable, with what to do, when the file is damaged; nothing has been changed."""
    if (file := file_of(parse_database_url(url))) is not None and (damage := find_damage(file)) is not None:
        raise StorageUnusable(_DAMAGED.format(file=file, damage=damage))


async def _check_database(url: str) -> None:
    """Open, migrate and close once, so that a database that cannot be used ends the start with a sentence."""
    database = Database.connect(url)
    try:
        await database.open()
    finally:
        await database.close()


def _refuse(reason: str) -> int:
    sys.stderr.write(f"The service cannot start:\n{reason}\nSee .env.example for every setting.\n")
    return 2


def _add_middleware(app: FastAPI, settings: Settings, *, keys: KeyRing, metrics: Metrics) -> None:
    """The last added is the first passed: log, then CORS, then the gate."""
    limit = partial(
        FairLimiter,
        settings.rate_limit_requests,
        window_s=settings.rate_limit_window_seconds,
        monotonic=time.monotonic,
    )
    app.add_middleware(
        ApiGate,
        limiter=limit(),
        strangers=limit(),
        keys=keys,
        trusted_proxies=[ipaddress.ip_network(network) for network in settings.trusted_proxies],
    )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Content-Disposition", "Link", "Location", "Retry-After", "X-Request-ID", "X-Total-Count"],
        )
    app.add_middleware(RequestLog, metrics=metrics)


if __name__ == "__main__":
    main()
