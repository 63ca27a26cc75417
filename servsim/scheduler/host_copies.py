"""Where policies swap KV to: a tier of the scenario, or host memory as their parameters describe it."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from servsim.errors import ScenarioError
from servsim.memory.swap_cost import copy_operations, prefers_swap
from servsim.memory.swap_space import SwapGranularity
from servsim.request import Sequence
from servsim.scheduler.policy import Surroundings

__all__ = ["CopyParameters", "HostCopies"]


class CopyParameters(BaseModel):
    """What a scenario may say about swapping."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    told_by_tier: ClassVar[tuple[str, ...]] = (
        "swap_space_gib", "copy_bandwidth_gb_per_s", "copy_launch_s", "layers", "blocks_per_copy",
    )  # fmt: skip
    """Parameters that describe host memory where the scenario has no tier to swap to."""

    swap_copies: Literal["blocking", "async"] = Field(
        "blocking", description="whether a step waits for its copies, or (with a tier) others run meanwhile"
    )
    copy_granularity: SwapGranularity = Field(
        "blocks", description="blocks: each is copied by itself, as vLLM; groups: a sequence's as one run (FastSwitch)"
    )
    swap_space_gib: float = Field(
        4.0,
        ge=0,
        le=1 << 20,
        description="host memory for swapped KV, of all devices of a stage; a tier tells its own, as below",
    )
    copy_bandwidth_gb_per_s: float = Field(
        25.0, gt=0, le=1e6, description="10^9 bytes/s of a copy either way; 25 is about what PCIe 4.0 x16 gives"
    )
    copy_launch_s: float = Field(5e-6, ge=0, le=1, description="host time to launch one copy")
    layers: int = Field(32, ge=1, le=10_000, description="layers, each with two tensors (K and V) to be copied")
    blocks_per_copy: float = Field(
        1.0, ge=1, le=1e9, description="blocks next to each other that one copy moves, on average"
    )

    @property
    def swapping(self) -> bool:
        """Whether anything is ever swapped."""
        return True


class HostCopies:
    """Blocks kept outside the device. Without KV bytes (a cost model that knows none) host memory has no limit.

    With a tier (:class:`SwapSpace`) the engine makes the copies and keeps the books; a plan says whose KV moves.
    Without one ``t = operations * t_launch + bytes / bandwidth``, one direction after the other, not hidden behind
    computation.
    Either way a sequence that comes back leaves its place when its copy has ended, so that one plan does not give
    it away. In a pipeline each virtual engine has an equal share of host memory, as in vLLM v0 (0.6), ``Scheduler``.
    """

    def __init__(self, surroundings: Surroundings, parameters: CopyParameters) -> None:
        self._space = surroundings.swap_space
        if parameters.swap_copies == "async" and self._space is None:
            raise ScenarioError(
                "swap_copies: async copies to a tier, and there is none to swap to",
                remedy="add memory.tiers with an allocator that does not use them itself, or leave swap_copies out",
            )
        self._prefill_s = surroundings.prefill_s
        self._block_size = surroundings.memory.block_size
        self._block_bytes = surroundings.kv_bytes_per_token * self._block_size
        self._bytes_per_s = parameters.copy_bandwidth_gb_per_s * 1e9
        self._grouped = parameters.copy_granularity == "groups"
        self._launch_s = parameters.copy_launch_s * copy_operations(1, parameters.layers)
        self._blocks_per_copy = parameters.blocks_per_copy
        space_bytes = parameters.swap_space_gib * 2**30
        self._total_blocks = int(space_bytes / self._block_bytes) if self._block_bytes else 1 << 60
        self._total_blocks //= surroundings.engines
        self._used_blocks = 0

    @property
    def asynchronous(self) -> bool:
        """Whether others run while copies are under way."""
        return self._space is not None and self._space.asynchronous

    @property
    def total_blocks(self) -> int:
        """Blocks that it holds."""
        return self._total_blocks if self._space is None else self._space.total_blocks

    @property
    def told_by(self) -> str | None:
        """The key of the tier's size in a scenario; None without a tier: it is ``swap_space_gib`` then."""
        return None if self._space is None else f"instance.memory.tiers.{self._space.name}.capacity"

    @property
    def used_blocks(self) -> int:
        """Blocks that hold something, or that something is on its way to."""
        return self._used_blocks if self._space is None else self._space.used_blocks

    @property
    def free_blocks(self) -> int:
        """Blocks that hold nothing."""
        return self._total_blocks - self._used_blocks if self._space is None else self._space.free_blocks

    def takes_blocks(self, sequence: Sequence, blocks: int) -> int:
        """How many more blocks it would take to swap a sequence of so many out: none if it is still on its way in."""
        return 0 if self._space is not None and self._space.keeps(sequence) else blocks

    def moved(self, taken_blocks: int) -> None:
        """So many blocks are taken by a plan (below 0: given back)."""
        if self._space is None:
            self._used_blocks += taken_blocks

    def copy_s(self, blocks: int) -> float:
        """How long a step waits for one sequence's so many blocks to be copied one way, in seconds; not with a tier."""
        return 0.0 if self._space is not None else self._idle_copy_s(blocks)

    def is_cheaper(self, sequence: Sequence, kv_tokens: int, free_blocks: int) -> bool:
        """Whether to swap a sequence that stores so much takes less time than to compute it again, and has room.

        Out and in again over idle links, against its prefill alone; a decoder's emits the token that would come next.
        What a prefix cache would give back is not known, and not counted.
        """
        blocks = -(-kv_tokens // self._block_size)
        swap_s = 2 * self._idle_copy_s(blocks) if self._space is None else self._space.round_trip_s(blocks)
        recompute_s = self._prefill_s(kv_tokens + sequence.decoding) if kv_tokens else 0.0
        needed = self.takes_blocks(sequence, blocks)
        return needed < blocks or prefers_swap(swap_s, recompute_s, needed_blocks=needed, free_blocks=free_blocks)

    def _idle_copy_s(self, blocks: int) -> float:
        runs = min(1, blocks) if self._grouped else blocks / self._blocks_per_copy
        return runs * self._launch_s + blocks * self._block_bytes / self._bytes_per_s
