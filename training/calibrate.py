"""Fit how the sums of the model are read in one setting: bias, temperature, and the share of right answers."""

from collections.abc import Sequence
from itertools import product

import numpy as np

Sums = tuple[np.ndarray, np.ndarray]  # n x 3 sums, n labels
LEVEL_COUNT = 3  # few, so that a level rests on many texts


def fit_setting(files: Sequence[Sums], *, mix: tuple[float, float, float] | None) -> dict[str, object]:
    """The calibration of one setting, each file weighing the same; `mix` reweighs the labels to these shares."""
    weights = [_weights(labels, mix) for _, labels in files]
    bias = _best_bias(files, weights)
    sums = np.concatenate([sums for sums, _ in files]) + bias
    labels = np.concatenate([labels for _, labels in files])
    weight = np.concatenate(weights)
    temperature = _best_temperature(sums, labels, weight)
    odds = softmax(sums / temperature)
    levels = _levels(odds.max(axis=1), odds.argmax(axis=1) == labels, weight)
    return {"bias": [round(float(b), 3) for b in bias], "temperature": round(temperature, 3), "levels": levels}


def softmax(sums: np.ndarray) -> np.ndarray:
    raised = np.exp(sums - sums.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def _weights(labels: np.ndarray, mix: tuple[float, float, float] | None) -> np.ndarray:
    weights = np.ones(len(labels))
    if mix is not None:
        shares = np.array([(labels == label).mean() for label in range(3)])
        weights = (np.array(mix) / shares)[labels]
    return weights / weights.sum()


def macro_f1(given: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    total = 0.0
    for label in range(3):
        right = weights[(given == label) & (labels == label)].sum()
        total += 2 * right / max(1e-9, weights[given == label].sum() + weights[labels == label].sum())
    return total / 3


def _best_bias(files: Sequence[Sums], weights: Sequence[np.ndarray]) -> np.ndarray:
    """The bias of the best mean macro-F1, small files counting less; its neighbours count too: no lucky point wins."""
    steps = np.arange(-1.0, 1.01, 0.1)
    scores = np.zeros((len(steps), len(steps)))
    for (i, negative), (j, positive) in product(enumerate(steps), enumerate(steps)):
        bias = np.array([negative, 0.0, positive])
        scores[i, j] = np.average(
            [macro_f1((s + bias).argmax(axis=1), y, w) for (s, y), w in zip(files, weights, strict=True)],
            weights=[len(y) ** 0.5 for _, y in files],
        )
    smooth = np.full_like(scores, -1.0)
    for i, j in product(range(2, len(steps) - 2), repeat=2):
        smooth[i, j] = scores[i - 2 : i + 3, j - 2 : j + 3].mean()
    i, j = np.unravel_index(smooth.argmax(), smooth.shape)
    return np.array([steps[i], 0.0, steps[j]])


def _best_temperature(sums: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    def loss(temperature: float) -> float:
        odds = softmax(sums / temperature)[np.arange(len(labels)), labels]
        return float(-(weights * np.log(np.maximum(odds, 1e-9))).sum())

    return float(min(np.arange(0.3, 4.0, 0.02), key=loss))


def _levels(odds: np.ndarray, right: np.ndarray, weights: np.ndarray) -> list[list[float]]:
    """Levels of equal weight: from which odds on, and the share of right answers; levels that would fall are pooled."""
    order = np.argsort(odds)
    bounds = np.searchsorted(np.cumsum(weights[order]) / weights.sum(), np.linspace(0, 1, LEVEL_COUNT + 1)[1:-1])
    pools: list[np.ndarray] = []

    def share(part: np.ndarray) -> float:
        return float((weights[part] * right[part]).sum() / weights[part].sum())

    for part in np.split(order, bounds):
        pools.append(part)
        while len(pools) > 1 and share(pools[-2]) >= share(pools[-1]):
            pools[-2:] = [np.concatenate(pools[-2:])]
    starts = [0.0, *(float(odds[part].min()) for part in pools[1:])]
    return [[round(start, 4), round(share(part), 4)] for start, part in zip(starts, pools, strict=True)]
