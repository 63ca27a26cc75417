"""A predictor that expects of a tenant what its past requests had."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

import numpy as np
from pydantic import Field

from servsim.request import Request
from servsim.scheduler.predictors.predictor import Predictor, Timed

__all__ = ["History"]


class History(Predictor):
    """The mean, or a quantile, of the latest outputs of the same tenant; it learns as requests finish.

    Of a tenant of which nothing has finished it expects what all tenants' latest outputs had, and at the very beginning
    ``default_output_tokens``. What finishes first is short, so that early predictions are too low: so they are in
    practice. All instances share one history.
    """

    class Parameters(Timed):
        """What a scenario may say under ``predictor`` besides its name."""

        window: int = Field(200, ge=1, le=100_000, description="how many of a tenant's latest outputs count")
        quantile: float | None = Field(
            None, ge=0, le=1, description="expect this quantile of them; by default the mean"
        )
        default_output_tokens: float = Field(256.0, ge=1, le=1e9, description="expected before anything has finished")

    def __init__(self, parameters: Parameters | None, stream: np.random.Generator) -> None:
        self._settings = parameters or self.Parameters()
        self.latency_s = self._settings.latency_s
        self._all = _Window(self._settings.window)
        self._tenants: dict[int, _Window] = {}

    def predict(self, request: Request) -> float:
        """What the tenant's latest outputs had."""
        known = self._tenants.get(request.tenant, self._all)
        return known.expects(self._settings.quantile) if len(known) else self._settings.default_output_tokens

    def learn(self, request: Request, output_tokens: int) -> None:
        """A request ended: the oldest of its tenant's latest outputs makes room."""
        window = self._tenants.get(request.tenant)
        if window is None:
            window = self._tenants[request.tenant] = _Window(self._settings.window)
        window.push(output_tokens)
        self._all.push(output_tokens)


class _Window:
    """The latest lengths, in order of finish and in order of length."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._latest: deque[int] = deque()
        self._sorted: list[int] = []
        self._sum = 0

    def __len__(self) -> int:
        return len(self._latest)

    def push(self, tokens: int) -> None:
        if len(self._latest) == self._size:
            oldest = self._latest.popleft()
            self._sum -= oldest
            del self._sorted[bisect_left(self._sorted, oldest)]
        self._latest.append(tokens)
        self._sum += tokens
        insort(self._sorted, tokens)

    def expects(self, quantile: float | None) -> float:
        if quantile is None:
            return self._sum / len(self._latest)
        place = quantile * (len(self._sorted) - 1)
        below = int(place)
        above = min(below + 1, len(self._sorted) - 1)
        return self._sorted[below] + (place - below) * (self._sorted[above] - self._sorted[below])
