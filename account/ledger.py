"""Who pays for calls to Grok: reserves before each one, settles after it, in the database and in the metrics."""

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from math import ceil
from typing import Literal

import store
from database import Database, WriteSession
from errors import GrokBudgetReached, GrokLaneShut, GrokTooDear, Overloaded, StorageFull
from grok_client import Cost, PlannedCall
from store import BudgetReached, Reservation, Reserved, Settlement, WindowFull
from telemetry import Metrics, get_logger
from xai import TICKS_PER_USD, PriceList, Usage

log = get_logger()

_WINDOW_POLL_S, _MOST_POLLS = 0.05, 100
_MOST_LATE = 3  # on a disk that is always slow, calls go all the same
_SMALL_PROMPT_BYTES, _SMALL_OUTPUT_TOKENS = 6_000, 320  # one tweet, with all that is the same in every call
_RESERVED_POLL_S = 2  # calls in flight may cost less than was reserved for them


@dataclass(frozen=True, slots=True)
class SpendingLimits:
    """Dollars a day (UTC), or None; calls in any window of `window_s`."""

    daily_budget_usd: float | None
    calls_per_window: int
    window_s: float

    @property
    def budget_ticks(self) -> int | None:
        return None if self.daily_budget_usd is None else int(self.daily_budget_usd * TICKS_PER_USD)


