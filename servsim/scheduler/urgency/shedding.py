"""Earliest deadline first with shedding of the doomed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from servsim.scheduler.batching import VllmV1Batching
from servsim.scheduler.orders import Order
from servsim.scheduler.policy import Surroundings
from servsim.scheduler.urgency.deadlines import DeadlineParameters, Deadlines
from servsim.scheduler.urgency.demotion import DemotingOrder, FeasibleOrder

__all__ = ["Shedding"]


class Shedding(VllmV1Batching):
    """Earliest deadline first that demotes the doomed to best effort, on vLLM v1's batching; Moore and Hodgson 1968.

    ``rule: own``: a waiting sequence is demoted the moment that ``now + its own service > deadline``. ``rule:
    moore_hodgson``: the line is served one by one in thought, in order of deadline, and where one would end too late
    the largest so far is demoted; that keeps the most deadlines on a serial server. The demoted wait behind all others,
    by arrival, and come back no more; nobody is rejected. Without ``slo`` this is first come, first served.
    Service is estimated as for a sequence alone (servsim.scheduler.urgency.deadlines).
    """

    class Parameters(DeadlineParameters):
        """What a scenario may say about it."""

        rule: Literal["own", "moore_hodgson"] = Field(
            "own",
            description="who is demoted: own = whoever would be late alone, moore_hodgson = the largest of those ahead",
        )

    def __init__(self, surroundings: Surroundings) -> None:
        given = surroundings.parameters or self.Parameters()
        deadlines = Deadlines(surroundings, given.bound)
        order: Order = FeasibleOrder(deadlines, deadlines.service_s)
        if given.rule == "own":
            order = DemotingOrder(deadlines.first_due_s, deadlines)
        super().__init__(surroundings, order)
