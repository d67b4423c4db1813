"""Made-up histories of insights, stored and partly erased again, at the moments where counters could go wrong."""

import os
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import delete, select

import store
from database import WriteSession
from models import Conversation, InsightCount, InsightRow
from parameters import Position
from schemas import Analysis, ConversationIn, CorrectionIn, Sentiment
from store import Completed, Step, Submission
from store.counting import Countable

HISTORIES = int(os.environ.get("HISTORIES", "1000"))  # in all: a quarter each for counts and trends, on each database

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)
TOPICS = ["delivery_problems", "refunds", "praise", "app_crashes", "other"]
SCORES = [-1.0, -0.65, -0.10004, -0.10006, -0.1, -0.0001, 0.0, 0.1, 0.100004, 0.1001, 0.3333, 1.0]
CONFIDENCES = [0.0, 0.29, 0.57, 0.58, 0.844, 0.846, 0.85, 0.9, 1.0]
PLACES = [  # a zone, and a day around which something happens there
    ("UTC", "1970-01-01"),
    ("UTC", "1969-12-31"),
    ("UTC", "0003-01-02"),
    ("UTC", "9999-12-20"),
    ("America/New_York", "2026-03-08"),  # 23 hours
    ("America/New_York", "2026-11-01"),  # 25
    ("America/New_York", "1965-04-25"),
    ("Asia/Kolkata", "2026-01-31"),  # +05:30
    ("Asia/Kathmandu", "2026-02-28"),  # +05:45
    ("Australia/Lord_Howe", "2026-04-05"),  # 24.5 hours
    ("Australia/Lord_Howe", "2026-10-04"),  # 23.5
    ("America/Havana", "2026-03-08"),  # begins at 1 o'clock
    ("America/Havana", "2026-11-01"),  # has midnight twice
    ("Africa/Casablanca", "2026-02-15"),  # Ramadan
    ("Africa/Casablanca", "2026-03-22"),
    ("Pacific/Apia", "2011-12-30"),  # never was
]


@dataclass(frozen=True, slots=True)
class Event:
    """An insight as it was found; what is kept of it is rounded."""

    timestamp: datetime
    score: float
    confidence: float
    topics: tuple[str, ...]

    @property
    def sentiment(self) -> Sentiment:
        kept = round(self.score, 4)
        if -0.1 <= kept <= 0.1:
            return Sentiment.NEUTRAL
        return Sentiment.POSITIVE if kept > 0 else Sentiment.NEGATIVE

    @property
    def kept_confidence(self) -> float:
        return round(self.confidence, 2)


@dataclass(frozen=True, slots=True)
class Place:
    """Where and around when a history happens."""

    zone: ZoneInfo
    day: datetime

    @classmethod
    def draw(cls, dice: random.Random) -> "Place":
        name, day = dice.choice(PLACES)
        return cls(ZoneInfo(name), datetime.fromisoformat(day).replace(tzinfo=UTC))

    def moment(self, dice: random.Random) -> datetime:
        """Often on the edge of an hour or of a day, here or in UTC, or next to it."""
        moment = self.day + timedelta(hours=dice.randrange(-60, 60))
        clocks = moment.astimezone(dice.choice([UTC, self.zone]))
        if dice.random() < 0.4:
            clocks = clocks.replace(hour=0)
        if dice.random() < 0.8:
            clocks = clocks.replace(minute=0, second=0, microsecond=0)
        beside = dice.choice([0, 0, -1, 1, 1_000_000, 1_800_000_000, dice.randrange(3_600_000_000)])
        return clocks.astimezone(UTC) + beside * TICK


def draw_events(dice: random.Random, place: Place) -> list[Event]:
    moments = [place.moment(dice) for _ in range(dice.randrange(1, 6))]
    return [
        Event(
            timestamp=dice.choice([*moments, place.moment(dice)]),
            score=dice.choice(SCORES),
            confidence=dice.choice(CONFIDENCES),
            topics=tuple(dice.sample(TOPICS, dice.choice([1, 1, 2, 3, 3]))),
        )
        for _ in range(dice.randrange(13))
    ]


def live(session: WriteSession, events: Sequence[Event], *, dice: random.Random | None = None) -> list[Event]:
    """Store them in a few steps, in an otherwise empty database; with dice erase, correct and read again some of them.

    Returns those that are left, as they are then.
    """
    forget(session)
    return grow(session, events, dice=dice)


def grow(session: WriteSession, events: Sequence[Event], *, dice: random.Random | None = None) -> list[Event]:
    """Add them to those that are there; those that are left of them."""
    left: list[Event] = []
    for step in range(0, len(events), 5):
        added = events[step : step + 5]
        ids = _complete(session, added)
        erased = {number for number in range(len(added)) if dice is not None and dice.random() < 0.25}
        store.erase_conversations(session, [ids[number] for number in erased])
        for number, event in enumerate(added):
            if number not in erased:
                left.append(event if dice is None else _think_again(session, ids[number], event, dice=dice))
    return left


