"""Questions to put to the service, drawn by dice: insights by any combination of filters, trends, words, authors."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from urllib.parse import urlencode

from benchmarks.made_history import DAYS, END, NATURES, START
from benchmarks.made_texts import known_author, known_phrase, known_word
from schemas import Sentiment

INSIGHTS = "/api/v1/insights"
TRENDS = "/api/v1/insights/trends"
TOPICS = "/api/v1/topics"
PAGE_ROWS = 100
_MINUTES = DAYS * 24 * 60

Parameters = list[tuple[str, str]]


def insights_path(*parameters: tuple[str, str]) -> str:
    return f"{INSIGHTS}?{urlencode([*parameters, ('limit', str(PAGE_ROWS))])}"


def draw_insights(dice: random.Random) -> Iterator[str]:
    """Without end: each filter is there or not, by the toss of a coin, and may be anything it can be."""
    while True:
        parameters: Parameters = []
        if dice.random() < 0.5:
            parameters += _draw_range(dice)
        if dice.random() < 0.5:
            parameters.append(("sentiment", dice.choice(list(Sentiment))))
        if dice.random() < 0.5:
            parameters.append(("min_confidence", f"{dice.randrange(101) / 100:g}"))
        if dice.random() < 0.5:
            parameters += [("topic", topic) for topic in dice.sample(list(NATURES), dice.randrange(1, 4))]
        yield insights_path(*parameters)


def _draw_range(dice: random.Random) -> Parameters:
    """From and until any minute, hour or midnight; or open on one side."""
    unit = dice.choice((1, 1, 1, 60, 24 * 60))
    start, end = sorted(START + timedelta(minutes=dice.randrange(_MINUTES) // unit * unit) for _ in range(2))
    both = [("start_time", as_text(start)), ("end_time", as_text(end))]
    return dice.choice((both, both, both[:1], both[1:]))


def draw_trends(dice: random.Random, *, zone: str) -> Iterator[str]:
    """Without end: 90 days until any minute of the last of them, every second time of one topic."""
    while True:
        end = END - timedelta(minutes=dice.randrange(24 * 60))
        parameters = [("start_time", as_text(START)), ("end_time", as_text(end)), ("tz", zone)]
        yield f"{TRENDS}?{urlencode(parameters)}"
        yield f"{TRENDS}?{urlencode([*parameters, ('topic', dice.choice(list(NATURES)))])}"


def draw_words(dice: random.Random, *, count: int) -> Iterator[str]:
    """Without end: a word that occurs so often, alone, with its neighbour, or as a phrase: all match the same."""
    while True:
        words = dice.choice((known_word(count), known_phrase(count), f'"{known_phrase(count)}"'))
        yield insights_path(("q", words))


def author_path(count: int) -> str:
    return insights_path(("author", known_author(count)))


def as_text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
