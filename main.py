"""The composition root: read the settings, build each object once, join them, serve."""

import asyncio
import gc
import ipaddress
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx2
import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route
from starlette.types import Scope

import routes
from batch_processor import BatchProcessor, PackSize, ProcessorLimits
from circuit_breaker import CircuitBreaker
from database import Database
from errors import InsightsError, InvalidSchema, MethodNotAllowed, NotFound
from grok_client import CallLimits, GrokClient
from intake import Intake
from local_analyzer import LocalAnalyzer
from middleware import ApiGate, RequestLog
from mock_grok import LOCAL_MODEL, MockGrokTransport
from problems import MEDIA_TYPE, invalid_schema, to_body
from prompts import Prompt
from queue_lock import QueueLock
from rate_limiter import FairLimiter, SlidingWindow
from settings import Settings, describe_problems
from telemetry import configure_logging, get_logger
from topics import TOPICS_PATH, Topic, TopicsInvalid, load_topics, topic_patterns

log = get_logger()

_CALL_WINDOW_S = 1.03  # what is admitted within 1 s may arrive within less: sending takes a varying time
_UNLIMITED_CALLS = 1_000_000  # the offline analyzer needs no protection from us
_KEPT_CONNECTIONS = 20  # more are walked at every call (DESIGN measured 5 to 10 ms of CPU a call with 200)
_GRACE_S = 5  # with 3 s for the processor's last save and the database: below the container's stop timeout


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service. Raises: ValueError, with a sentence for the user, when a setting cannot be used."""
    settings = settings or Settings()
    configure_logging("DEBUG" if settings.debug else settings.log_level, environment=settings.environment)
    topics = load_topics(settings.topics_file or TOPICS_PATH)
    database = Database.connect(settings.database_url)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[routes.State, None]:
        await database.open()
        try:
            async with build_http(settings, topics) as http:
                client = build_client(settings, http, topics)
                processor = build_processor(settings, database, client)
                worker = asyncio.create_task(processor.run(), name="processor")
                log.info("started", grok_mode=settings.effective_grok_mode, database=database.dialect)
                yield {
                    "database": database,
                    "intake": Intake(database, now=lambda: datetime.now(UTC), on_accepted=processor.wake),
                    "processor": processor,
                    "retry_limiter": FairLimiter(10, window_s=60, monotonic=time.monotonic),
                    "grok_mode": settings.effective_grok_mode,
                    "worker_running": lambda: not worker.done(),
                    "grok_outage": lambda: client.outage,
                }
                processor.stop()
                await worker
        finally:
            await database.close()
            log.info("stopped")

    app = FastAPIOffline(
        title="Insights Platform API",
        version="0.1.0",
        description="Conversations in, insights out: what customers are unhappy about, and since when.",
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,  # the redirect would be built from the Host header, which anyone can write
    )
    app.include_router(routes.taking_in)
    app.include_router(routes.api)
    app.include_router(routes.router)
    _shorten(app, routes.taking_in)
    _correct_openapi(app)
    _add_error_handlers(app)
    _add_middleware(app, settings)
    return app


def build_http(settings: Settings, topics: tuple[Topic, ...]) -> httpx2.AsyncClient:
    """The client's connection to xAI, or in mock mode to the local analyzer; no redirects, no environment."""
    key = settings.grok_key.get_secret_value() if settings.grok_key else ""
    transport: httpx2.AsyncBaseTransport
    if settings.effective_grok_mode == "mock":
        transport = MockGrokTransport(LocalAnalyzer.load(topic_patterns=topic_patterns(topics)))
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


def build_client(settings: Settings, http: httpx2.AsyncClient, topics: tuple[Topic, ...]) -> GrokClient:
    mock = settings.effective_grok_mode == "mock"
    calls_per_s = _UNLIMITED_CALLS if mock else settings.grok_calls_per_second
    return GrokClient(
        http,
        model=LOCAL_MODEL if mock else settings.grok_model,
        prompt=Prompt({topic.id: topic.description for topic in topics}),
        window=SlidingWindow(calls_per_s, window_s=_CALL_WINDOW_S, monotonic=time.monotonic),
        breaker=CircuitBreaker(
            threshold=settings.error_threshold,
            cooldown_s=settings.circuit_breaker_cooldown_seconds,
            monotonic=time.monotonic,
        ),
        limits=CallLimits(
            max_concurrency=settings.grok_max_concurrency,
            deadline_s=settings.grok_timeout_seconds,
            monotonic=time.monotonic,
        ),
    )


def build_processor(settings: Settings, database: Database, client: GrokClient) -> BatchProcessor:
    return BatchProcessor(
        database,
        client,
        limits=ProcessorLimits(
            batch_size=settings.batch_size,
            max_calls=settings.grok_max_concurrency,
            max_attempts=settings.max_attempts,
            poll_interval_s=settings.poll_interval_seconds,
        ),
        pack_size=PackSize(
            smallest=settings.min_batch_size, start=settings.start_batch_size, largest=settings.max_batch_size
        ),
        queue_lock=QueueLock(database.file) if database.file else None,
        now=lambda: datetime.now(UTC),
    )


