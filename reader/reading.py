"""From claims to outcomes: sorted, recalled, or asked of Grok; what each class of error does to a row is decided here.

sort: prefilter -> nothing to read | local answer | a text known from before | a question under way | a new question
read: one pack, one call (halves, when xAI refuses the whole) -> an outcome for every claim
"""

import asyncio
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

import queries
import store
from database import Database
from errors import (
    GrokError,
    GrokOutage,
    GrokRefused,
    GrokRejection,
    GrokReplyInvalid,
    GrokTooDear,
    GrokTooLarge,
    GrokUnavailable,
    Overloaded,
    StorageFull,
)
from grok_client import Analyzer, PackAnswer
from local_analyzer import LOCAL_MODEL
from prefilter import Ask, Keep, Prefilter, Skip
from queries import KnownAnalysis
from reader.packing import PackSize, make_packs
from reader.questions import Question
from schemas import Analysis, Sentiment, Tally
from store import Claim, Completed, Failed, Outcome, Released, Skipped
from telemetry import get_logger

log = get_logger()

_RETRY_AFTER_INVALID = timedelta(seconds=2)  # doubles with every attempt
_LONGEST_RELEASE_S = 60.0  # a lane that stays shut longer keeps rows from being claimed anyway
_LONGEST_BACKOFF_S = 300.0
_DAY_S = 86_400.0
_MOST_LONELY_FAILURES = 10  # of three calls each, while others were answered
_MOST_TROUBLED = 10_000
_MOST_RECENT = 2_000
_DEEP_QUEUE = 1_000


@dataclass(frozen=True, slots=True)
class ReaderPolicy:
    """Unusable answers before a row fails; share of packed rows asked again alone; how long an answer serves."""

    max_attempts: int
    canary_share: float
    cache_lifetime: timedelta | None  # None: nothing is kept, served or forgotten


@dataclass(frozen=True, slots=True)
class Canary:
    """A text that was read in a pack, to be asked again alone, and what was felt in it there."""

    text: str
    sentiment: Sentiment


@dataclass(frozen=True, slots=True)
class Batch:
    """What is known of claims without a call, and the packs to ask."""

    outcomes: list[Outcome]
    packs: list[list[Question]]


@dataclass(frozen=True, slots=True)
class Reading:
    """What became of a pack."""

    outcomes: list[Outcome]
    canaries: list[Canary] = field(default_factory=list[Canary])


