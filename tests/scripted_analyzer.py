"""An analyzer by script, a database that can refuse, and a bench on which a reader is tried with both."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

from sqlalchemy import text as sql

import queries
import store
from batch_processor import BatchProcessor, ProcessorLimits
from database import Database, ReadSession, WriteSession
from errors import GrokReplyInvalid
from grok_client import PackAnswer
from local_analyzer import LocalAnalyzer
from prefilter import Prefilter
from queue_lock import QueueLock
from reader import Batch, PackLimits, PackSize, Reader, ReaderPolicy, Reading
from schemas import Analysis, ConversationIn, Tally
from store import Claim, Outcome, Submission
from telemetry import Metrics
from tests.harness import HandClock, score_of

__all__ = [
    "PACKS",
    "POLICY",
    "Bench",
    "FaultyDatabase",
    "ScriptedAnalyzer",
    "analysis_of",
    "make_processor",
    "open_bench",
    "open_faulty",
]

PACKS = PackLimits(smallest=1, start=5, largest=50)
POLICY = ReaderPolicy(max_attempts=3, canary_share=0.0, cache_lifetime=timedelta(days=30))
_LEASE = timedelta(seconds=60)

Results = Sequence[Analysis | GrokReplyInvalid]


def analysis_of(text: str, **changed: Any) -> Analysis:
    said: dict[str, Any] = {
        "sentiment_score": score_of(text),
        "clusters": ("other",),
        "confidence": 0.9,
        "reasoning": text[:20],
        "summary": "",
        "language": "en",
    }
    return Analysis(**said | changed)


class ScriptedAnalyzer:
    """Answers by `react`, which may raise; waits for `hold` if there is one; keeps the packs it was given."""

    def __init__(
        self, react: Callable[[Sequence[str]], Results | None] | None = None, *, model: str = "scripted"
    ) -> None:
        self.react = react
        self.packs: list[list[str]] = []
        self.told_wait_s = 0.0
        self.latency_ms = 1
        self.hold: asyncio.Event | None = None
        self.model = model
        self.fingerprint = f"{model}\nprompt-1"

    async def analyze(self, texts: Sequence[str]) -> PackAnswer:
        self.packs.append(list(texts))
        if self.hold is not None:
            await self.hold.wait()
        changed = self.react(texts) if self.react is not None else None
        return PackAnswer(changed or [analysis_of(text) for text in texts], self.model, "call", self.latency_ms)

    @property
    def on_the_wire(self) -> int:
        return int(self.hold is not None and not self.hold.is_set())

    def wait_s(self) -> float:
        return self.told_wait_s

    @property
    def asked(self) -> Counter[str]:
        """How often each text was asked."""
        return Counter(text for pack in self.packs for text in pack)


class FaultyDatabase(Database):
    """Raises what is in `faults` instead of writing, and in `read_faults` instead of reading, first things first."""

    faults: list[Exception]
    read_faults: list[Exception]

    async def write(self, unit: Callable[[WriteSession], Any], *, alone: bool = False) -> Any:
        if self.faults:
            raise self.faults.pop(0)
        return await super().write(unit, alone=alone)

    async def read(self, unit: Callable[[ReadSession], Any]) -> Any:
        if self.read_faults:
            raise self.read_faults.pop(0)
        return await super().read(unit)


def make_processor(database: Database, clock: HandClock, *, queue_lock: QueueLock | None = None) -> BatchProcessor:
    """All of it but Grok and the clock, which are played."""
    reader = Reader(
        database,
        ScriptedAnalyzer(),
        prefilter=Prefilter(None, cascade_confidence=None, audit_share=0.0),
        pack_size=PackSize(PACKS),
        policy=POLICY,
        now=clock.now,
    )
    limits = ProcessorLimits(batch_size=50, max_calls=10, poll_interval_s=0.05, call_deadline_s=60)
    return BatchProcessor(database, reader, limits=limits, queue_lock=queue_lock, metrics=Metrics(), now=clock.now)


@asynccontextmanager
async def open_faulty(url: str) -> AsyncGenerator[FaultyDatabase, None]:
    database = FaultyDatabase.connect(url)
    assert isinstance(database, FaultyDatabase)
    database.faults, database.read_faults = [], []
    await database.open()
    yield database
    database.faults, database.read_faults = [], []
    await database.close()


class Bench:
    """A queue, a clock turned by hand, and readers that share the queue's database."""

    def __init__(self, database: FaultyDatabase, clock: HandClock) -> None:
        self.database = database
        self.clock = clock
        self.analyzer = ScriptedAnalyzer()

    def reader(
        self,
        analyzer: ScriptedAnalyzer | None = None,
        *,
        policy: ReaderPolicy = POLICY,
        packs: PackLimits = PACKS,
        local: LocalAnalyzer | None = None,
        audit_share: float = 0.0,
    ) -> Reader:
        return Reader(
            self.database,
            analyzer or self.analyzer,
            prefilter=Prefilter(local, cascade_confidence=None, audit_share=audit_share),
            pack_size=PackSize(packs),
            policy=policy,
            now=self.clock.now,
        )

    async def claim(self, *texts: str, limit: int = 1000) -> list[Claim]:
        """Accept the texts, and claim whatever is due, in the order of acceptance."""
        if texts:
            submission = Submission([ConversationIn(text=text) for text in texts])
            await self.database.write(partial(store.accept, submissions=[submission], now=self.clock.now()))
        claim = partial(store.claim_batch, limit=limit, now=self.clock.now(), lease=_LEASE)
        claims: list[Claim] = await self.database.write(claim)
        return sorted(claims, key=lambda claim: texts.index(claim.text) if claim.text in texts else -1)

    async def save(self, outcomes: Sequence[Outcome]) -> list[Claim]:
        fenced: list[Claim] = await self.database.write(
            partial(store.save_outcomes, outcomes=outcomes, now=self.clock.now())
        )
        return fenced

    async def read(self, reader: Reader, batch: Batch) -> Reading:
        """Every pack of the batch, one after the other; what is known without a call comes first."""
        whole = Reading(list(batch.outcomes))
        for pack in batch.packs:
            reading = await reader.read(pack)
            whole.outcomes.extend(reading.outcomes)
            whole.canaries.extend(reading.canaries)
        return whole

    async def process(self, reader: Reader, *texts: str) -> list[Outcome]:
        """Accept, claim, sort, read and save; the outcomes."""
        reading = await self.read(reader, await reader.sort(await self.claim(*texts)))
        await self.save(reading.outcomes)
        for canary in reading.canaries:
            await reader.recheck(canary)
        return reading.outcomes

    async def tallies(self) -> dict[Tally, int]:
        """What has been counted, without the zeros."""
        counts = await self.database.read(partial(queries.count_for_operator, day="2026-03-01"))
        return {tally: count for tally, count in counts.tallies.items() if count}

    async def count(self, table: str) -> int:
        counted = await self.database.read(lambda session: session.scalar(sql(f"SELECT count(*) FROM {table}")))
        return int(counted or 0)


@asynccontextmanager
async def open_bench(url: str, clock: HandClock) -> AsyncGenerator[Bench, None]:
    async with open_faulty(url) as database:
        yield Bench(database, clock)
