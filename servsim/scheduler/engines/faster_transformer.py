"""FasterTransformer: static batches."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from servsim.request import Sequence
from servsim.scheduler.admissions import Admission
from servsim.scheduler.batching import VllmV1Batching
from servsim.scheduler.engines.reservation import Reservation
from servsim.scheduler.orders import Order
from servsim.scheduler.plan import Plan
from servsim.scheduler.policy import UNBOUNDED, Surroundings

__all__ = ["FasterTransformer", "FasterTransformerParameters", "OnlyWhenEmpty"]


class FasterTransformerParameters(BaseModel):
    """What a scenario may say about FasterTransformer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_batch: int | None = Field(None, ge=1, description="most sequences in a batch; max_num_seqs by default")


class OnlyWhenEmpty(Admission):
    """Lets nobody join a batch that has begun; who is in a new one is for another rule to say."""

    def __init__(self, surroundings: Surroundings, rule: Admission) -> None:
        self.running = surroundings.running
        self.rule = rule

    def admits(self, sequence: Sequence, admitted: int) -> bool:
        """Whether nothing runs, and the rule agrees."""
        return not self.running.sequences and self.rule.admits(sequence, admitted)

    def stable_steps(self) -> int:
        """While something runs the refusal stands."""
        return UNBOUNDED

    def began(self, plan: Plan) -> None:
        """The rule is told."""
        self.rule.began(plan)

    def finished(self, sequence: Sequence, output_tokens: int) -> None:
        """The rule is told."""
        self.rule.finished(sequence, output_tokens)


class FasterTransformer(VllmV1Batching):
    """FasterTransformer: request-level static batching, nobody joins until all of a batch have ended.

    A batch is filled from the head of the line up to ``max_batch`` and while the reservations of the model's
    maximum length fit the memory; its prompts are prefilled whole in one iteration (``max_num_batched_tokens``
    bounds nothing). Members that end early free their memory and stop costing time at once, and their answers are
    out then; the real one pads them along and answers when the batch ends. What is kept is what matters to the
    queue: the batch lasts as long as its longest member. Any order, and any rule in place of the
    reservation, may be given.

    Source: the request-level baseline of Vidur and of Orca (OSDI 2022).
    """

    Parameters = FasterTransformerParameters

    def __init__(
        self, surroundings: Surroundings, order: Order | None = None, admission: Admission | None = None
    ) -> None:
        settings = surroundings.parameters or FasterTransformerParameters()
        super().__init__(surroundings, order, OnlyWhenEmpty(surroundings, admission or Reservation(surroundings)))
        self.max_num_seqs = min(self.max_num_seqs, settings.max_batch or self.max_num_seqs)
        self.max_num_batched_tokens = UNBOUNDED