def main() -> None:
    """Start the service; a setting that cannot be used ends it with a sentence and status 2."""
    try:
        settings = Settings()
        app = create_app(settings)
    except ValidationError as error:
        sys.exit(_refuse(describe_problems(error)))
    except (TopicsInvalid, ValueError) as error:
        sys.exit(_refuse(str(error)))
    try:
        asyncio.run(_check_database(settings.database_url))
    except (InsightsError, OSError) as error:
        sys.stderr.write(f"The service cannot start: its database cannot be opened.\n{error}\n")
        sys.exit(3)
    gc.collect()
    gc.freeze()  # modules live as long as the process; walking them took 50 ms several times a second under load
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )


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


def _shorten(app: FastAPI, router: APIRouter) -> None:
    """Put the same endpoints in front as plain routes: FastAPI's wrapping costs more than all they do themselves.

    The routes behind them stay for the OpenAPI document.
    """
    for route in router.routes:
        assert isinstance(route, APIRoute)
        app.router.routes.insert(0, _DirectRoute(route.path, route.endpoint, methods=["POST"]))


class _DirectRoute(Route):
    """Takes only what is all its own, and names itself in the scope, as FastAPI's routes do: the log reads it."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        return (match, {**child_scope, "route": self}) if match is Match.FULL else (Match.NONE, {})


def _correct_openapi(app: FastAPI) -> None:
    """Say what is true of errors: their media type, and that a wrong parameter is a 400, never FastAPI's 422."""
    generate = app.openapi

    def corrected() -> dict[str, Any]:
        if app.openapi_schema is None:
            document: dict[str, Any] = generate()
            paths: dict[str, dict[str, Any]] = document["paths"]
            for operation in (operation for path in paths.values() for operation in path.values()):
                _correct_responses(operation["responses"])
            for unused in ("HTTPValidationError", "ValidationError"):
                document["components"]["schemas"].pop(unused, None)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = corrected  # type: ignore[method-assign]  # the way FastAPI's documentation gives


def _correct_responses(responses: dict[str, Any]) -> None:
    for status, response in list(responses.items()):
        content = response.get("content", {})
        if status == "422" and "HTTPValidationError" in str(content):
            del responses[status]
        elif status >= "400":
            response["content"] = {MEDIA_TYPE: content["application/json"]}


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    """The last added is the first passed: log, then CORS, then the gate."""
    app.add_middleware(
        ApiGate,
        limiter=FairLimiter(
            settings.rate_limit_requests, window_s=settings.rate_limit_window_seconds, monotonic=time.monotonic
        ),
        api_keys=[key.get_secret_value() for key in settings.api_keys],
        trusted_proxies=[ipaddress.ip_network(network) for network in settings.trusted_proxies],
    )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Link", "Location", "Retry-After", "X-Request-ID"],
        )
    app.add_middleware(RequestLog)


def _add_error_handlers(app: FastAPI) -> None:
    def answer(error: InsightsError) -> Response:
        body, headers = to_body(error)
        return Response(body, status_code=error.status, media_type=MEDIA_TYPE, headers=headers)

    async def answer_ours(_request: Request, error: Exception) -> Response:
        assert isinstance(error, InsightsError)
        return answer(error)

    async def answer_validation(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return answer(invalid_schema(error.errors(), place="parameter"))

    async def answer_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        response = answer(_from_http(error))
        response.headers.update(error.headers or {})
        if error.status_code == 405:
            response.headers["Allow"] = ", ".join(_methods_of(request.url.path))
        return response

    async def answer_gone(_request: Request, _error: Exception) -> Response:
        return Response(status_code=400)  # nobody listens any more

    app.add_exception_handler(InsightsError, answer_ours)
    app.add_exception_handler(RequestValidationError, answer_validation)
    app.add_exception_handler(HTTPException, answer_http)
    app.add_exception_handler(ClientDisconnect, answer_gone)


def _methods_of(path: str) -> list[str]:
    """Every method that some route takes at this path; the framework names those of one route only."""
    every = [*routes.taking_in.routes, *routes.api.routes, *routes.router.routes]
    here = [route for route in every if isinstance(route, APIRoute) and route.path_regex.match(path)]
    return sorted({method for route in here for method in route.methods or ()})


def _from_http(error: HTTPException) -> InsightsError:
    if error.status_code == 404:
        return NotFound("There is nothing at this path; see /docs.")
    if error.status_code == 405:
        return MethodNotAllowed("This path does not take this method; see /docs.")
    return InvalidSchema("The request cannot be read.")


if __name__ == "__main__":
    main()
