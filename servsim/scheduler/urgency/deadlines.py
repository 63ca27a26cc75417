"""Deadlines and service times, as far as an instance can know them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from servsim.request import Sequence
from servsim.scheduler.policy import Surroundings

__all__ = ["Bound", "DeadlineParameters", "Deadlines"]

Bound = Literal["ttft", "e2e"]


class DeadlineParameters(BaseModel):
    """What a scenario may say of any policy with deadlines."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bound: Bound = Field("ttft", description="the bound of slo that makes the deadline: ttft_s, or e2e_s")


class Deadlines:
    """When a sequence is due, and how long it still has to be served: in absolute and in plain seconds.

    Due is ``arrival_s`` plus the TTFT (or end-to-end) bound of its SLO class; infinity without one, and for a
    TTFT bound once the first token is out. Service is what the sequence would need alone: its prefill in one step and,
    under an end-to-end bound, a decode step for each predicted token that it lacks. Not modelled in the
    estimate: chunks, the queue ahead, and how others in the batch slow a step.
    """

    def __init__(self, surroundings: Surroundings, bound: Bound) -> None:
        self._surroundings = surroundings
        self._until_first = bound == "ttft"
        self._bounds_s = [one.ttft_s if self._until_first else one.e2e_s for one in surroundings.bounds]

    def due_s(self, sequence: Sequence) -> float:
        """The deadline of a sequence that does not decode."""
        if self._until_first and sequence.generated_tokens:
            return float("inf")
        return self.first_due_s(sequence)

    def first_due_s(self, sequence: Sequence) -> float:
        """The deadline it came with, met or not: a key that never changes."""
        return sequence.arrival_s + self._bounds_s[sequence.slo_class]

    def service_s(self, sequence: Sequence) -> float:
        """What a sequence that does not decode still needs; the prefill's own token is the first that it lacks."""
        prefill_s = self._surroundings.prefill_s(sequence.total_tokens)
        if self._until_first:
            return prefill_s
        lacking = max(1.0, sequence.predicted_tokens - sequence.generated_tokens)
        return prefill_s + (lacking - 1) * self._surroundings.decode_s(1, sequence.total_tokens)
