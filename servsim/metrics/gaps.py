"""Inter-token latencies of a whole run, kept as arithmetic progressions and never expanded in full."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servsim.metrics.statistics import PERCENTILES, statistics_dict

__all__ = ["Gaps", "Progressions"]

_EXPANDED_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class Progressions:
    """Rows of numbers: row i holds ``steps[i]`` of them, evenly spaced from ``low[i]`` up to ``high[i]``.

    A row of one number has ``low`` equal to ``high``.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    steps: NDArray[np.int64]

    @cached_property
    def by_low(self) -> NDArray[np.int64]:
        """The rows, by their lowest value."""
        return np.argsort(self.low)

    @cached_property
    def by_high(self) -> NDArray[np.int64]:
        """The rows, by their highest value."""
        return np.argsort(self.high)

    def __getitem__(self, rows: NDArray[Any]) -> Progressions:
        return Progressions(self.low[rows], self.high[rows], self.steps[rows])

    def value(self, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """The value at one index of every row, from 0 to ``steps - 1``; never falls with the index."""
        values: NDArray[np.float64] = self.low + (self.high - self.low) * (index / np.maximum(self.steps - 1, 1))
        return values

    def count_below(self, limit: float) -> NDArray[np.int64]:
        """How many values of every row are less than ``limit``."""
        span = self.high - self.low
        with np.errstate(divide="ignore", invalid="ignore"):
            guess = np.nan_to_num((limit - self.low) / span * (self.steps - 1), nan=0.0)
        below: NDArray[np.int64] = np.clip(np.floor(guess) - 1, 0, self.steps).astype(np.int64)
        for _ in range(3):  # the guess is good to one place: walk over it, comparing the values themselves
            below += (below < self.steps) & (self.value(below) < limit)
        return below

    def expand(self, first: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.float64]:
        """The values ``first .. first + count - 1`` of every row, one row after the other."""
        starts = np.cumsum(count) - count
        index = np.arange(int(count.sum())) - np.repeat(starts - first, count)
        spans = np.repeat(self.high - self.low, count)
        parts: NDArray[np.float64] = index / np.repeat(np.maximum(self.steps - 1, 1), count)
        return np.repeat(self.low, count) + spans * parts


@dataclass(frozen=True)
class Gaps:
    """Inter-token latencies in seconds: each value of row i counts ``weights[i]`` times.

    The weight is the number of sequences that decoded in the row. A million requests have tens of
    millions of distinct values, so statistics work on the rows: sums in closed form, percentiles by
    expanding only the few values around the one that is looked for. All of it is exact.
    """

    rows: Progressions
    weights: NDArray[np.int64]

    @cached_property
    def count(self) -> int:
        """How many inter-token latencies there are."""
        return int(self.rows.steps @ self.weights)

    def describe(self) -> dict[str, Any]:
        """The statistics of :func:`servsim.metrics.statistics.describe`, as if all were expanded."""
        if self.count == 0:
            return statistics_dict(0, [math.nan] * (4 + len(PERCENTILES)))
        rows, present = self.rows, self.weights > 0
        mass = (rows.steps * self.weights).astype(np.float64)
        middles = (rows.low + rows.high) / 2
        mean = float(middles @ mass) / self.count
        # A progression of k values that spans d has the variance d^2 (k + 1) / (12 (k - 1)).
        within = (rows.high - rows.low) ** 2 * ((rows.steps + 1) / (12 * np.maximum(rows.steps - 1, 1)))
        deviation = math.sqrt(float((within + (middles - mean) ** 2) @ mass) / self.count)
        extremes = [float(rows.low[present].min()), float(rows.high[present].max())]
        percentiles = [self.percentile(percentile) for percentile in PERCENTILES]
        return statistics_dict(self.count, [mean, deviation, *extremes, *percentiles])

    def percentile(self, percentile: float) -> float:
        """A percentile by linear interpolation between the two values around it; NaN without any value."""
        if self.count == 0:
            return math.nan
        position = (self.count - 1) * percentile / 100
        rank = math.floor(position)
        value = self._ranked(rank)
        if rank == position:
            return value
        return value + (self._ranked(rank + 1) - value) * (position - rank)

    def expand(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Every value with its weight: 16 bytes for each step in which somebody decoded."""
        present = np.flatnonzero(self.weights > 0)
        rows = self.rows[present]
        return rows.expand(np.zeros_like(rows.steps), rows.steps), np.repeat(self.weights[present], rows.steps)

    def _ranked(self, rank: int) -> float:
        """The value that has ``rank`` others before it in sorted order.

        Were all values of a row its lowest, the ranked value could only be lower, and higher were they
        its highest: that brackets it. Rows below the bracket are counted; those that reach into it are
        narrowed down by bisection until few values are left, and only these are expanded.
        """
        bottom, top = self._bracket(rank)
        reaching = np.flatnonzero((self.rows.high >= bottom) & (self.rows.low < top) & (self.weights > 0))
        rows, weights = self.rows[reaching], self.weights[reaching]
        rank -= self._mass_of_rows_below(bottom)
        below, up_to = rows.count_below(bottom), rows.count_below(top)
        while int((up_to - below).sum()) > _EXPANDED_AT_ONCE:
            middle = (bottom + top) / 2
            if not bottom < middle < top:  # all that is left is one number, many times over
                return bottom
            up_to_middle = rows.count_below(middle)
            if rank < int(up_to_middle @ weights):
                top, up_to = middle, up_to_middle
            else:
                bottom, below = middle, up_to_middle
        values = rows.expand(below, up_to - below)
        order = np.argsort(values)
        mass = np.cumsum(np.repeat(weights, up_to - below)[order])
        return float(values[order[np.searchsorted(mass, rank - int(below @ weights), side="right")]])

    def _bracket(self, rank: int) -> tuple[float, float]:
        """Two values: the ranked one is at least the first and less than the second."""
        at_low = self.rows.by_low[np.searchsorted(self._mass_by_low, rank, side="right")]
        at_high = self.rows.by_high[np.searchsorted(self._mass_by_high, rank, side="right")]
        # Twice the next number: a row's last value may round to one above its high.
        top = np.nextafter(np.nextafter(self.rows.high[at_high], np.inf), np.inf)
        return float(self.rows.low[at_low]), float(top)

    def _mass_of_rows_below(self, limit: float) -> int:
        before = int(np.searchsorted(self.rows.high, limit, sorter=self.rows.by_high, side="left"))
        return int(self._mass_by_high[before - 1]) if before else 0

    @cached_property
    def _mass_by_low(self) -> NDArray[np.int64]:
        return np.cumsum((self.rows.steps * self.weights)[self.rows.by_low])

    @cached_property
    def _mass_by_high(self) -> NDArray[np.int64]:
        return np.cumsum((self.rows.steps * self.weights)[self.rows.by_high])
