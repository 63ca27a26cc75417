"""A limit on the requests that a tenant may send in a minute."""

from __future__ import annotations

from collections import deque

from pydantic import BaseModel, ConfigDict, Field

from servsim.request import Sequence
from servsim.scheduler.batching import VllmV1Batching
from servsim.scheduler.policy import Surroundings

__all__ = ["RpmLimit", "RpmLimitParameters"]

_WINDOW_S = 60.0


class RpmLimitParameters(BaseModel):
    """What a scenario may say about the limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_per_minute: int = Field(
        30, ge=1, description="requests of one tenant taken in any 60 s; more are rejected"
    )


class RpmLimit(VllmV1Batching):
    """First come, first served, rejecting a tenant's requests beyond so many in 60 s (VTC's baseline).

    A request is rejected on arrival if as many of its tenant were taken within the 60 s before it; rejected ones
    do not count towards the limit. Idle capacity is not given out: that is what VTC holds against it. The default
    of 30 is ours.
    """

    Parameters = RpmLimitParameters

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(surroundings)
        self._limit = (surroundings.parameters or RpmLimitParameters()).requests_per_minute
        self._taken_s: dict[int, deque[float]] = {}

    def accepts(self, sequence: Sequence) -> bool:
        """Whether fewer than the limit were taken in the window."""
        taken_s = self._taken_s.setdefault(sequence.tenant, deque())
        while taken_s and taken_s[0] <= sequence.arrival_s - _WINDOW_S:
            taken_s.popleft()
        if len(taken_s) >= self._limit:
            return False
        taken_s.append(sequence.arrival_s)
        return True
