"""Texts and authors for made insights: tweets of words with known frequencies, and a few known to the exact count."""

import random
from itertools import accumulate, product

KNOWN_COUNTS = (10, 100, 1_000, 10_000)
MOST_SHARE = 5  # of the rows: what is known to occur more often than in every fifth is left out
_KNOWN_WORDS: dict[int, str] = dict(zip(KNOWN_COUNTS, ("quokka", "zeppelin", "marzipan", "lanyard"), strict=True))
_BEFORE_KNOWN = "missing"  # a frequent word: with the known one it makes a phrase of the same count
_MOST_CHARS = 280
_LEAST_WORDS, _MOST_WORDS = 13, 44
_AUTHORS = 400_000

OPENINGS = (
    "Hello, I need some help please.",
    "Third time I write about this.",
    "@support are you there at all?",
    "Honestly I do not know what to do.",
    "Could somebody look at this today?",
    "Just wanted to let you all know:",
    "Dear team, one short question.",
    "Been with you for years, and now",
)
_FREQUENT_WORDS = (  # in order of their frequency
    "the to my and is it a for not you in of on that with was have your order but are still this so me can no be we "
    "they when now today app phone please why how been has just again get after from at service what will do there "
    "help never had would card account money day days week weeks late email price store team works broken missing "
    "wrong great love thanks finally nothing anyone answer call delivery parcel refund flight booking ticket seat bag "
    "login password screen update crash error page website charge charged invoice bill plan offer code gift size blue "
    "driver address door box label return exchange shop staff friendly rude slow fast quick nice bad worst best always "
    "another first last next more less every hour minutes tomorrow yesterday morning evening waiting tracking status"
)


def _rare_words() -> list[str]:
    """Words that mean nothing: a real vocabulary has a long tail, and a text index feels it."""
    middles = "aeiou"
    ends = ("lo", "mi", "nd", "ra", "sk", "to", "x", "ber")
    starts = ("b", "br", "d", "f", "g", "k", "l", "m", "p", "r", "st", "t", "tr", "v")
    return ["".join(parts) for parts in product(starts, middles, ends, ("", *middles, "nka", "rel"))]


WORDS = tuple(dict.fromkeys([*_FREQUENT_WORDS.split(), *_rare_words()]))
_WEIGHTS = tuple(accumulate(1 / (rank + 3) for rank in range(len(WORDS))))  # Zipf: the n-th word, a part of 1/n


def known_counts(rows: int) -> list[int]:
    """The counts for which a word and an author are placed exactly so often among so many rows."""
    return [count for count in KNOWN_COUNTS if count * MOST_SHARE <= rows and rows % count == 0]


def known_word(count: int) -> str:
    return _KNOWN_WORDS[count]


def known_phrase(count: int) -> str:
    return f"{_BEFORE_KNOWN} {_KNOWN_WORDS[count]}"


def known_author(count: int) -> str:
    return f"writes_{count}_times"


def counts_at(number: int, *, rows: int) -> list[int]:
    """The known counts that fall on this row, at most one: spread evenly, each at its own place within its stride.

    Strides divide each other, and places differ, so no two ever meet.
    """
    counts = known_counts(rows)
    return [count for place, count in enumerate(counts) if number % (rows // count) == place]


def make_text(dice: random.Random, *, known: list[int]) -> str:
    words = dice.choices(WORDS, cum_weights=_WEIGHTS, k=dice.randrange(_LEAST_WORDS, _MOST_WORDS))
    text = f"{dice.choice(OPENINGS)} {' '.join([*map(known_phrase, known), *words])}"
    return text if len(text) <= _MOST_CHARS else text[:_MOST_CHARS].rsplit(" ", 1)[0]


def make_author(dice: random.Random, *, known: list[int]) -> str | None:
    """A few write often and most once; every twentieth has no name."""
    if known:
        return known_author(known[0])
    if dice.random() < 0.05:
        return None
    return f"customer{int(_AUTHORS * dice.random() ** 3)}"
