"""What is seen of an instance from outside."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Observation"]


class Observation(NamedTuple):
    """What a router or a sampler may know of an instance at one time."""

    waiting: int
    running: int
    kv_blocks_used: int
    kv_blocks_total: int
