"""Swap or recompute: what either would cost a preempted sequence."""

from __future__ import annotations

__all__ = ["copy_operations", "prefers_swap", "swap_cost_s"]


def copy_operations(runs: int, layers: int) -> int:
    """Copy operations that move ``runs`` runs of adjacent blocks one way: keys and values of each layer apart.

    Block by block, as vLLM v0 copies, every block is a run of its own; FastSwitch's block groups make fewer.
    """
    return 2 * layers * runs


def swap_cost_s(
    resident_tokens: int,
    kv_bytes_per_token: float,
    bandwidth_bytes_per_s: float,
    *,
    operations: int = 0,
    launch_s: float = 0.0,
    hidden: float = 0.0,
) -> float:
    """Seconds to move a sequence's KV out and in again over an idle link of that bandwidth each way.

    ``operations`` counts the copy operations of both directions together, each of which takes ``launch_s``
    to launch; ``hidden`` is the share (0 to 1) of the moving that computation covers. A link with a
    latency or two bandwidths gives its own answer: ``Route.round_trip_s``.
    """
    moving_s = 2 * resident_tokens * kv_bytes_per_token / bandwidth_bytes_per_s
    return moving_s * (1 - hidden) + operations * launch_s


def prefers_swap(swap_s: float, recompute_s: float, *, needed_blocks: int, free_blocks: int) -> bool:
    """Whether ``auto`` swaps: it is the cheaper of the two, and the lower tier has room for the blocks.

    ``recompute_s`` is the prefill of the prompt and what was generated, less a prefix hit. A tie recomputes,
    which needs no memory.
    """
    return swap_s < recompute_s and needed_blocks <= free_blocks
