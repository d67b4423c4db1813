"""Who may ask what: the scope that each operation needs, in one table; a route that is not in it does not start."""

from collections.abc import Iterable, Mapping

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.types import Scope as Connection

from access import Scope
from errors import Forbidden

SCOPES: Mapping[str, Scope | None] = {
    "post_conversation": Scope.INGEST,
    "post_bulk": Scope.INGEST,
    "list_conversations": Scope.READ,
    "get_conversation": Scope.READ,
    "find_insights": Scope.READ,
    "read_trends": Scope.READ,
    "count_topics": Scope.READ,
    "read_quality": Scope.READ,
    "list_reanalyses": Scope.READ,
    "follow_events": Scope.READ,
    "read_summary": Scope.READ,  # it tells what Grok costs; a monitor has no need to be able to erase
    "put_correction": Scope.ADMIN,  # whoever reads next is told otherwise
    "delete_correction": Scope.ADMIN,
    "retry_failed": Scope.ADMIN,
    "retry_conversation": Scope.ADMIN,
    "reanalyze": Scope.ADMIN,
    "stop_reanalysis": Scope.ADMIN,
    "erase_conversation": Scope.ADMIN,
    "erase_author": Scope.ADMIN,
    "check_health": None,  # probes and Prometheus have no key
    "check_ready": None,
    "read_metrics": None,
}


def check_declared(routers: Iterable[APIRouter]) -> None:
    """Raises: AssertionError when some operation is not in the table, or the table has one that is not served."""
    served = {route.name for router in routers for route in router.routes if isinstance(route, APIRoute)}
    assert served == set(SCOPES), f"routes and the table of scopes differ: {sorted(served ^ set(SCOPES))}"


async def check_scope(request: Request) -> None:
    """Raises: Forbidden. For every operation, before its parameters are looked at."""
    check_scope_of(request.scope)


def check_scope_of(connection: Connection) -> None:
    """Raises: Forbidden; KeyError where the gate has not been passed, so that nothing but what is public is open."""
    needed = SCOPES[connection["route"].name]
    if needed is not None and needed not in connection["state"]["caller"].scopes:
        raise Forbidden(
            f"This needs a key with the scope `{needed}`, which yours does not have; ask the operator for one."
        )
