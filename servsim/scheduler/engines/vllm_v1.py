"""vLLM v1's scheduler with the knobs that it has."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from servsim.request import Sequence
from servsim.scheduler.admissions import Admission
from servsim.scheduler.batching import VllmV1Batching
from servsim.scheduler.orders import KeyOrder, Order
from servsim.scheduler.policy import Surroundings

__all__ = ["PriorityOrder", "TokenBudgetBatching", "TokenBudgetParameters", "VllmV1", "VllmV1Parameters"]


class TokenBudgetParameters(BaseModel):
    """What a scenario may say about vLLM v1's batching, whatever the order; the names are vLLM's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    long_prefill_token_threshold: int = Field(
        0, ge=0, description="longest prefill chunk of one sequence in a step; 0: the token budget alone bounds it"
    )
    async_scheduling: bool = Field(
        False,
        description="plan the next step while one runs: an arrival is seen a step later, as by default in vLLM 0.19",
    )


class VllmV1Parameters(TokenBudgetParameters):
    """What a scenario may say about vLLM v1's scheduler; the names are vLLM's."""

    scheduling_policy: Literal["fcfs", "priority"] = Field(
        "fcfs", description="the waiting line: by arrival, or by the requests' priority (lower is more urgent)"
    )


class PriorityOrder(KeyOrder):
    """By the requests' own priority, lower first, then by arrival."""

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(_priority)


def _priority(sequence: Sequence) -> float:
    return sequence.priority


class TokenBudgetBatching(VllmV1Batching):
    """vLLM v1's batching with its knobs but for the order, which is given: the part of ``combined``."""

    Parameters = TokenBudgetParameters

    def __init__(
        self, surroundings: Surroundings, order: Order | None = None, admission: Admission | None = None
    ) -> None:
        settings = surroundings.parameters or TokenBudgetParameters()
        self.asynchronous = settings.async_scheduling
        super().__init__(
            surroundings, order, admission, long_prefill_token_threshold=settings.long_prefill_token_threshold
        )


class VllmV1(VllmV1Batching):
    """vLLM v1 (0.19): token budget, chunked prefill in list order, fcfs or priority mode, preemption by recompute.

    In priority mode the line is sorted by ``(priority, arrival)``, a preempted sequence goes back to its
    place in it, and the victim is the running one with the largest of both, wherever it stands. The defaults are
    ``fcfs``. Another order than the parameter's may be given; the threshold holds with any. Asynchronous
    scheduling (``async_scheduling``) means that the plan of a step sees what had arrived when the step before it began;
    that planning is hidden behind the step is a matter of cost (``cost.async_scheduling``), and the decode slot
    that vLLM wastes on a sequence that has just met its end token is not modelled.

    Source: vllm/v1/core/sched/scheduler.py; see :class:`VllmV1Batching` for what is not modelled.
    """

    Parameters = VllmV1Parameters

    def __init__(
        self, surroundings: Surroundings, order: Order | None = None, admission: Admission | None = None
    ) -> None:
        settings = surroundings.parameters or VllmV1Parameters()
        if order is None and settings.scheduling_policy == "priority":
            order = PriorityOrder(surroundings)
        self.asynchronous = settings.async_scheduling
        super().__init__(
            surroundings, order, admission, long_prefill_token_threshold=settings.long_prefill_token_threshold
        )