def _think_again(session: WriteSession, conversation_id: str, event: Event, *, dice: random.Random) -> Event:
    """Any of: corrected, the correction withdrawn, read again; in any order."""
    said, correction = event, None
    for thought in dice.choices(["correct", "withdraw", "reread"], k=dice.choice([0, 0, 0, 1, 1, 2, 3])):
        if thought == "correct":
            correction = _draw_correction(dice)
            store.correct(session, conversation_id, wanted=correction, now=NOW)
        elif thought == "reread":
            said = _draw_reading(dice, event.timestamp)
            _reread(session, conversation_id, said)
        elif correction is not None:
            correction = None
            store.withdraw_correction(session, conversation_id)
    return said if correction is None else _corrected(said, correction)


def _draw_correction(dice: random.Random) -> CorrectionIn:
    sentiment, topic = dice.choice([None, *Sentiment]), dice.choice([None, *TOPICS])
    if topic is None:
        return CorrectionIn(sentiment=sentiment or Sentiment.NEUTRAL)
    return CorrectionIn(sentiment=sentiment, topics=(topic,))


def _draw_reading(dice: random.Random, moment: datetime) -> Event:
    topics = tuple(dice.sample(TOPICS, dice.choice([1, 2, 3])))
    return Event(moment, dice.choice(SCORES), dice.choice(CONFIDENCES), topics)


def _reread(session: WriteSession, conversation_id: str, said: Event) -> None:
    order = store.order_reanalysis(session, {}, matched=1, now=NOW)
    step = Step(order, NOW, None, Position(said.timestamp, 1), [conversation_id])
    assert store.requeue(session, step, now=NOW) == 1
    [claim] = store.claim_batch(session, limit=10, now=NOW, lease=timedelta(minutes=1))
    assert store.save_outcomes(session, [Completed(claim, _analysis_of(said), "grok-4.3")], now=NOW) == []


def _corrected(said: Event, correction: CorrectionIn) -> Event:
    topics = correction.topics or said.topics
    if correction.sentiment is None:
        return replace(said, topics=topics)
    middle = {Sentiment.POSITIVE: 0.55, Sentiment.NEUTRAL: 0.0, Sentiment.NEGATIVE: -0.55}[correction.sentiment]
    score = said.score if said.sentiment is correction.sentiment else middle
    return replace(said, score=score, confidence=1.0, topics=topics)


def forget(session: WriteSession) -> None:
    session.execute(delete(Conversation))  # and with them their insights and topics
    session.execute(delete(InsightCount))


def _complete(session: WriteSession, events: Sequence[Event]) -> list[str]:
    """Accept, claim and complete, as the service does; the ids of the conversations."""
    conversations = [ConversationIn(text=str(number), timestamp=event.timestamp) for number, event in enumerate(events)]
    [answer] = store.accept(session, submissions=[Submission(conversations)], now=NOW)
    assert isinstance(answer, list)
    claims = store.claim_batch(session, limit=1_000, now=NOW, lease=timedelta(minutes=1))
    outcomes = [Completed(claim, _analysis_of(events[int(claim.text)]), "grok-4.3") for claim in claims]
    assert store.save_outcomes(session, outcomes, now=NOW) == []
    return [outcome.conversation_id for outcome in answer]


def _analysis_of(event: Event) -> Analysis:
    return Analysis(
        sentiment_score=event.score,
        clusters=event.topics,
        confidence=event.confidence,
        reasoning="reasons",
        summary="summary",
    )


def countables(session: WriteSession, ids: Iterable[str] | None = None) -> list[Countable]:
    """What is counted of the insights of these conversations, or of all, as the table has them."""
    columns = (InsightRow.timestamp, InsightRow.sentiment_score, InsightRow.confidence, InsightRow.clusters)
    statement = select(*columns) if ids is None else select(*columns).where(InsightRow.conversation_id.in_(ids))
    return [
        Countable.of(timestamp=row.timestamp, score=row.sentiment_score, confidence=row.confidence, topics=row.clusters)
        for row in session.execute(statement)
    ]


Counters = dict[tuple[str, str, int, int], tuple[int, int, int, int, int]]


def counters(session: WriteSession) -> Counters:
    """Every counter that is not zero: by span, topic, confidence and period, what its insights add up to."""
    rows = session.execute(select(InsightCount.__table__)).all()
    return {(row[0], row[1], row[2], row[3]): (row[4], row[5], row[6], row[7], row[8]) for row in rows if any(row[4:])}
