"""Starts a loop again that ended by an error, or that hangs; the log and a metric tell of it.

keep: run --> ends well: done
       ^----- raises, or gives no sign of life for `patience_s`: cancelled, told, a rest
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from telemetry import get_logger

log = get_logger()

_LOOK_EVERY_S = 1.0
_FIRST_REST_S, _LONGEST_REST_S = 0.5, 30.0  # doubles while a loop dies young

Run = Callable[[], Coroutine[Any, Any, None]]


class Supervisor:
    """Keeps loops running until `end`; `on_restart` is told the name of each that is started again."""

    def __init__(
        self,
        *,
        patience_s: float,
        on_restart: Callable[[str], None],
        look_every_s: float = _LOOK_EVERY_S,
        first_rest_s: float = _FIRST_REST_S,
        longest_rest_s: float = _LONGEST_REST_S,
    ) -> None:
        self._patience_s = patience_s
        self._on_restart = on_restart
        self._look_every_s = look_every_s
        self._first_rest_s = first_rest_s
        self._longest_rest_s = longest_rest_s
        self._ending = asyncio.Event()

    async def keep(self, name: str, run: Run, *, beats: Callable[[], int]) -> None:
        """Until `run` ends well; it can be run again. `beats` grows with every sign of life."""
        clock = asyncio.get_running_loop().time
        rest_s = self._first_rest_s
        while not self._ending.is_set():
            started = clock()
            if await self._ends_well(name, run, beats) or self._ending.is_set():
                return
            self._on_restart(name)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), rest_s)
            died_young = clock() - started < self._longest_rest_s
            rest_s = min(rest_s * 2, self._longest_rest_s) if died_young else self._first_rest_s

    def end(self) -> None:
        """From now on nothing is started again."""
        self._ending.set()

    async def _ends_well(self, name: str, run: Run, beats: Callable[[], int]) -> bool:
        task = asyncio.create_task(run(), name=name)
        try:
            hangs = await self._watch(task, beats)
        except asyncio.CancelledError:
            await _cancel(task)
            raise
        if hangs:
            log.error("loop_hangs", loop=name, silent_s=self._patience_s)
            await _cancel(task)  # as long as it takes: two of the same at a time would be worse than none
            return False
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("loop_died", loop=name, exc_info=error)
            return False
        return True

    async def _watch(self, task: asyncio.Task[None], beats: Callable[[], int]) -> bool:
        """Until it ends, or hangs: then True."""
        clock = asyncio.get_running_loop().time
        heard, heard_at = beats(), clock()
        while not (await asyncio.wait([task], timeout=self._look_every_s))[0]:
            if beats() != heard:
                heard, heard_at = beats(), clock()
            elif clock() - heard_at > self._patience_s:
                return True
        return False


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("loop_died", loop=task.get_name(), exc_info=error)