class Ledger:
    """The account of the calls to Grok, shared by all who use this database."""

    def __init__(
        self,
        database: Database,
        prices: PriceList,
        *,
        limits: SpendingLimits,
        metrics: Metrics,
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._database = database
        self._prices = prices
        self._limits = limits
        self._metrics = metrics
        self._now = now
        self._sleep = sleep
        self._caller = uuid.uuid4().hex
        self._dearer = 1.0  # than the price list says, as far as bills have shown

    async def reserve(self, call: PlannedCall) -> int:
        """A number for `settle`; waits while calls from before a restart, or of other replicas, fill the window.

        Raises: GrokTooDear, when fewer conversations may fit; GrokBudgetReached, with the wait until there may be room
        again: calls in flight, or midnight UTC; GrokLaneShut, when others fill the window for more than 5 s.
        """
        most_ticks = ceil(self._bound_ticks(call) * self._dearer)
        wanted = Reservation(
            caller=self._caller,
            own_calls=call.calls_in_window,
            model=call.model,
            conversations=call.conversations,
            most_ticks=max(1, most_ticks) if call.conversations else 0,  # 0 means settled: it only fills the window
            budget_ticks=self._limits.budget_ticks,
            calls_per_window=self._limits.calls_per_window,
            window=timedelta(seconds=self._limits.window_s),
        )
        late = 0
        for _ in range(_MOST_POLLS):
            entered_at, answer = await self._database.write(partial(self._enter, wanted=wanted), alone=True)
            if isinstance(answer, Reserved):
                if self._now() - entered_at < store.ON_THE_WAY / 2 or late == _MOST_LATE:
                    return answer.number
                late += 1
                # a slow commit: replicas would soon no longer count what has not even been sent
                await self._database.write(
                    partial(store.cancel_call, number=answer.number, now=self._now()), alone=True
                )
                continue
            if isinstance(answer, BudgetReached):
                raise self._refusal(wanted, answer)
            await self._sleep(_WINDOW_POLL_S)
        raise GrokLaneShut("Other replicas use the whole rate.", retry_after_s=_RESERVED_POLL_S)  # they take the rows

    def _enter(
        self, session: WriteSession, wanted: Reservation
    ) -> tuple[datetime, Reserved | WindowFull | BudgetReached]:
        """Told the time when its turn has come: a write may have waited, and calls count in windows of a second."""
        entered_at = self._now()
        return entered_at, store.reserve_call(session, wanted=wanted, now=entered_at)

    async def settle(self, number: int, call: PlannedCall, cost: Cost) -> None:
        """Never fails for the database's sake: an account that stays open is charged in full later."""
        try:
            if cost == "free":
                await self._database.write(partial(store.cancel_call, number=number, now=self._now()), alone=True)
            else:
                await self._charge(number, self._settlement(call, cost))
        except (Overloaded, StorageFull) as error:
            log.warning("grok_call_unsettled", error=error.code)

    async def _charge(self, number: int, settlement: Settlement) -> None:
        settle = partial(store.settle_call, number=number, settlement=settlement, now=self._now())
        ticks = await self._database.write(settle, alone=True)
        self._metrics.count_cost(ticks / TICKS_PER_USD)
        self._metrics.count_tokens("uncached", settlement.uncached_tokens)
        self._metrics.count_tokens("cached", settlement.cached_tokens)
        self._metrics.count_tokens("output", settlement.output_tokens)
        self._metrics.count_tokens("reasoning", settlement.reasoning_tokens)

    def _settlement(self, call: PlannedCall, cost: Usage | Literal["unknown"]) -> Settlement:
        if cost == "unknown" or cost.prompt_tokens > call.prompt_bytes:  # a token is at least a byte: not believed
            return Settlement()
        ticks = self._prices.cost_ticks(call.model, cost)
        self._watch_bound(call, ticks)
        return Settlement(
            uncached_tokens=cost.uncached_tokens,
            cached_tokens=cost.cached_tokens,
            output_tokens=cost.completion_tokens,
            reasoning_tokens=cost.reasoning_tokens,
            ticks=ticks,
        )

    def _watch_bound(self, call: PlannedCall, ticks: int) -> None:
        """A bill above what was reserved is told, and from then on so much more is reserved: the budget must hold."""
        bound = self._bound_ticks(call)
        if ticks > bound * self._dearer:
            self._dearer = ticks / max(1, bound)
            log.warning("grok_call_dearer_than_reserved", model=call.model, ticks=ticks, reserved_ticks=bound)

    def _bound_ticks(self, call: PlannedCall) -> int:
        return self._prices.most_ticks(call.model, prompt_bytes=call.prompt_bytes, output_tokens=call.output_tokens)

    def _refusal(self, wanted: Reservation, answer: BudgetReached) -> GrokBudgetReached | GrokTooDear:
        small = ticks_of_one(self._prices, wanted.model)
        usd = f"{wanted.most_ticks / TICKS_PER_USD:.4f}"
        too_dear_for_ever = wanted.budget_ticks is not None and wanted.most_ticks > wanted.budget_ticks
        if answer.for_today and wanted.conversations > 1:
            return GrokTooDear("The pack does not fit into what is left of the day's budget.")
        if answer.for_today and wanted.most_ticks > small:  # others may still fit
            details = f"This text alone may cost {usd} USD; raise GROK_DAILY_BUDGET_USD and send it back."
            return GrokTooDear(details, retry_after_s=None if too_dear_for_ever else self._until_midnight_s())
        if too_dear_for_ever:
            details = f"One call may cost {usd} USD, more than GROK_DAILY_BUDGET_USD: raise it."
            return GrokBudgetReached(details, retry_after_s=self._until_midnight_s())
        if not answer.for_today:
            return GrokBudgetReached(
                "Calls in flight hold the rest of the day's budget.", retry_after_s=_RESERVED_POLL_S
            )
        return GrokBudgetReached(
            "GROK_DAILY_BUDGET_USD is spent; calls go on at midnight UTC.", retry_after_s=self._until_midnight_s()
        )

    def _until_midnight_s(self) -> int:
        return int((next_midnight(self._now()) - self._now()).total_seconds()) + 1


def ticks_of_one(prices: PriceList, model: str) -> int:
    """The most that reading one tweet alone costs."""
    return prices.most_ticks(model, prompt_bytes=_SMALL_PROMPT_BYTES, output_tokens=_SMALL_OUTPUT_TOKENS)


class FreeCalls:
    """The account of the offline analyzer: nothing costs anything."""

    async def reserve(self, call: PlannedCall) -> int:  # noqa: ARG002 - as the protocol has it
        return 0

    async def settle(self, number: int, call: PlannedCall, cost: Cost) -> None:
        pass


def next_midnight(now: datetime) -> datetime:
    return datetime.combine(now.astimezone(UTC).date() + timedelta(days=1), datetime.min.time(), tzinfo=UTC)
