"""Weigh the pieces of a text with a hashed linear model of our own: byte weights in, calibrated odds out."""

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, sqrt
from pathlib import Path
from typing import Final, Literal, NamedTuple, cast
from zlib import crc32

from local_analyzer.text_features import BUCKET_COUNT, Reading, pair_bucket, trait_bucket, word_buckets

Sentiment = Literal["positive", "neutral", "negative"]
Setting = Literal["support", "public", "foreign"]
LABELS: Final[tuple[Sentiment, Sentiment, Sentiment]] = ("negative", "neutral", "positive")
SETTINGS: Final[tuple[Setting, ...]] = ("support", "public", "foreign")

_ZERO: Final = 128  # the byte that stands for a weight of 0: bytes index faster than signed views
_REMEMBERED_WORDS: Final = 8192  # about 2 MB; support texts repeat their words


class Pull(NamedTuple):
    """What a token adds to each label, summed over its pieces, and how many pieces it has."""

    negative: int
    neutral: int
    positive: int
    piece_count: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """How to read the sums in one setting: a bias for each label, a temperature, and how often such odds are right."""

    bias: tuple[float, float, float]
    temperature: float
    levels: tuple[tuple[float, float], ...]  # (from these odds on, share of right answers), rising from odds of 0

    def confidence(self, odds: float) -> float:
        """How often a label with these odds was right, 0..1."""
        return self.levels[bisect_right(self.levels, (odds, 1.0)) - 1][1]


@dataclass(frozen=True, slots=True)
class Verdict:
    label: Sentiment
    odds: tuple[float, float, float]  # of negative, neutral, positive; they add up to 1
    confidence: float
    pulls: tuple[Pull, ...]  # one a token


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """Three weights a bucket (negative, neutral, positive), a byte each, 128 for zero; their step; the calibrations."""

    packed: bytes
    step: float
    intercept: tuple[float, float, float]
    calibrations: Mapping[Setting, Calibration]


def load_weights(path: Path) -> ModelWeights:
    """Read `path` and the `.json` of the same name beside it.

    Raises: OSError when a file is missing; ValueError when one does not fit the other.
    """
    packed = path.read_bytes()
    if len(packed) != 3 * BUCKET_COUNT:
        raise ValueError(f"{path.name} has {len(packed)} bytes, not {3 * BUCKET_COUNT}; train it again.")
    fields = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    if fields["weights_crc32"] != crc32(packed):
        raise ValueError(f"{path.name} is not the file that its .json was made with; restore both, or train again.")
    calibrations: dict[Setting, Calibration] = {
        setting: _read_calibration(fields["settings"][setting]) for setting in SETTINGS
    }
    return ModelWeights(packed, float(fields["step"]), _three(fields["intercept"]), calibrations)


def _read_calibration(fields: Mapping[str, object]) -> Calibration:
    levels = cast("Sequence[Sequence[float]]", fields["levels"])
    temperature = float(cast("float", fields["temperature"]))
    return Calibration(
        _three(cast("Sequence[float]", fields["bias"])), temperature, tuple((start, share) for start, share in levels)
    )


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    negative, neutral, positive = values
    return float(negative), float(neutral), float(positive)


class SentimentModel:
    """The weights at work; it remembers the pulls of words it has met, which changes its speed, never its answer."""

    def __init__(self, weights: ModelWeights) -> None:
        self._weights = weights
        self._pulls: dict[str, Pull] = {}

    def judge(self, reading: Reading, setting: Setting) -> Verdict:
        """The label of a text in a setting, with its odds and what each token pulled."""
        pulls = tuple(self._pull_of(token) for token in reading.tokens)
        sums = self._sum(reading, pulls)
        calibration = self._weights.calibrations[setting]
        odds = _softmax(
            [
                (value + lean + bias) / calibration.temperature
                for value, lean, bias in zip(sums, self._weights.intercept, calibration.bias, strict=True)
            ]
        )
        best = max(range(3), key=odds.__getitem__)
        return Verdict(LABELS[best], odds, calibration.confidence(odds[best]), pulls)

    def _pull_of(self, token: str) -> Pull:
        pull = self._pulls.get(token)
        if pull is None:
            if len(self._pulls) >= _REMEMBERED_WORDS:
                self._pulls.clear()
            pull = self._pulls[token] = self._weigh(word_buckets(token))
        return pull

    def _weigh(self, buckets: Sequence[int]) -> Pull:
        packed = self._weights.packed
        negative = neutral = positive = 0
        for bucket in buckets:
            at = 3 * bucket
            negative += packed[at]
            neutral += packed[at + 1]
            positive += packed[at + 2]
        zero = _ZERO * len(buckets)
        return Pull(negative - zero, neutral - zero, positive - zero, len(buckets))

    def _sum(self, reading: Reading, pulls: Sequence[Pull]) -> tuple[float, float, float]:
        """Each label's sum over all pieces, divided by the root of their number."""
        tokens = reading.tokens
        rest = [pair_bucket(left, right) for left, right in zip(("^", *tokens), tokens, strict=False)]
        rest += map(trait_bucket, reading.traits)
        negative, neutral, positive, piece_count = self._weigh(rest)
        for pull in pulls:
            negative += pull[0]
            neutral += pull[1]
            positive += pull[2]
            piece_count += pull[3]
        unit = self._weights.step / sqrt(piece_count)
        return negative * unit, neutral * unit, positive * unit


def _softmax(values: Sequence[float]) -> tuple[float, float, float]:
    top = max(values)
    negative, neutral, positive = (exp(value - top) for value in values)
    total = negative + neutral + positive
    return negative / total, neutral / total, positive / total
