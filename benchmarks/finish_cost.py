"""What it costs a finish that insights are counted and indexed: the service's own, beside the same without.

Each of the three writes to a copy of the same made database, in turn. A finish is `store.save_outcomes` through the
writer, commit included. What it leaves out it is made to leave out from outside: the statement for the counters is not
sent, indexes and triggers are dropped.
"""

import asyncio
import random
import shutil
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from sqlalchemy import event

import store
from benchmarks.made_history import END, Made, make_insights
from benchmarks.made_insights import MODEL
from database import Database, WriteSession
from models import InsightCount, InsightRow, InsightTopic
from schemas import Analysis, ConversationIn
from store import Claim, Completed, Submission

COMPLETE, UNCOUNTED, BARE = "complete", "no counters", "no counters, no indexes"
VARIANTS = (COMPLETE, UNCOUNTED, BARE)
SIZES = (10, 200)
LIVE, HISTORY = "live", "over 90 days"
_LEASE = timedelta(hours=1)
_COUNTING = f"INSERT INTO {InsightCount.__tablename__} "


@dataclass(frozen=True, slots=True)
class Finish:
    """How long one took; `times` says when its insights happened."""

    times: str
    size: int
    variant: str
    seconds: float


@dataclass(slots=True)
class FinishCost:
    finishes: list[Finish] = field(default_factory=list[Finish])

    def per_s(self, times: str, size: int, variant: str) -> float:
        """Insights a second, by the median finish."""
        wanted = (times, size, variant)
        return size / median(one.seconds for one in self.finishes if (one.times, one.size, one.variant) == wanted)


def measure_finish(made: Path, folder: Path, *, rounds: int) -> FinishCost:
    """`folder` is for the copies, and is removed with them. Raises: RuntimeError, when a finish is refused."""
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    folder.mkdir(parents=True)
    try:
        return asyncio.run(_measure(made, folder, rounds=rounds))
    finally:
        shutil.rmtree(folder)


async def _measure(made: Path, folder: Path, *, rounds: int) -> FinishCost:
    cost = FinishCost()
    async with AsyncExitStack() as stack:
        databases = [await _open_copy(made, folder / f"{number}.db", stack) for number in range(len(VARIANTS))]
        for variant, database in zip(VARIANTS, databases, strict=True):
            await database.write(partial(leave_out, variant=variant))
        for number, times, size in product(range(rounds), (LIVE, HISTORY), SIZES):
            insights = _draw(number, size, times=times)
            for variant, database in zip(VARIANTS, databases, strict=True):
                cost.finishes.append(Finish(times, size, variant, await finish(database, insights)))
    return cost


async def _open_copy(made: Path, path: Path, stack: AsyncExitStack) -> Database:
    shutil.copyfile(made, path)
    database = Database.connect(f"sqlite:///{path}")
    stack.push_async_callback(database.close)
    await database.open()
    return database


def leave_out(session: WriteSession, *, variant: str) -> None:
    """From now on, whatever is written through this engine."""
    if variant != COMPLETE:
        event.listen(session.engine, "do_executemany", _skip_counters)
    if variant == BARE:
        tables = [InsightRow.__tablename__, InsightTopic.__tablename__]
        found = session.exec_driver_sql(
            "SELECT type, name FROM sqlite_master WHERE type IN ('index', 'trigger') AND sql IS NOT NULL"
            f" AND tbl_name IN ({', '.join('?' * len(tables))})",
            tuple(tables),
        )
        for kind, name in found.all():
            session.exec_driver_sql(f"DROP {kind} {name}")


def _skip_counters(_cursor: Any, statement: str, _parameters: Any, _context: Any) -> bool:
    """True: taken care of, do not send it."""
    return statement.startswith(_COUNTING)


def _draw(number: int, size: int, *, times: str) -> list[Made]:
    """Insights that were not there before: live ones happen within a minute, the others whenever they did."""
    insights = list(make_insights(0, size, rows=size, seed=1_000 + number))
    random.Random(number).shuffle(insights)
    if times == HISTORY:
        return insights
    return [replace(one, timestamp=END + timedelta(seconds=number + place % 60)) for place, one in enumerate(insights)]


async def finish(database: Database, insights: Sequence[Made]) -> float:
    """Accept and claim them, then finish them together; seconds of the finish alone, commit included."""
    claims = await database.write(partial(_claim, insights=insights))
    outcomes = [Completed(claim, _analysis_of(one), MODEL) for claim, one in zip(claims, insights, strict=True)]
    started_at = perf_counter()
    refused = await database.write(partial(store.save_outcomes, outcomes=outcomes, now=datetime.now(UTC)))
    seconds = perf_counter() - started_at
    if refused:
        raise RuntimeError(f"{len(refused)} of {len(outcomes)} finishes were refused")
    return seconds


def _claim(session: WriteSession, *, insights: Sequence[Made]) -> list[Claim]:
    """Accepted and claimed, in the order of the insights."""
    now = datetime.now(UTC)
    conversations = [ConversationIn(text=one.text, author=one.author, timestamp=one.timestamp) for one in insights]
    [accepted] = store.accept(session, submissions=[Submission(conversations)], now=now)
    assert isinstance(accepted, list), "nobody sent an idempotency key"
    claims = {
        claim.conversation_id: claim for claim in store.claim_batch(session, limit=len(insights), now=now, lease=_LEASE)
    }
    return [claims[one.conversation_id] for one in accepted]


def _analysis_of(made: Made) -> Analysis:
    return Analysis(
        sentiment_score=made.score,
        clusters=made.topics,
        confidence=made.confidence,
        reasoning=f"The customer writes of {', '.join(made.topics)}.",
        summary=made.text[:60],
    )
