"""How much of a device's memory is left for KV, and how that comes about."""

from __future__ import annotations

from dataclasses import dataclass

from servsim.errors import CapacityError
from servsim.hardware import Device
from servsim.model import DTYPE_BYTES
from servsim.model.stages import Stage
from servsim.model.weights import Quantization
from servsim.units import format_bytes

__all__ = ["RUNTIME_BYTES", "MemoryBudget", "kv_budget"]

RUNTIME_BYTES = 1_000_000_000
"""What an engine takes besides weights, activations and KV: CUDA graphs, workspaces, allocator slack.

What is neither weights nor KV came to 1.24 GB for vLLM 0.19 with Llama-3.1-8B on an RTX 4090 and 1.25-1.57 GB for
four models under vLLM 0.15 on H100 (Llama-2-7B: 0.45); about 0.2-0.3 GB of it is activations. A
round number serves all of them: block counts come out within 2 %.
"""


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """One device's memory, in bytes, as vLLM divides it: KV gets what the rest leaves of the share it may use."""

    device_bytes: int
    gpu_memory_utilization: float
    weight_bytes: int
    activation_bytes: int
    runtime_bytes: int
    kv_bytes_per_token: int
    block_size: int
    num_blocks: int
    given: bool  # num_blocks was given by the user and not derived

    @property
    def usable_bytes(self) -> int:
        """The share of the device's memory that the engine may use."""
        return int(self.device_bytes * self.gpu_memory_utilization)

    @property
    def kv_bytes(self) -> int:
        """What is left for KV."""
        return self.usable_bytes - self.weight_bytes - self.activation_bytes - self.runtime_bytes

    @property
    def block_bytes(self) -> int:
        """One block of KV over all layers, on one device."""
        return self.block_size * self.kv_bytes_per_token


def kv_budget(
    device: Device,
    stage: Stage,
    *,
    tensor_parallel_size: int,
    dtype: str,
    quantization: Quantization,
    kv_dtype: str,
    gpu_memory_utilization: float,
    block_size: int,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    num_blocks: int | None = None,
    stored_share: float = 1.0,
) -> MemoryBudget:
    """The budget of each of the ``tensor_parallel_size`` devices that hold a stage of a network, mostly its only one.

    ``num_blocks`` overrides what would be derived. ``stored_share`` of the KV's bytes stay on the device where KV is
    compressed.

    Raises CapacityError with the numbers when the weights do not fit, or nothing is left for KV.
    """
    shape, item = stage.shape, DTYPE_BYTES[dtype]
    widest = shape.intermediate_size if shape.num_dense_layers else 0
    if shape.moe is not None:
        routed = shape.moe.num_experts_per_tok * shape.moe.moe_intermediate_size
        widest = max(widest, routed + shape.moe.shared_intermediate_size)
    per_token = (2 * shape.hidden_size + 3 * widest / tensor_parallel_size) * item
    budget = MemoryBudget(
        device_bytes=device.memory_bytes,
        gpu_memory_utilization=gpu_memory_utilization,
        weight_bytes=stage.weight_bytes(dtype, quantization, tensor_parallel_size),
        activation_bytes=int(max_num_batched_tokens * per_token) + max_num_seqs * shape.vocab_size * 4 * stage.last,
        runtime_bytes=RUNTIME_BYTES,
        kv_bytes_per_token=max(1, int(shape.kv_bytes_per_token(kv_dtype, tensor_parallel_size) * stored_share)),
        block_size=block_size,
        num_blocks=num_blocks or 0,
        given=num_blocks is not None,
    )
    _check_fit(budget, device, stage, tensor_parallel_size)
    if num_blocks is not None:
        return budget
    derived = budget.kv_bytes // budget.block_bytes
    if derived < 2:
        raise CapacityError(
            f"{shape.name} leaves {format_bytes(max(0, budget.kv_bytes))} for KV on {device.name}, "
            f"less than two blocks of {format_bytes(budget.block_bytes)}",
            remedy="use more or larger devices, a lower max_num_batched_tokens, or a quantization",
        )
    return MemoryBudget(
        **{name: getattr(budget, name) for name in MemoryBudget.__slots__ if name != "num_blocks"}, num_blocks=derived
    )


def _check_fit(budget: MemoryBudget, device: Device, stage: Stage, tensor_parallel_size: int) -> None:
    """With ``num_blocks`` given the weights alone must fit; the user vouches for the rest."""
    left = device.memory_bytes - budget.weight_bytes if budget.given else budget.kv_bytes
    if left > 0:
        return
    needed = budget.weight_bytes + (0 if budget.given else budget.activation_bytes + budget.runtime_bytes)
    whole = stage.first and stage.last
    what = stage.shape.name if whole else f"a stage of {stage.shape.name} ({stage.shape.num_hidden_layers} layers)"
    raise CapacityError(
        f"{what} does not fit {device.name} with tensor_parallel_size {tensor_parallel_size}: "
        f"weights {format_bytes(budget.weight_bytes)}, {format_bytes(needed)} in all, of "
        f"{format_bytes(budget.usable_bytes)} "
        f"({budget.gpu_memory_utilization:g} of {format_bytes(device.memory_bytes)})",
        remedy="raise tensor_parallel_size or pipeline_parallel_size, quantize, or use a larger device",
    )
