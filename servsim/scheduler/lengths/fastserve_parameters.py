"""What a scenario may say about the scheduler ``fastserve``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from servsim.scheduler.host_copies import CopyParameters

__all__ = ["FastServeParameters"]


class FastServeParameters(CopyParameters):
    """What a scenario may say about FastServe."""

    first_quantum: Literal["constant", "min_iteration"] = Field(
        "constant", description="quantum of the first level: quantum_s (the code), or a lone decode step (the paper)"
    )
    quantum_s: float = Field(0.010, gt=0, le=1e6, description="quantum of the first level; each next one has twice it")
    starving_s: float = Field(3.0, gt=0, description="unstepped for so long, a job is promoted to the first level")
    promotion_iterations: int = Field(1000, ge=1, description="iterations from one look for starving jobs to the next")
    proactive: bool = Field(True, description="keep max_num_seqs blocks free by swapping before they are needed")
    fresh_valve: float = Field(
        0.1, ge=0, le=1, description="no new job is started with less than this share of the swap space free"
    )
    copy_launch_s: float = Field(0.0, ge=0, le=1, description="host time to launch one copy")
