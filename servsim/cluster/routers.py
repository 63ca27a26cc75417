"""Routers: which instance a request goes to."""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import TYPE_CHECKING, Protocol

from servsim.engine.instance import Observation
from servsim.request import Request

if TYPE_CHECKING:
    import numpy as np
    from pydantic import BaseModel

__all__ = ["Observed", "RandomRouter", "RoundRobin", "Router"]


class Observed(Protocol):
    """An instance as a router sees it."""

    def observe(self, now_s: float) -> Observation:
        """Counts and KV use at this time."""
        ...


class Router(Protocol):
    """Chooses an instance for each request as it arrives; may observe the instances, changes none."""

    def __init__(self, parameters: BaseModel | None, stream: np.random.Generator) -> None: ...

    def choose(self, request: Request, instances: Many[Observed], now_s: float) -> int:
        """The index of the instance that gets the request."""
        ...


class RoundRobin:
    """Instance 0, 1, 2, ... in turn."""

    def __init__(self, parameters: BaseModel | None, stream: np.random.Generator) -> None:
        self._next = 0

    def choose(self, request: Request, instances: Many[Observed], now_s: float) -> int:
        """The next in turn."""
        chosen = self._next % len(instances)
        self._next = chosen + 1
        return chosen


class RandomRouter:
    """Every instance equally likely, independently: Poisson arrivals stay Poisson at each."""

    def __init__(self, parameters: BaseModel | None, stream: np.random.Generator) -> None:
        self._stream = stream
        self._draws: list[float] = []

    def choose(self, request: Request, instances: Many[Observed], now_s: float) -> int:
        """A uniform draw."""
        if not self._draws:
            self._draws = self._stream.random(4096).tolist()[::-1]
        return int(self._draws.pop() * len(instances))
