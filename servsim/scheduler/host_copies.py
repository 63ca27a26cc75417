"""Host memory for KV, and copies whose launches count: what FastServe and FastSwitch's workload swap with."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from servsim.scheduler.policy import Surroundings

__all__ = ["CopyParameters", "HostCopies"]


class CopyParameters(BaseModel):
    """What a scenario may say about swapping."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    swap_space_gib: float = Field(4.0, ge=0, le=1 << 20, description="host memory for swapped KV, of all devices")
    copy_bandwidth_gb_per_s: float = Field(
        25.0, gt=0, le=1e6, description="10^9 bytes/s of a copy either way; 25 is about what PCIe 4.0 x16 gives"
    )
    copy_launch_s: float = Field(5e-6, ge=0, le=1, description="host time to launch one copy")
    layers: int = Field(32, ge=1, le=10_000, description="layers, each with two tensors (K and V) to be copied")
    blocks_per_copy: float = Field(
        1.0, ge=1, le=1e9, description="blocks next to each other that one copy moves: 1 = block by block, as vLLM"
    )


class HostCopies:
    """Blocks kept in host memory. Without KV bytes (a cost model that knows none) it has no limit.

    ``t = operations * t_launch + bytes / bandwidth``, one direction after the other, not hidden behind computation.
    """

    def __init__(self, surroundings: Surroundings, parameters: CopyParameters) -> None:
        self._block_bytes = surroundings.kv_bytes_per_token * surroundings.memory.block_size
        self._bytes_per_s = parameters.copy_bandwidth_gb_per_s * 1e9
        self._launch_s = parameters.copy_launch_s * 2 * parameters.layers / parameters.blocks_per_copy
        space_bytes = parameters.swap_space_gib * 2**30
        self.total_blocks = int(space_bytes / self._block_bytes) if self._block_bytes else 1 << 60
        self.used_blocks = 0

    @property
    def free_blocks(self) -> int:
        """Blocks that hold nothing."""
        return self.total_blocks - self.used_blocks

    def copy_s(self, blocks: int) -> float:
        """How long it takes to copy so many blocks one way, in seconds."""
        return blocks * (self._launch_s + self._block_bytes / self._bytes_per_s)