class Reader:
    """Reads claimed conversations. No session is open while Grok is asked."""

    def __init__(
        self,
        database: Database,
        analyzer: Analyzer,
        *,
        prefilter: Prefilter,
        pack_size: PackSize,
        policy: ReaderPolicy,
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._analyzer = analyzer
        self._prefilter = prefilter
        self._policy = policy
        self._now = now
        self._under_way: dict[bytes, Question] = {}
        self._recent: OrderedDict[bytes, KnownAnalysis] = OrderedDict()  # answers that may not be saved yet
        self._troubled: dict[bytes, int] = {}  # texts whose calls fail while others are answered, and how often alone
        self.pack_size = pack_size

    def wait_s(self) -> float:
        """Seconds until asking makes sense; 0.0 when it does now."""
        return self._analyzer.wait_s()

    @property
    def on_the_wire(self) -> int:
        return self._analyzer.on_the_wire

    async def sort(self, claims: Sequence[Claim]) -> Batch:
        """Every claim gets its outcome here, or waits in one of the packs, or joins a question that is under way."""
        outcomes, questions = await asyncio.to_thread(self._judge, claims)  # a long text takes milliseconds
        known = await self._recall([key for key in questions if key not in self._recent])
        fresh: list[Question] = []
        for key, question in questions.items():
            answer = self._recent.get(key) or known.get(key)
            if answer is not None and question.may_be_answered_as_of(answer.said_at):
                outcomes += question.answered(answer.analysis, model=answer.model, asked=False)
            elif key in self._under_way:
                self._under_way[key].join(question)
            else:
                self._under_way[key] = question
                question.alone = question.alone or key in self._troubled
                fresh.append(question)
        return Batch(outcomes, make_packs(fresh, size=self.pack_size.current))

    async def read(self, pack: Sequence[Question]) -> Reading:
        """An outcome for each claim of the pack; every error of Grok becomes a value."""
        try:
            return await self._ask(pack)
        except Exception:  # a bug of ours, brought out by one of the texts: the others must not suffer from it
            log.exception("reading_failed", pack=len(pack))
            error = GrokError("Reading this text failed for a reason of ours; see the log, and send it back.")
            return Reading(self._after_trouble(pack, error))
        finally:
            self.forget(pack)

    async def recheck(self, canary: Canary) -> None:
        """Ask a text of a pack again, alone; packs that change what is felt are made smaller."""
        if self.wait_s() > 0:
            return
        try:
            [result] = (await self._analyzer.analyze([canary.text])).results
            if isinstance(result, Analysis):
                await self._judge_canary(agreed=result.sentiment is canary.sentiment)
        except (GrokError, Overloaded, StorageFull) as error:
            log.info("canary_dropped", error=error.code)

    async def _judge_canary(self, *, agreed: bool) -> None:
        self.pack_size.record_canary(agreed=agreed)
        counts: dict[str, int] = {Tally.CANARIES: 1, Tally.CANARIES_AGREED: int(agreed)}
        await self._database.write(partial(store.add_tallies, counts=counts), alone=True)

    async def purge(self) -> None:
        """Forget what the model said too long ago."""
        if self._policy.cache_lifetime is None:
            return
        created_before = self._now() - self._policy.cache_lifetime
        while self._recent and next(iter(self._recent.values())).said_at < created_before:
            self._recent.popitem(last=False)
        await self._database.write(partial(store.purge_cache, created_before=created_before), alone=True)

    def forget_answers(self) -> None:
        """Some of them may be of a conversation that was erased."""
        self._recent.clear()

    def forget(self, pack: Sequence[Question]) -> None:
        """Nobody may join these questions any more."""
        for question in pack:
            if self._under_way.get(question.key) is question:
                del self._under_way[question.key]

    def _judge(self, claims: Sequence[Claim]) -> tuple[list[Outcome], dict[bytes, Question]]:
        """What the prefilter ends, and the questions that are left, equal texts together."""
        outcomes: list[Outcome] = []
        questions: dict[bytes, Question] = {}
        for claim in claims:
            match self._prefilter.sort(claim.conversation_id, claim.text):
                case Skip(reason):
                    outcomes.append(Skipped(claim, reason))
                case Keep(analysis, stage):
                    outcomes.append(Completed(claim, analysis, LOCAL_MODEL, tallies=(Tally(stage),)))
                case Ask(audit_of):
                    _join(questions, Question.of(claim, fingerprint=self._analyzer.fingerprint, audit_of=audit_of))
        return outcomes, questions

    async def _recall(self, keys: Sequence[bytes]) -> dict[bytes, KnownAnalysis]:
        """What was said before of texts with these keys; a database that does not answer knows nothing."""
        if not (keys and self._policy.cache_lifetime):
            return {}
        since = self._now() - self._policy.cache_lifetime
        try:
            return await self._database.read(partial(queries.known_analyses, keys=keys, since=since))
        except Overloaded:
            return {}

    async def _ask(self, pack: Sequence[Question]) -> Reading:
        try:
            answer = await self._analyzer.analyze([question.text for question in pack])
        except GrokOutage as error:
            return Reading(self._after_outage(pack, error))
        except (GrokRefused, GrokTooLarge) as error:
            return await self._split(pack, error)
        except GrokReplyInvalid as error:
            if len(pack) > 1:
                self.pack_size.record_pressure()
            return Reading([o for question in pack for o in self._after_invalid(question, error)])
        except GrokError as error:
            return Reading(self._fail(pack, error))
        except (Overloaded, StorageFull) as error:  # no call was made: the account could not be asked
            log.warning("grok_account_unreachable", error=error.code)
            return Reading(self._release(pack, after_s=1.0))
        return await self._attach(pack, answer)

    async def _split(self, pack: Sequence[Question], error: GrokRejection) -> Reading:
        """Halve the pack down to the one text at fault."""
        if len(pack) == 1 and isinstance(error, GrokTooDear) and error.retry_after_s is not None:
            return Reading(self._release(pack, after_s=error.retry_after_s, longest_s=_DAY_S))
        if len(pack) == 1:
            return Reading(self._fail(pack, error))
        if isinstance(error, GrokTooLarge) and error.was_call:
            self.pack_size.record_pressure()
        middle = len(pack) // 2
        halves = await asyncio.gather(self._ask(pack[:middle]), self._ask(pack[middle:]))
        return Reading(halves[0].outcomes + halves[1].outcomes, halves[0].canaries + halves[1].canaries)

    def _after_outage(self, pack: Sequence[Question], error: GrokOutage) -> list[Outcome]:
        """Nobody's fault: the rows wait, and no attempt is spent."""
        if not (isinstance(error, GrokUnavailable) and error.was_call):
            return self._release(pack, after_s=max(self.wait_s(), error.retry_after_s or 0))
        self.pack_size.record_pressure()
        if (wait_s := self.wait_s()) > 0:
            return self._release(pack, after_s=max(wait_s, error.retry_after_s or 0))
        return self._after_trouble(pack, error)

    def _after_trouble(self, pack: Sequence[Question], error: GrokError) -> list[Outcome]:
        """Calls fail while the lane is open: one of these texts may be why. They travel alone now, and not for ever."""
        if len(self._troubled) >= _MOST_TROUBLED:
            self._troubled.clear()
        outcomes: list[Outcome] = []
        for question in pack:
            rounds = self._troubled.pop(question.key, 0) + int(len(pack) == 1)
            if rounds >= _MOST_LONELY_FAILURES:
                outcomes += self._fail([question], error)
            else:
                self._troubled[question.key] = rounds
                outcomes += self._release([question], after_s=2.0**rounds, longest_s=_LONGEST_BACKOFF_S)
        return outcomes

    async def _attach(self, pack: Sequence[Question], answer: PackAnswer) -> Reading:
        reading = Reading([])
        for question, result in zip(pack, answer.results, strict=True):
            if isinstance(result, GrokReplyInvalid):
                reading.outcomes.extend(self._after_invalid(question, result))
                continue
            self._remember(question, result, answer.model)
            keep = bool(self._policy.cache_lifetime)
            reading.outcomes.extend(question.answered(result, model=answer.model, asked=True, keep=keep))
            if len(pack) > 1 and self._is_canary(question):
                reading.canaries.append(Canary(question.text, result.sentiment))
        log.info("pack_analyzed", call_id=answer.call_id, pack=len(pack), latency_ms=answer.latency_ms)
        await self._watch_latency(pack, answer)
        return reading

    async def _watch_latency(self, pack: Sequence[Question], answer: PackAnswer) -> None:
        if len(pack) != self.pack_size.current or not self.pack_size.record_latency(answer.latency_ms / 1000):
            return
        with suppress(Overloaded):  # an answer is not lost for a database that does not say how deep the queue is
            if await self._database.read(partial(queries.is_deeper_than, conversations=_DEEP_QUEUE)):
                self.pack_size.record_pressure()

    def _remember(self, question: Question, analysis: Analysis, model: str) -> None:
        self.forget([question])
        self._troubled.pop(question.key, None)
        if self._policy.cache_lifetime:
            self._recent[question.key] = KnownAnalysis(analysis, model, self._now())
        if len(self._recent) > _MOST_RECENT:
            self._recent.popitem(last=False)

    def _is_canary(self, question: Question) -> bool:
        """By the id, so that a share of conversations is taken whatever they say."""
        return zlib.crc32(f"canary {question.claims[0].conversation_id}".encode()) < self._policy.canary_share * 2**32

    def _after_invalid(self, question: Question, error: GrokReplyInvalid) -> list[Outcome]:
        self.forget([question])
        outcomes: list[Outcome] = []
        for claim in question.claims:
            if claim.attempts + 1 >= self._policy.max_attempts:
                outcomes.append(Failed(claim, error.code, error.details, error.raw_answer))
            else:
                due_at = self._now() + _RETRY_AFTER_INVALID * 2**claim.attempts
                outcomes.append(Released(claim, due_at, spent_attempt=True))
        return outcomes

    def _fail(self, pack: Sequence[Question], error: GrokError) -> list[Outcome]:
        self.forget(pack)
        return [Failed(c, error.code, error.details, error.raw_answer) for question in pack for c in question.claims]

    def _release(
        self, pack: Sequence[Question], *, after_s: float, longest_s: float = _LONGEST_RELEASE_S
    ) -> list[Outcome]:
        self.forget(pack)
        due_at = self._now() + timedelta(seconds=min(longest_s, max(1.0, after_s)))
        return [Released(claim, due_at) for question in pack for claim in question.claims]


def _join(questions: dict[bytes, Question], question: Question) -> None:
    if (earlier := questions.setdefault(question.key, question)) is not question:
        earlier.join(question)
