"""The queue as it is promised, in plain Python, without SQL: what each move makes of a conversation."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from schemas import Sentiment, Status
from store import IDEMPOTENCY_TTL, MAX_RESCUES, Accepted, Claim, Completed, Failed, Outcome, Released, Skipped
from tests.harness import score_of

LEASE = timedelta(seconds=60)
_INNOCENT, _SUSPECT, _POISON = range(2), range(2, MAX_RESCUES + 1), range(MAX_RESCUES + 1, 100)  # by deaths


@dataclass(slots=True, kw_only=True)
class Row:
    """A conversation; `said` is what the model last said of it, `corrected` what a person said instead."""

    number: int
    text: str
    external_id: str | None
    due_at: datetime | None
    status: Status = Status.PENDING
    epoch: int = 0
    attempts: int = 0
    rescues: int = 0
    error_code: str | None = None
    skip_reason: str | None = None
    is_read_again: bool = False
    said: float | None = None
    corrected: Sentiment | None = None

    @property
    def sentiment(self) -> Sentiment | None:
        return self.corrected or (None if self.said is None else Sentiment.of_score(self.said))

    @property
    def deaths(self) -> int:
        """Owners that died with it in hand, were it claimed now."""
        return self.rescues + (self.status is Status.PROCESSING)

    def is_due(self, now: datetime) -> bool:
        return self.due_at is not None and self.due_at <= now

    def score_of_next_answer(self) -> float:
        """Another for every conversation and every claim of it, so that crossed and late answers show."""
        return score_of(f"{self.number}.{self.epoch}")

    def end(self, status: Status, *, error_code: str | None = None, skip_reason: str | None = None) -> None:
        """One that was to be read again and gave nothing new is completed all the same."""
        self.due_at = None
        if self.is_read_again:
            self.status, self.is_read_again = Status.COMPLETED, False
        else:
            self.status, self.error_code, self.skip_reason = status, error_code, skip_reason

    def start_over(self, now: datetime) -> None:
        self.status, self.due_at = Status.PENDING, now
        self.attempts = self.rescues = 0
        self.error_code = None


@dataclass(slots=True)
class Keyed:
    """What a request with an idempotency key was answered."""

    texts: Sequence[tuple[str, str | None]]
    answer: list[Accepted]
    at: datetime


@dataclass(slots=True)
class QueueModel:
    rows: dict[str, Row] = field(default_factory=dict[str, Row])  # in the order of their coming
    keys: dict[str, Keyed] = field(default_factory=dict[str, Keyed])
    _count: int = 0

    # Taking in

    def accept(
        self, sent: Sequence[tuple[str, str | None]], answer: list[Accepted] | None, *, key: str | None, now: datetime
    ) -> None:
        """`sent`: texts with their external ids. `answer` is None where the key was refused."""
        known = None if key is None else self.keys.get(key)
        if known is not None and known.at >= now - IDEMPOTENCY_TTL:
            assert answer == (known.answer if known.texts == sent else None)
            return
        assert answer is not None
        assert len(answer) == len(sent)
        for (text, external_id), accepted in zip(sent, answer, strict=True):
            self._accept_one(text, external_id, accepted, now=now)
        if key is not None:
            self.keys[key] = Keyed(sent, answer, now)

    def _accept_one(self, text: str, external_id: str | None, accepted: Accepted, *, now: datetime) -> None:
        stored = next((one for one, row in self.rows.items() if external_id and row.external_id == external_id), None)
        if stored is not None:
            same = self.rows[stored].text == text
            assert accepted == Accepted(stored, "duplicate" if same else "conflict")
            return
        assert accepted.result == "accepted"
        assert accepted.conversation_id not in self.rows
        self._count += 1
        row = Row(number=self._count, text=text, external_id=external_id, due_at=now)
        self.rows[accepted.conversation_id] = row

    # Working

    def due(self, now: datetime, deaths: range) -> list[datetime]:
        """When those that are due and would then have been in hand at so many deaths came due, in order."""
        return sorted(
            at for row in self.rows.values() if row.is_due(now) and row.deaths in deaths and (at := row.due_at)
        )

    def claim(
        self,
        taken: Collection[str],
        claims: Iterable[Claim],
        *,
        limit: int,
        now: datetime,
        most_rescues: int | None,
    ) -> None:
        """`taken`: the rows that changed hands; where several were due at the same moment, any of them may.

        `most_rescues`: of what the worker has in hand, None when that is nothing.
        """
        self._check_taken([self.rows[one] for one in taken], limit=limit, now=now, most_rescues=most_rescues)
        given = {claim.conversation_id: claim for claim in claims}
        for one in taken:
            row = self.rows[one]
            row.rescues += row.status is Status.PROCESSING
            row.status, row.due_at, row.epoch = Status.PROCESSING, now + LEASE, row.epoch + 1
            if row.rescues > MAX_RESCUES:
                row.end(Status.FAILED, error_code="poison")
                assert one not in given
                continue
            claim = given.pop(one)
            assert (claim.text, claim.lease_epoch, claim.attempts) == (row.text, row.epoch, row.attempts)
            assert (claim.rescues, claim.reread_at is not None) == (row.rescues, row.is_read_again)
        assert not given, "nothing is handed out that was not taken"

    def _check_taken(self, taken: Sequence[Row], *, limit: int, now: datetime, most_rescues: int | None) -> None:
        """One suspect at a time, and one that a further death would end all alone; poison before it ends."""
        suspects, innocents = self.due(now, _SUSPECT), self.due(now, _INNOCENT)
        [taken_innocents, taken_suspects, taken_poison] = [
            sorted(at for row in taken if row.deaths in deaths and (at := row.due_at))
            for deaths in (_INNOCENT, _SUSPECT, _POISON)
        ]
        if (most_rescues or 0) >= _SUSPECT[0]:
            assert (taken_suspects, taken_poison) == ([], []), "one suspect is in hand"
            assert taken_innocents == innocents[:limit]
            return
        first = suspects[0] if suspects else datetime.max.replace(tzinfo=UTC)
        poison = self.due(now, _POISON)
        assert [due_at for due_at in poison if due_at < first] == [due_at for due_at in taken_poison if due_at < first]
        assert all(due_at <= first for due_at in taken_poison)
        last_chance = any(row.deaths == MAX_RESCUES for row in taken) or (bool(suspects) and not taken_suspects)
        if last_chance:
            assert any(
                row.is_due(now) and row.due_at == first and row.deaths == MAX_RESCUES for row in self.rows.values()
            )
            assert taken_suspects == ([first] if most_rescues is None else []), "it waits for an empty hand"
            assert taken_innocents == []
        else:
            assert taken_suspects == suspects[:1]
            assert taken_innocents == innocents[:limit], "those due longest are claimed, as many as were asked for"

    def holds(self, claim: Claim) -> bool:
        row = self.rows.get(claim.conversation_id)
        return row is not None and row.status is Status.PROCESSING and row.epoch == claim.lease_epoch

    def save(self, outcomes: Sequence[Outcome], fenced: Iterable[Claim]) -> None:
        held = [outcome for outcome in outcomes if self.holds(outcome.claim)]
        assert {claim.fence for claim in fenced} == {one.claim.fence for one in outcomes} - {
            one.claim.fence for one in held
        }, "the fence refuses who lost the claim"
        for outcome in held:
            self._save_one(self.rows[outcome.claim.conversation_id], outcome)

    def _save_one(self, row: Row, outcome: Outcome) -> None:
        match outcome:
            case Completed():
                row.said = outcome.analysis.sentiment_score
                row.status, row.due_at, row.is_read_again = Status.COMPLETED, None, False
            case Skipped():
                row.end(Status.SKIPPED, skip_reason=outcome.reason)
            case Failed():
                row.attempts += outcome.code == "reply_invalid" and not row.is_read_again
                row.end(Status.FAILED, error_code=outcome.code)
            case Released():
                row.status, row.due_at = Status.PENDING, outcome.due_at
                row.attempts += outcome.spent_attempt

    def renew(self, claims: Iterable[Claim], *, until: datetime) -> None:
        for claim in claims:
            if self.holds(claim):
                self.rows[claim.conversation_id].due_at = until

    def abandon(self, now: datetime) -> int:
        held = [row for row in self.rows.values() if row.status is Status.PROCESSING and not row.is_due(now)]
        for row in held:
            row.due_at = now
        return len(held)

    def retry(self, now: datetime) -> int:
        failed = [row for row in self.rows.values() if row.status is Status.FAILED]
        for row in failed:
            row.start_over(now)
        return len(failed)

    def read_again(self, ids: Iterable[str], *, now: datetime) -> int:
        ready = [row for one in ids if (row := self.rows[one]).status is Status.COMPLETED]
        for row in ready:
            row.start_over(now)
            row.is_read_again = True
        return len(ready)
