"""A closed loop: users who ask again when they have their answer and have thought about it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from servsim.scenario.arrival_spec import (
    ClosedLoopArrivals,
    ExponentialTime,
    FixedTime,
    LognormalTime,
    TimeDistribution,
)
from servsim.streams import Streams

__all__ = ["ClosedLoop"]

_DRAWN_AT_ONCE = 1024


class ClosedLoop:
    """How many users there are, and how long each request is thought about.

    A request belongs to no particular user: whenever one finishes or is rejected, at ``t``, the next request ``k`` of
    the stream arrives at ``t + think_time_s(k)``. With sessions this holds for them: when one has ended, the next
    session ``k`` begins.
    """

    def __init__(self, spec: ClosedLoopArrivals, streams: Streams) -> None:
        self.concurrency = spec.concurrency
        self._draw = _sampler(spec.think_time_s, streams)
        self._drawn: NDArray[np.float64] = np.empty(0)

    def think_time_s(self, request_id: int) -> float:
        """Seconds of thought before this request or session; the same in whatever order it is asked for."""
        while request_id >= len(self._drawn):
            count = max(_DRAWN_AT_ONCE, len(self._drawn))
            self._drawn = np.concatenate([self._drawn, self._draw(count)])
        return float(self._drawn[request_id])


def _sampler(spec: TimeDistribution, streams: Streams) -> Callable[[int], NDArray[np.float64]]:
    draws = streams.get("think_time")
    match spec:
        case FixedTime():
            return lambda count: np.full(count, spec.value_s)
        case ExponentialTime():
            return lambda count: spec.mean_s * draws.standard_exponential(count)
        case LognormalTime():
            return lambda count: spec.median_s * np.exp(spec.sigma * draws.standard_normal(count))
        case _:
            return lambda count: spec.min_s + (spec.max_s - spec.min_s) * draws.random(count)
