"""What an engine asks of a predictor of output lengths, and the two that need no chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from servsim.request import Request

if TYPE_CHECKING:
    from servsim.workload.blocks import RequestStream

__all__ = ["Constant", "Oracle", "Predictor", "Timed"]


class Timed(BaseModel):
    """What a scenario may say of any predictor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    latency_s: float = Field(
        0.0, ge=0, le=1e6, description="Seconds from a request's arrival to its prediction; it waits outside meanwhile."
    )


class Predictor(Protocol):
    """Guesses an output's length when its request arrives; the only one besides the engine that may know it.

    One serves all instances of a scenario. A kind of predictor derives from it and overrides what it needs.
    A request enters the policy's queue ``latency_s`` after it arrives, with the prediction made on arrival.
    Predictions do not wait for each other, do not fail, and take nothing of the device: not modelled.
    """

    latency_s: float = 0.0

    def __init__(self, parameters: BaseModel | None, stream: np.random.Generator) -> None: ...

    def prepare(self, requests: RequestStream) -> None:
        """Told once, before anything arrives, which requests will come. By default it does not look."""
        return

    def predict(self, request: Request) -> float:
        """Tokens that the output is believed to have, at least 0."""
        ...

    def learn(self, request: Request, output_tokens: int) -> None:
        """A request ended, now, after so many tokens. By default nothing is learnt from it."""
        return


class Oracle(Predictor):
    """The true output length: the best that any predictor could do."""

    Parameters = Timed

    def __init__(self, parameters: Timed | None, stream: np.random.Generator) -> None:
        self.latency_s = (parameters or Timed()).latency_s

    def predict(self, request: Request) -> float:
        """The truth."""
        return float(request.output_tokens)


class Constant(Predictor):
    """The same length for every request: what a policy is worth that knows nothing."""

    class Parameters(Timed):
        """What a scenario may say under ``predictor`` besides its name."""

        tokens: float = Field(256.0, ge=1, le=1e9, description="What every output is believed to have.")

    def __init__(self, parameters: Parameters | None, stream: np.random.Generator) -> None:
        settings = parameters or self.Parameters()
        self.latency_s = settings.latency_s
        self._tokens = settings.tokens

    def predict(self, request: Request) -> float:
        """The constant."""
        return self._tokens
