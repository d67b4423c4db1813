"""Figures from measured values: percentiles, and a histogram made of text."""

import math
from collections.abc import Sequence

BAR_WIDTH = 40  # characters: with its labels a row stays below 80 columns


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest measured value that at least `percent` of all values do not exceed (nearest rank).

    Raises: ValueError without values, or outside 0..100.
    """
    if not values or not 0 <= percent <= 100:
        raise ValueError("a percentile needs values and a percent between 0 and 100")
    rank = max(1, math.ceil(len(values) * percent / 100))
    return sorted(values)[rank - 1]


def bucket_counts(values: Sequence[float], bounds: Sequence[float]) -> list[int]:
    """How many values lie at or below each bound and above the one before; the last count is what exceeds them all."""
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[next((place for place, bound in enumerate(bounds) if value <= bound), len(bounds))] += 1
    return counts


def doubling_bounds(values: Sequence[float]) -> list[float]:
    """Powers of two from just above the smallest value to the first that covers the largest."""
    lowest, highest = (math.ceil(math.log2(max(edge, 2**-10))) for edge in (min(values), max(values)))
    return [2.0**power for power in range(lowest, highest + 1)]


def histogram(values: Sequence[float], *, unit: str) -> list[str]:
    """One line a bucket: its upper bound, a bar, the count and the share of all."""
    if not values:
        return []
    bounds = doubling_bounds(values)
    counts = bucket_counts(values, bounds)[: len(bounds)]
    most = max(counts)
    return [
        f"<= {bound:>8g} {unit} {'#' * round(BAR_WIDTH * count / most):<{BAR_WIDTH}} "
        f"{count:>7} {count / len(values):6.1%}"
        for bound, count in zip(bounds, counts, strict=True)
    ]
