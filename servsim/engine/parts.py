"""What an instance is made of."""

from __future__ import annotations

from dataclasses import dataclass

from servsim.cost.cost_model import CostModel
from servsim.engine.facts import Facts
from servsim.memory.allocator import Allocator
from servsim.scheduler.policy import Policy
from servsim.scheduler.predictors import Predictor
from servsim.scheduler.running import Running

__all__ = ["Parts"]


@dataclass(frozen=True, slots=True)
class Parts:
    """What an instance is made of."""

    policy: Policy
    running: Running
    memory: Allocator
    cost: CostModel
    predictor: Predictor
    facts: Facts
    max_model_len: int
    single_stepping: bool
