"""What an instance is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from servsim.cost.cost_model import CostModel
from servsim.engine.facts import Facts
from servsim.engine.pipeline import Lane
from servsim.memory.allocator import Allocator
from servsim.memory.kept import KvBounds
from servsim.memory.swap_space import SwapSpace
from servsim.request import Request
from servsim.scheduler.policy import Policy
from servsim.scheduler.predictors import Predictor
from servsim.scheduler.running import Running
from servsim.workload.beams import Reorderings

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
    frontend: Callable[[Request], float] | None = None  # seconds from its arrival until the engine has a request
    prefix_hit_fraction: float = 0.0  # of each prompt, found in a prefix cache that is not itself simulated
    read_bounds: tuple[KvBounds, ...] = ()  # decode attention reads the least that one of them lets it
    scan_share: float = 0.0  # and of every token in the context such a part of what it reads of a token
    swap_space: SwapSpace | None = None  # where the policy swaps to, if that is a tier of the scenario
    lane: Lane | None = None  # through the stages of a pipeline, where other virtual engines share them
    reorderings: Callable[[Request], Reorderings] | None = None  # of the beams of a request; None: there are none
