"""A predictor that tells long outputs from short ones with a stated accuracy."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from servsim.errors import ScenarioError
from servsim.request import Request
from servsim.scheduler.predictors.chance import Chance
from servsim.scheduler.predictors.predictor import Predictor, Timed

if TYPE_CHECKING:
    from servsim.workload.blocks import RequestStream

__all__ = ["RankAccuracy", "sigma_for_accuracy"]

_SAMPLE_BLOCKS = 16  # of at most 65,536 requests each
_LARGEST_SIGMA = 1e6


class RankAccuracy(Predictor):
    """The truth with as much lognormal noise as gives a wanted ranking accuracy on this workload.

    Clairvoyant's measure: taken over all pairs of a short output (below ``short_below`` tokens) and a long one
    (``long_from`` and more): the share in which the long one is predicted to be longer. Medium ones count in no pair,
    as in Clairvoyant's code (its docstring speaks of all ordered pairs). Sigma is solved for once, before anything
    runs, from the true lengths of the workload's own first requests (up to 16 blocks of 65,536): so the accuracy is
    that of the run in expectation, not of each draw.
    """

    class Parameters(Timed):
        """What a scenario may say under ``predictor`` besides its name."""

        accuracy: float = Field(
            0.85, gt=0.5, le=1, description="wanted share of short-long pairs ranked rightly; 1 is the oracle"
        )
        short_below: int = Field(200, ge=2, description="outputs of fewer tokens are short")
        long_from: int = Field(800, ge=2, description="outputs of as many tokens or more are long")

    def __init__(self, parameters: Parameters | None, stream: np.random.Generator) -> None:
        self._settings = parameters or self.Parameters()
        self.latency_s = self._settings.latency_s
        self._chance = Chance(stream.standard_normal)
        self.sigma: float | None = None  # until the lengths are known

    def prepare(self, requests: RequestStream) -> None:
        """Solve for sigma; raises ScenarioError for a workload without short or without long outputs."""
        blocks = list(islice(requests.blocks(), _SAMPLE_BLOCKS))
        lengths = np.concatenate([block.output_tokens for block in blocks]) if blocks else np.empty(0, dtype=np.int64)
        settings = self._settings
        self.sigma = sigma_for_accuracy(lengths, settings.accuracy, settings.short_below, settings.long_from)

    def predict(self, request: Request) -> float:
        """``output_tokens * exp(sigma * z)`` with z the standard normal draw of this request."""
        if self.sigma is None:
            raise RuntimeError("rank_accuracy was not prepared with the requests of its run")
        return request.output_tokens * math.exp(self.sigma * self._chance.of(request.request_id))


def sigma_for_accuracy(
    lengths: NDArray[np.int64], accuracy: float, short_below: int = 200, long_from: int = 800
) -> float:
    """The sigma at which the mean over pairs of ``Phi(ln(long / short) / (sigma * sqrt(2)))`` is ``accuracy``.

    It falls from 1 at sigma 0 towards 1/2, so bisection finds it. Raises ScenarioError without pairs.
    """
    from scipy.special import ndtr  # slow to import

    if long_from < short_below:
        raise ScenarioError(
            f"rank_accuracy: long_from ({long_from}) is below short_below ({short_below})",
            remedy="an output cannot be both short and long",
        )
    short, shorts = np.unique(lengths[lengths < short_below], return_counts=True)
    long, longs = np.unique(lengths[lengths >= long_from], return_counts=True)
    if not len(short) or not len(long):
        raise ScenarioError(
            f"rank_accuracy: the workload has {int(shorts.sum())} outputs below {short_below} tokens and"
            f" {int(longs.sum())} of {long_from} or more, so there is no pair to rank",
            remedy="set short_below and long_from so that both kinds occur, or use lognormal_noise",
        )
    if accuracy >= 1:
        return 0.0
    gaps = np.log(long)[:, None] - np.log(short)[None, :]
    weights = longs[:, None] * shorts[None, :] / (longs.sum() * shorts.sum())

    def reached(sigma: float) -> float:
        return float((weights * ndtr(gaps / (sigma * math.sqrt(2)))).sum())

    low, high = 0.0, 1.0
    while reached(high) > accuracy and high < _LARGEST_SIGMA:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) > accuracy else (low, middle)
    return (low + high) / 2
