"""For loops that must go on whatever their work raises: what that was is logged, not passed on."""

from collections.abc import Awaitable, Callable

from errors import Overloaded, StorageFull
from telemetry import get_logger

log = get_logger()


async def survive(work: Callable[[], Awaitable[None]], name: str) -> bool:
    """Whether `work` ended well. A busy or full database is a warning; anything else comes with its traceback."""
    try:
        await work()
    except (Overloaded, StorageFull) as error:
        log.warning(name, error=error.code)
        return False
    except Exception:
        log.exception(name)
        return False
    return True
