"""Earliest deadline first."""

from __future__ import annotations

from servsim.request import Sequence
from servsim.scheduler.batching import VllmV1Batching
from servsim.scheduler.policy import Surroundings
from servsim.scheduler.urgency.deadlines import DeadlineParameters, Deadlines

__all__ = ["Edf"]


class Edf(VllmV1Batching):
    """Earliest deadline first on vLLM v1's batching: arrival plus TTFT bound; llm-d's EDF ordering.

    A class without that bound has its deadline in the far future, so without ``slo`` this is first come, first
    served; ties go by arrival. With ``bound: e2e`` the end-to-end bound makes the deadline. Running sequences are
    displaced only when memory runs out, the latest deadline first. Optimal where all deadlines can be met and nothing
    arrives meanwhile; under overload it serves the doomed first: see ``shedding``.
    """

    Parameters = DeadlineParameters

    def __init__(self, surroundings: Surroundings) -> None:
        given = surroundings.parameters or DeadlineParameters()
        self._deadlines = Deadlines(surroundings, given.bound)
        super().__init__(surroundings)

    def order_key(self, sequence: Sequence) -> float:
        """The deadline, in absolute seconds."""
        return self._deadlines.first_due_s(sequence)
