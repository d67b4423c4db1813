"""The HTTP application: its routes, and what its errors look like."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from errors import InsightsError, InvalidSchema, MethodNotAllowed, NotFound
from problems import MEDIA_TYPE, invalid_schema, to_body
from routes.conversations import conversations
from routes.corrections import corrections
from routes.erasing import erasing
from routes.events import events
from routes.insights import ANSWERED, insights
from routes.openapi import install_document
from routes.operations import operations
from routes.permissions import check_declared, check_scope, check_scope_of
from routes.reanalyses import reanalyses
from routes.shared import VERSION, State
from routes.taking_in import TAKEN_IN, taking_in

ROUTERS = (taking_in, conversations, erasing, insights, corrections, reanalyses, events, operations)

Endpoint = Callable[[Request], Awaitable[Response]]
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[State]]


def make_application(lifespan: Lifespan) -> FastAPI:
    app = FastAPIOffline(
        title="Insights Platform API",
        version=VERSION,
        description="Conversations in, insights out: what customers are unhappy about, and since when.",
        lifespan=lifespan,
        redoc_url=None,
        generate_unique_id_function=_name_of,
        redirect_slashes=False,  # the redirect would be built from the Host header, which anyone can write
    )
    check_declared(ROUTERS)
    for router in ROUTERS:
        app.include_router(router, dependencies=[Depends(check_scope)])
    _shorten(app, taking_in, TAKEN_IN)
    _shorten(app, insights, ANSWERED)
    install_document(app)
    _add_error_handlers(app)
    return app


def _name_of(route: APIRoute) -> str:
    """The operation's id, after which generators name a client's methods: the name of the function that answers."""
    return route.name


def _shorten(app: FastAPI, router: APIRouter, endpoints: Mapping[str, Endpoint]) -> None:
    """Put these operations in front as plain routes: FastAPI's wrapping costs as much as all they do themselves.

    The routes behind them stay for the OpenAPI document.
    """
    for route in router.routes:
        assert isinstance(route, APIRoute)
        if route.name in endpoints:
            app.router.routes.insert(0, _DirectRoute(route, endpoints[route.name]))


class _DirectRoute(Route):
    """Takes only what is all its own, and names itself in the scope, as FastAPI's routes do: the log reads it."""

    def __init__(self, route: APIRoute, endpoint: Endpoint) -> None:
        super().__init__(route.path, endpoint, name=route.name)
        self.methods = route.methods  # without the HEAD that a plain route would take with GET

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        return (match, {**child_scope, "route": self}) if match is Match.FULL else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        check_scope_of(scope)
        await super().handle(scope, receive, send)


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
    """Every method that some route takes at this path, which the framework does not gather.

    A path that is written out is not also an id of the path with a parameter.
    """
    every = [route for router in ROUTERS for route in router.routes]
    here = [route for route in every if isinstance(route, APIRoute) and route.path_regex.match(path)]
    here = [route for route in here if route.path == path] or here
    return sorted({method for route in here for method in route.methods or ()})


def _from_http(error: HTTPException) -> InsightsError:
    if error.status_code == 404:
        return NotFound("There is nothing at this path; see /docs.")
    if error.status_code == 405:
        return MethodNotAllowed("This path does not take this method; see /docs.")
    return InvalidSchema("The request cannot be read.")
