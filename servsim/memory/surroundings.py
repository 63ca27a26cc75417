"""What a KV allocator is built from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import simpy

    from servsim.hardware.tier import Tier

__all__ = ["KvShape", "MemorySurroundings"]


@dataclass(frozen=True, slots=True)
class KvShape:
    """How one token's KV lies in the memory of one device."""

    num_layers: int = 1
    row_bytes: int = 2048  # of K or of V, one token, one layer: kv_heads x head_dim x bytes, on one device
    bytes_per_token: int = 4096  # all layers, K and V, on one device
    sliding_window: int | None = None  # tokens, where every layer has one
    devices: int = 1  # that each hold a share of every token


def _unknown_s(tokens: int) -> float:
    return 0.0


@dataclass(frozen=True, slots=True)
class MemorySurroundings:
    """All that an allocator can know of its instance.

    ``env`` and ``tiers`` are for allocators that copy KV between memories: the clock on which transfers take their
    time, and the memories below the device from near to far.
    """

    num_blocks: int
    block_size: int
    max_model_len: int
    parameters: Any = None  # the allocator's own Parameters, checked, or None for its defaults
    max_num_seqs: int = 256
    kv: KvShape = KvShape()
    tokens_per_hash: int | None = None  # tokens that one of a sequence's hash_ids stands for
    tiers: tuple[Tier, ...] = ()
    env: simpy.Environment | None = None
    shared_reads: bool = False  # whether to count the tokens that decoders have in common
    prefill_s: Callable[[int], float] = _unknown_s  # a step that prefills so many tokens of one sequence alone
