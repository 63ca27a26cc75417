"""First come, first served."""

from __future__ import annotations

from servsim.scheduler.batching import VllmV1Batching

__all__ = ["Fcfs"]


class Fcfs(VllmV1Batching):
    """First come, first served on vLLM v1's batching: its default mode, victim at the tail of the running list."""
