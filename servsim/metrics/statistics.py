"""Statistics of a sample, and the interval around a mean over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PERCENTILES", "describe", "mean_interval", "statistics_dict", "student_t"]

PERCENTILES = (50, 90, 95, 99)


def describe(values: NDArray[np.float64]) -> dict[str, Any]:
    """Count, mean, std, min, max and :data:`PERCENTILES` of a sample; NaN are left out.

    The standard deviation is that of the sample itself (divided by n) and percentiles interpolate
    linearly, both as ``vllm bench serve`` has them. Without a sample every statistic is None.
    """
    sample = values[~np.isnan(values)]
    if sample.size == 0:
        return statistics_dict(0, [math.nan] * (4 + len(PERCENTILES)))
    percentiles = np.percentile(sample, PERCENTILES)
    return statistics_dict(sample.size, [sample.mean(), sample.std(), sample.min(), sample.max(), *percentiles])


def statistics_dict(count: int, figures: Sequence[float]) -> dict[str, Any]:
    """The mapping that :func:`describe` returns, from mean, std, min, max and the percentiles."""
    names = ("mean", "std", "min", "max", *(f"p{percentile}" for percentile in PERCENTILES))
    found = {name: float(figure) for name, figure in zip(names, figures, strict=True)}
    return {"count": int(count)} | {name: None if math.isnan(value) else value for name, value in found.items()}


def mean_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and half-width of its 95 % interval (Student's t); no half-width for a single value.

    Raises ValueError without any value.
    """
    if not values:
        raise ValueError("the mean of nothing is undefined")
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return mean, None
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return mean, student_t(count - 1) * math.sqrt(variance / count)


def student_t(freedom: int) -> float:
    """The t that 95 % of Student's distribution lie within, by degrees of freedom (2: 4.3027).

    Solved from the finite trigonometric series for whole degrees of freedom (Abramowitz and Stegun,
    26.7.3 and 26.7.4): importing scipy for one number would cost half a second.
    """
    if freedom < 1:
        raise ValueError(f"degrees of freedom must be at least 1, got {freedom}")
    low, high = 1.9, 13.0
    for _ in range(60):
        middle = (low + high) / 2
        if _within(middle, freedom) < 0.95:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _within(t: float, freedom: int) -> float:
    """The probability that ``|T| < t``."""
    angle = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    if freedom == 1:
        return 2 * angle / math.pi
    term = cosine if odd else 1.0
    series = term
    for k in range(2 + odd, freedom - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        series += term
    return 2 / math.pi * (angle + sine * series) if odd else sine * series
