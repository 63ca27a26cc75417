"""Predictors that blur the truth by a stated amount."""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field

from servsim.request import Request
from servsim.scheduler.predictors.chance import Chance
from servsim.scheduler.predictors.predictor import Predictor, Timed

__all__ = ["LognormalNoise", "MaeNoise"]


class LognormalNoise(Predictor):
    """The truth times lognormal noise: ``ln(prediction) = ln(output) + N(0, sigma)``.

    The noise of a request depends on the seed and its ``request_id`` alone.
    """

    class Parameters(Timed):
        """What a scenario may say under ``predictor`` besides its name."""

        sigma: float = Field(0.5, ge=0, le=10, description="standard deviation of the logarithm; 0 is the oracle")

    def __init__(self, parameters: Parameters | None, stream: np.random.Generator) -> None:
        settings = parameters or self.Parameters()
        self.latency_s = settings.latency_s
        self._sigma = settings.sigma
        self._chance = Chance(stream.standard_normal)

    def predict(self, request: Request) -> float:
        """``output_tokens * exp(sigma * z)`` with z the standard normal draw of this request."""
        return request.output_tokens * math.exp(self._sigma * self._chance.of(request.request_id))


class MaeNoise(Predictor):
    """The truth plus normal noise of a stated mean absolute error, at least 1 (TRAIL's simulated predictor).

    ``sigma = MAE * sqrt(pi / 2)``, since a normal variable's mean absolute value is ``sigma * sqrt(2 / pi)``. Where the
    bound of 1 takes hold, the error is smaller than stated.
    """

    class Parameters(Timed):
        """What a scenario may say under ``predictor`` besides its name."""

        mae_tokens: float = Field(46.1, ge=0, le=1e6, description="mean absolute error in tokens; 0 is the oracle")

    def __init__(self, parameters: Parameters | None, stream: np.random.Generator) -> None:
        settings = parameters or self.Parameters()
        self.latency_s = settings.latency_s
        self.sigma_tokens = settings.mae_tokens * math.sqrt(math.pi / 2)
        self._chance = Chance(stream.standard_normal)

    def predict(self, request: Request) -> float:
        """``output_tokens + sigma * z``, not below 1."""
        return max(1.0, request.output_tokens + self.sigma_tokens * self._chance.of(request.request_id))
