"""What happened in 90 made-up days: when insights came in, about what, how customers felt, and how sure one can be.

Topics, sentiments and confidences are skewed and go together (hardly any praise is negative), and there is an outage
that shows in all of them.
"""

import random
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import NamedTuple

from benchmarks.made_texts import counts_at, make_author, make_text

DAYS = 90
END = datetime(2026, 11, 1, tzinfo=UTC)
START = END - timedelta(days=DAYS)
OUTAGE_DAYS = range(61, 63)
OUTAGE_TOPIC, PRAISE = "service_outage", "praise"


class Nature(NamedTuple):
    """What insights of a topic are like: how frequent, how many negative and neutral, how sure the analyzer is."""

    weight: float
    negative: float
    neutral: float
    confidence: float


NATURES = {
    "delivery_problems": Nature(19, 0.82, 0.13, 0.82),
    "customer_service": Nature(17, 0.62, 0.18, 0.74),
    "product_issues": Nature(13, 0.75, 0.18, 0.77),
    "billing_payments": Nature(11, 0.71, 0.24, 0.84),
    "general_inquiry": Nature(9, 0.12, 0.76, 0.55),
    "praise": Nature(8, 0.004, 0.02, 0.91),
    "other": Nature(7, 0.25, 0.55, 0.38),
    "account_access": Nature(5, 0.66, 0.31, 0.86),
    "refunds_returns": Nature(4, 0.69, 0.26, 0.85),
    "travel_disruption": Nature(3, 0.88, 0.09, 0.88),
    "service_outage": Nature(2, 0.9, 0.08, 0.8),
    "pricing_promotions": Nature(1.5, 0.35, 0.45, 0.66),
    "feature_request": Nature(0.5, 0.1, 0.7, 0.61),
}
_TOPICS = tuple(NATURES)
_WEIGHTS = tuple(accumulate(nature.weight for nature in NATURES.values()))
_CONFIDENCE_SPREAD = 0.13


@dataclass(frozen=True, slots=True)
class Made:
    """One insight, before it becomes rows."""

    number: int
    timestamp: datetime
    text: str
    author: str | None
    topics: tuple[str, ...]
    score: float
    confidence: float


def _hour_weight(hour: int) -> float:
    """How busy it is: more by day than by night, on weekdays than on weekends, and most of all in an outage."""
    day, clock = divmod(hour, 24)
    awake = 1.0 if 7 <= clock < 22 else 0.25
    weekday = 1.0 if (START + timedelta(days=day)).weekday() < 5 else 0.6
    return awake * weekday * (4.0 if day in OUTAGE_DAYS else 1.0)


_HOURS = tuple(accumulate(_hour_weight(hour) for hour in range(DAYS * 24)))


def make_insights(first: int, last: int, *, rows: int, seed: int) -> Iterator[Made]:
    """Insights `first` until before `last` of `rows` in all, in order of time; the same for the same seed."""
    dice = random.Random(f"{seed}/{first}")
    for number in range(first, last):
        moment = _moment((number + dice.random()) / rows)
        topics = _draw_topics(dice, outage=(moment - START).days in OUTAGE_DAYS)
        nature = NATURES[topics[0]]
        known = counts_at(number, rows=rows)
        yield Made(
            number=number,
            timestamp=moment,
            text=make_text(dice, known=known),
            author=make_author(dice, known=known),
            topics=topics,
            score=_draw_score(dice, nature),
            confidence=round(min(1.0, max(0.0, dice.gauss(nature.confidence, _CONFIDENCE_SPREAD))), 2),
        )


def _moment(share: float) -> datetime:
    """When so great a part of all had come in, to the second: several share one."""
    busy = share * _HOURS[-1]
    hour = min(bisect_right(_HOURS, busy), len(_HOURS) - 1)
    before = _HOURS[hour - 1] if hour else 0.0
    seconds = int(3600 * min((busy - before) / (_HOURS[hour] - before), 0.9999))
    return START + timedelta(hours=hour, seconds=seconds)


def _draw_topics(dice: random.Random, *, outage: bool) -> tuple[str, ...]:
    """One to three, the main one first, in no other order; who praises besides complains is not said to praise."""
    count = dice.choices((1, 2, 3), cum_weights=(60, 90, 100))[0]
    main, *others = dice.choices(_TOPICS, cum_weights=_WEIGHTS, k=count)
    drawn = [main, *(topic for topic in others if topic != PRAISE)]
    if outage and dice.random() < 0.7:
        drawn.insert(0, OUTAGE_TOPIC)
    return tuple(dict.fromkeys(drawn))[:3]


def _draw_score(dice: random.Random, nature: Nature) -> float:
    side = dice.random()
    if side < nature.negative:
        return -round(dice.uniform(0.1001, 1), 4)
    if side < nature.negative + nature.neutral:
        return round(dice.uniform(-0.1, 0.1), 4)
    return round(dice.uniform(0.1001, 1), 4)
