"""The most SLO gain for the time it takes."""

from __future__ import annotations

from pydantic import Field

from servsim.request import Sequence
from servsim.scheduler.batching import VllmV1Batching
from servsim.scheduler.policy import Surroundings
from servsim.scheduler.urgency.deadlines import Bound, DeadlineParameters, Deadlines
from servsim.scheduler.urgency.demotion import DemotingOrder

__all__ = ["SloGain"]


class SloGain(VllmV1Batching):
    """Largest gain for the estimated time first, on vLLM v1's batching; Tempo, much simplified.

    The gain of a request is 1, and 0 once its SLO cannot be met: such ones wait behind all others, by arrival. The
    time is its prefill and a decode step a predicted token, alone in the batch, estimated at arrival; for a
    conservative length, as Tempo's upper quantile, choose a predictor that says one (``bucket``, ``history``).
    Known from Tempo's abstract only. Left out: its refining of lengths while generating, and that requests ahead
    of their schedule skip decode steps. Without ``slo`` nothing is demoted: shortest estimated time first.
    """

    class Parameters(DeadlineParameters):
        """What a scenario may say about it."""

        bound: Bound = Field("e2e", description="the bound of slo that makes the deadline: ttft_s, or e2e_s")

    def __init__(self, surroundings: Surroundings) -> None:
        given = surroundings.parameters or self.Parameters()
        self._whole = Deadlines(surroundings, "e2e")
        self._keys: dict[Sequence, float] = {}
        super().__init__(surroundings, DemotingOrder(self._alone_s, Deadlines(surroundings, given.bound)))

    def add(self, sequence: Sequence) -> None:
        """A sequence arrives: its time is estimated."""
        self._keys[sequence] = self._whole.service_s(sequence)
        super().add(sequence)

    def finished(self, sequence: Sequence, output_tokens: int) -> None:
        """Forget it."""
        super().finished(sequence, output_tokens)
        del self._keys[sequence]

    def _alone_s(self, sequence: Sequence) -> float:
        return self._keys[sequence]
