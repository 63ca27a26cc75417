"""Admission by reservation: a sequence is let in if the memory set aside for all, it included, does not exceed all."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from servsim.request import Sequence
from servsim.scheduler.admissions import Admission
from servsim.scheduler.plan import Plan
from servsim.scheduler.policy import Surroundings

__all__ = ["Reservation", "ReservationParameters", "Reserve", "power_of_two"]

Reserve = Literal["max", "declared", "pow2", "oracle"]


class ReservationParameters(BaseModel):
    """What a scenario may say about reservations."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reserve: Reserve = Field(
        "max",
        description="set aside at admission: max = the model's length, declared = prompt + max_tokens, "
        "pow2 = prompt + next power of two of the predicted output, oracle = prompt + predicted output",
    )


def power_of_two(tokens: int) -> int:
    """The smallest power of two that is not below ``tokens`` (at least 1)."""
    return 1 << max(0, tokens - 1).bit_length()


class Reservation(Admission):
    """Sets ``R(r)`` blocks aside at admission and gives them back at the end; admits while the sum stays within all.

    ``R(r)`` is, rounded up to blocks: ``max`` the model's maximum length, ``declared`` the prompt and the declared
    ``max_tokens``, ``pow2`` the prompt and the smallest power of two not below the predicted output, ``oracle`` the
    prompt and the predicted output. With the oracle predictor (the default) no reservation is ever exceeded, and so
    nobody is preempted. A wrong prediction may be: the sequence then takes blocks that nobody set aside, without
    its reservation growing, and when there are none left the batch composer preempts. A preempted one
    comes back with a reservation for one token more than it has emitted at the least.

    The account is this rule's own: the allocator goes on granting blocks as tokens come, so that the reported
    use of memory is what is stored. A reservation larger than the memory counts as all of it: such a sequence
    runs alone (an engine would not start with such a model length).
    """

    Parameters = ReservationParameters

    def __init__(self, surroundings: Surroundings) -> None:
        own = surroundings.parameters
        self.running = surroundings.running
        self.reserve: Reserve = own.reserve if isinstance(own, ReservationParameters) else "max"
        self.total_blocks = surroundings.memory.total_blocks
        self.reserved_blocks = 0  # by all that run
        self._block_size = surroundings.memory.block_size
        self._max_model_len = surroundings.max_model_len
        self._held: dict[Sequence, int] = {}
        self._pending: dict[Sequence, int] = {}  # by those that the plan under way has let in

    def blocks(self, sequence: Sequence) -> int:
        """``R(r)``."""
        tokens = self._max_model_len
        if self.reserve == "declared":
            tokens = sequence.prompt_tokens + sequence.max_tokens
        elif self.reserve != "max":
            output = max(math.ceil(sequence.predicted_tokens), sequence.generated_tokens + 1)
            tokens = sequence.prompt_tokens + (power_of_two(output) if self.reserve == "pow2" else output)
        return min(-(-tokens // self._block_size), self.total_blocks)

    def admits(self, sequence: Sequence, admitted: int) -> bool:
        """Whether its reservation fits beside all others; a lone one's always does."""
        if not admitted:
            self._pending.clear()
        if sequence not in self._pending:
            blocks = self.blocks(sequence)
            if self.reserved_blocks + sum(self._pending.values()) + blocks > self.total_blocks:
                return False
            self._pending[sequence] = blocks
        return True

    def began(self, plan: Plan) -> None:
        """The admitted hold their reservations, the preempted hold none."""
        for sequence in plan.preempted:
            self._return(sequence)
        for sequence, _ in plan.prefills[len(plan.prefills) - plan.admitted :]:
            self._held[sequence] = self.blocks(sequence)
            self.reserved_blocks += self._held[sequence]

    def finished(self, sequence: Sequence, output_tokens: int) -> None:
        """Its reservation is free again."""
        self._return(sequence)

    def _return(self, sequence: Sequence) -> None:
        self.reserved_blocks -= self._held.pop(sequence, 0)
