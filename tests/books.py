"""The account of calls on a real database, with what a test wants to see of its tables and to do to them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, select, update

from account import Ledger, SpendingLimits
from database import Database, WriteSession
from grok_client import PlannedCall
from models import GrokCall, GrokUsage
from store import charge_abandoned
from telemetry import Metrics
from tests.harness import HandClock
from xai import TICKS_PER_USD, PriceList, Usage

CALL = PlannedCall("grok-4.3", prompt_bytes=1000, output_tokens=320, conversations=3)
MOST_TICKS = 1000 * 12_500 + 320 * 25_000  # by hand, from prices.yaml
NO_LIMIT = 1_000_000


def usage_of(prompt: int, completion: int, *, cached: int = 0, ticks: int | None = None) -> Usage:
    read = Usage.read(
        {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
            "cost_in_usd_ticks": ticks,
        }
    )
    assert read is not None
    return read


@dataclass
class Books:
    """A ledger on a database, and what stands in its tables."""

    database: Database
    clock: HandClock
    metrics: Metrics = field(default_factory=Metrics)

    def ledger(
        self,
        *,
        budget_ticks: float | None = None,
        calls: int = NO_LIMIT,
        sleep: Callable[[float], Awaitable[None]] | None = None,
    ) -> Ledger:
        budget_usd = None if budget_ticks is None else budget_ticks / TICKS_PER_USD
        return Ledger(
            self.database,
            PriceList.load(),
            limits=SpendingLimits(budget_usd, calls, window_s=1.02),
            metrics=self.metrics,
            now=self.clock.now,
            sleep=sleep or self.clock.sleep,
        )

    async def spent(self) -> dict[str, int]:
        rows = await self.database.read(lambda session: session.execute(select(GrokUsage)).all())
        counts: dict[str, int] = {}
        for row in rows:
            for name in ("calls", "unreported_calls", "conversations", "cost_ticks"):
                counts[name] = counts.get(name, 0) + getattr(row, name)
        return counts

    async def cost_ticks(self) -> int:
        return (await self.spent()).get("cost_ticks", 0)

    async def reserved_ticks(self) -> int:
        rows = await self.database.read(lambda session: session.execute(select(GrokCall.reserved_ticks)).all())
        return sum(row.reserved_ticks for row in rows)

    async def let_pass(self, passed: timedelta) -> None:
        """PostgreSQL goes by a clock of its own: what stands in the books grows older instead."""

        def grow_older(session: WriteSession) -> None:
            for call in session.execute(select(GrokCall.id, GrokCall.called_at)).all():
                older = call.called_at - passed
                values = {"called_at": older, "day": older.date().isoformat()}
                session.execute(update(GrokCall).where(GrokCall.id == call.id).values(values))
            if passed >= timedelta(days=1):
                session.execute(update(GrokUsage).values(day="2000-01-01"))

        await self.database.write(grow_older)

    async def clear(self) -> None:
        def empty(session: WriteSession) -> None:
            session.execute(delete(GrokCall))
            session.execute(delete(GrokUsage))

        await self.database.write(empty)

    async def take_over(self) -> int:
        """What the owner of the queue does with calls of one that died."""
        later = datetime.now(UTC) + timedelta(days=36_500)
        return await self.database.write(lambda session: charge_abandoned(session, called_before=later))
