"""A small serving problem, as data: what both the simulator and the oracle are asked to solve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


class Asked(NamedTuple):
    """One request; a case lists them by arrival, and its ids count them."""

    arrival_s: float
    prompt: int
    output: int
    declared: int


@dataclass(frozen=True)
class Case:
    requests: tuple[Asked, ...]
    cost: Any  # a CostModel
    policy: str = "fcfs"
    sigma: float | None = None  # noise of the predictor; None is the oracle predictor
    reserve: float = 0.05  # of past_future, like the next three
    window: int = 200
    default_output: int = 1024
    wait_steps: int = 6
    max_num_seqs: int = 8
    max_num_batched_tokens: int = 2048
    allocator: str = "paged"
    num_blocks: int = 1000
    block_size: int = 16
    watermark: float = 0.0
    reserve_full_isl: bool = True
    max_model_len: int = 100_000
    instances: int = 1
    router: str = "round_robin"
    concurrency: int | None = None  # a closed loop, and arrivals mean nothing
    think_s: float = 0.0
    seed: int = 0
