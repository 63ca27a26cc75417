"""The rate up to which a target is kept, read off a curve of few points."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

__all__ = ["rate_at"]


def rate_at(rates: Sequence[float], attainments: Sequence[float], target: float) -> float | None:
    """The rate at which attainment first falls below ``target``, interpolated linearly between two points.

    ``rates`` must rise. None where the curve never falls below the target, or starts below it:
    nothing is extrapolated.

    >>> rate_at([1.0, 2.0, 4.0], [1.0, 1.0, 0.8], 0.9)
    3.0
    """
    if any(after <= before for before, after in pairwise(rates)):
        raise ValueError(f"rates must rise, got {list(rates)}")
    points = list(zip(rates, attainments, strict=True))
    for (rate, kept), (next_rate, next_kept) in pairwise(points):
        if next_kept < target <= kept:
            return rate + (next_rate - rate) * (kept - target) / (kept - next_kept)
        if kept < target:
            return None
    return None
