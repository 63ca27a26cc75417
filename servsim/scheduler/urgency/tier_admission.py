"""First come, first served that turns the less important away under load."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from servsim.request import Sequence
from servsim.scheduler.batching import VllmV1Batching
from servsim.scheduler.plan import Plan
from servsim.scheduler.policy import Surroundings

__all__ = ["TierAdmission"]


class TierAdmission(VllmV1Batching):
    """First come, first served that rejects sheddable requests when saturated; inference-sim's tier admission.

    Saturation is ``max(waiting / queue_depth, KV use / kv_utilization)``; at 1 or more an arriving request whose
    ``priority`` is ``sheddable_priority`` or larger is rejected (0 is the most urgent here; inference-sim sheds its
    negative ones: batch, sheddable, background). inference-sim takes the mean of saturation over all instances, at its
    gateway; an instance knows itself only. KV use is that of the latest admission, preemption or finish.
    Since priority is 0 unless the workload says otherwise, this is fcfs by default.
    """

    class Parameters(BaseModel):
        """What a scenario may say about it."""

        model_config = ConfigDict(frozen=True, extra="forbid")

        queue_depth: float = Field(5.0, gt=0, le=1e9, description="so many waiting are saturation")
        kv_utilization: float = Field(0.8, gt=0, le=1, description="so large a part of the KV memory is saturation")
        sheddable_priority: int = Field(1, description="priorities from this on are rejected when saturated")

    def __init__(self, surroundings: Surroundings) -> None:
        self._given = surroundings.parameters or self.Parameters()
        self._used_blocks = 0
        super().__init__(surroundings)

    @property
    def saturation(self) -> float:
        """1 or more: saturated."""
        kv_utilization = self._used_blocks / self.memory.total_blocks
        return max(self.waiting / self._given.queue_depth, kv_utilization / self._given.kv_utilization)

    def accepts(self, sequence: Sequence) -> bool:
        """Not the sheddable ones while saturated."""
        return sequence.priority < self._given.sheddable_priority or self.saturation < 1

    def begin(self, plan: Plan) -> None:
        """A plan is carried out, and its memory taken."""
        super().begin(plan)
        self._used_blocks = self.memory.used_blocks

    def finished(self, sequence: Sequence, output_tokens: int) -> None:
        """Its memory is free again."""
        super().finished(sequence, output_tokens)
        self._used_blocks = self.memory.used_blocks
