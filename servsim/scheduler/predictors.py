"""What a policy believes about output lengths."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from servsim.request import Request

__all__ = ["LognormalNoise", "Oracle", "Predictor"]


class Predictor(Protocol):
    """Guesses an output's length when its request arrives; the only one besides the engine that may know it."""

    def __init__(self, parameters: BaseModel | None, stream: np.random.Generator) -> None: ...

    def predict(self, request: Request) -> float:
        """Tokens that the output is believed to have."""
        ...


class Oracle:
    """The true output length: the best that any predictor could do."""

    def __init__(self, parameters: BaseModel | None, stream: np.random.Generator) -> None:
        pass

    def predict(self, request: Request) -> float:
        """The truth."""
        return float(request.output_tokens)


class LognormalNoise:
    """The truth times lognormal noise: ``ln(prediction) = ln(output) + N(0, sigma)``.

    The noise of a request is drawn in order of ``request_id``, so that a request is judged alike
    whatever the policy and wherever it is served.
    """

    class Parameters(BaseModel):
        """What a scenario may say under ``predictor`` besides its name."""

        model_config = ConfigDict(frozen=True, extra="forbid")

        sigma: float = Field(0.5, ge=0, le=10, description="standard deviation of the logarithm; 0 is the oracle")

    def __init__(self, parameters: Parameters | None, stream: np.random.Generator) -> None:
        self._sigma = (parameters or self.Parameters()).sigma
        self._stream = stream
        self._noise: list[float] = []

    def predict(self, request: Request) -> float:
        """``output_tokens * exp(sigma * z)`` with z the standard normal draw of this request."""
        while request.request_id >= len(self._noise):
            self._noise.extend(self._stream.standard_normal(4096).tolist())
        return request.output_tokens * math.exp(self._sigma * self._noise[request.request_id])
