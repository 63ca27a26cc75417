"""Arrival processes: times drawn in blocks, the same ones whatever the blocks' size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from servsim.scenario.arrival_spec import (
    ArrivalSpec,
    ClosedLoopArrivals,
    ConstantArrivals,
    GammaArrivals,
    MmppArrivals,
    PiecewiseArrivals,
    PoissonArrivals,
)
from servsim.streams import Streams
from servsim.workload.blocks import Floats
from servsim.workload.rates import RatePath, mmpp_pieces, piecewise_pieces

__all__ = ["ArrivalTimes", "arrival_times"]

ArrivalTimes = Callable[[int], Floats]
"""``next_times(count)``: the next ``count`` arrivals, in seconds, not falling; fewer when the process has ended."""


def arrival_times(spec: ArrivalSpec, streams: Streams) -> ArrivalTimes:
    """The arrivals of a process from its beginning.

    Every process is drawn at rate one and stretched, from the stream ``arrivals`` alone (``arrivals.states`` for the
    states of an mmpp): at another rate the same seed gives the same pattern, faster or slower.
    """
    draws = streams.get("arrivals")
    match spec:
        case ConstantArrivals():
            return _Constant(spec.rate_per_s)
        case PoissonArrivals():
            unit = _Sums(draws.standard_exponential)
            return lambda count: unit(count) / spec.rate_per_s
        case GammaArrivals():
            shape = spec.shape
            unit = _Sums(lambda count: draws.standard_gamma(shape, count))
            return lambda count: unit(count) / (shape * spec.rate_per_s)
        case PiecewiseArrivals() | MmppArrivals():
            pieces = piecewise_pieces(spec) if isinstance(spec, PiecewiseArrivals) else mmpp_pieces(spec, streams)
            unit, path = _Sums(draws.standard_exponential), RatePath(pieces)
            return lambda count: path.times_s(unit(count))
        case ClosedLoopArrivals():
            return _ClosedLoop(spec.concurrency)


class _Constant:
    """Equal gaps, counted and not summed up."""

    def __init__(self, rate_per_s: float) -> None:
        self.rate_per_s = rate_per_s
        self.given = 0

    def __call__(self, count: int) -> Floats:
        self.given += count
        return np.arange(self.given - count, self.given) / self.rate_per_s


class _ClosedLoop:
    """0 for every user's first request, NaN for those whose time the simulation finds."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.given = 0

    def __call__(self, count: int) -> Floats:
        self.given += count
        return np.where(np.arange(self.given - count, self.given) < self.concurrency, 0.0, np.nan)


class _Sums:
    """Running sums of draws, added up one by one, so that cutting them into blocks changes no bit."""

    def __init__(self, draw: Callable[[int], Floats]) -> None:
        self.draw = draw
        self.total = 0.0

    def __call__(self, count: int) -> Floats:
        gaps = self.draw(count)
        if count:
            gaps[0] += self.total
            np.cumsum(gaps, out=gaps)
            self.total = float(gaps[-1])
        return gaps
