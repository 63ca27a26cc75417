"""Times drawn by inverting distribution functions: one uniform number makes one time, whatever the distribution."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from servsim.scenario.arrival_spec import ExponentialTime, FixedTime, LognormalTime, TimeDistribution
from servsim.workload.blocks import Floats
from servsim.workload.normal import normal_quantile

__all__ = ["time_quantiles"]


def time_quantiles(spec: TimeDistribution) -> Callable[[Floats], Floats]:
    """The quantile function of a distribution: seconds, at least 0, for an array of numbers from [0, 1)."""
    match spec:
        case FixedTime():
            return lambda u: np.full(len(u), spec.value_s)
        case ExponentialTime():
            return lambda u: -spec.mean_s * np.log1p(-u)
        case LognormalTime():
            return lambda u: spec.median_s * np.exp(spec.sigma * normal_quantile(u))
        case _:
            return lambda u: spec.min_s + (spec.max_s - spec.min_s) * u
