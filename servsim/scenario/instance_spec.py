"""One serving engine on its devices, as a scenario writes it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from servsim.documents import Spec, WholeNumber, refusal
from servsim.request import Request
from servsim.scenario.compression_spec import CompressionSpec
from servsim.scenario.plug_in import PlugInSpec
from servsim.scenario.scheduler_spec import SchedulerSpec
from servsim.scenario.tier_spec import Tiers

__all__ = ["CostSpec", "FixedCost", "FrontendSpec", "InstanceSpec", "MemorySpec", "RooflineCost"]


class MemorySpec(PlugInSpec):
    """Where KV lives; other keys are the allocator's own parameters."""

    kind: ClassVar[str] = "allocators"
    key: ClassVar[str] = "allocator"

    allocator: str = Field("paged", description="How KV memory is handed out.")
    block_size: WholeNumber = Field(16, ge=1, le=1 << 20, description="Tokens in a block.")
    gpu_memory_utilization: float = Field(
        0.9, gt=0, le=1, description="The share of the device's memory that weights, activations and KV may use."
    )
    num_blocks: WholeNumber | None = Field(
        None, ge=1, description="Blocks of KV an instance; by default what the memory budget leaves."
    )
    prefix_hit_fraction: float = Field(
        0.0, ge=0, le=1, description="The share of each prompt found in a prefix cache, where prompts are not known."
    )

    tiers: Tiers = Field(
        default_factory=dict, description="Memories below the device's own, by name, from near to far."
    )
    compression: CompressionSpec = Field(
        default_factory=CompressionSpec, description="How much smaller KV is stored and read, and at what cost."
    )


class RooflineCost(Spec):
    """Step times from operators on the device's roofline."""

    law: Literal["roofline"] = Field("roofline", description="Operators on the device's roofline.")
    async_scheduling: bool = Field(
        True, description="Whether the host's work for a step runs beside the device's, as in vLLM v1."
    )
    shared_prefix_attention: bool = Field(
        False, description="Whether decode attention reads KV once that several sequences have in common."
    )
    host_step_s: float = Field(0.0, ge=0, description="Seconds of host work a step.")
    host_sequence_s: float = Field(0.0, ge=0, description="Seconds of host work a step for each sequence in it.")
    gap_s: float = Field(0.0, ge=0, description="Seconds a step in which the device waits, whatever the scheduling.")
    sequence_gap_s: float = Field(0.0, ge=0, description="The same a step for each sequence in it.")
    eager_layer_s: float = Field(
        0.0, ge=0, description="Seconds to launch a layer in a step with prefill, which takes no less."
    )
    ragged_attention: float = Field(
        1.0, ge=1, le=10, description="How many times longer decode attention takes over contexts of unequal length."
    )
    mixed_attention: float = Field(
        1.0, ge=1, le=10, description="How many times longer attention takes where prefill and decodes share a call."
    )
    elementwise_launch_s: float | None = Field(
        None, ge=0, description="Seconds a norm, rotary embedding or activation costs besides its bytes."
    )
    fp8_gemm_launch_s: float | None = Field(
        None, ge=0, description="Seconds an fp8 GEMM costs besides the roofline, quantization of its input included."
    )
    capture_sizes: tuple[Annotated[WholeNumber, Field(ge=1)], ...] = Field(
        (), strict=False, description="Batch sizes of captured CUDA graphs, rising; batches are padded to them."
    )

    @model_validator(mode="after")
    def _check_capture_sizes(self) -> Self:
        if list(self.capture_sizes) != sorted(set(self.capture_sizes)):
            raise refusal("capture_sizes must rise, each given once", at=("capture_sizes",))
        return self


class FixedCost(Spec):
    """Constant step times, for comparison with queueing theory."""

    law: Literal["fixed"] = Field(description="Constant step times.")
    prefill_s: float = Field(gt=0, description="Seconds of a step that computes prompt tokens.")
    decode_s: float = Field(gt=0, description="Seconds of a step that only decodes.")


def _roofline_by_default(value: Any) -> Any:
    return {"law": "roofline", **value} if isinstance(value, dict) else value


CostSpec = Annotated[
    Annotated[RooflineCost | FixedCost, Field(discriminator="law")], BeforeValidator(_roofline_by_default)
]


class FrontendSpec(Spec):
    """What happens to a request before the engine has it: HTTP, tokenising; the way back of a token included."""

    request_s: float = Field(0.0, ge=0, le=1e6, description="Seconds a request.")
    prompt_token_s: float = Field(0.0, ge=0, le=1e3, description="Seconds for each token of the prompt.")

    @property
    def takes_time(self) -> bool:
        """Whether any request waits for it."""
        return self.request_s > 0 or self.prompt_token_s > 0

    def time_s(self, request: Request) -> float:
        """Seconds from the arrival of a request until the engine has it."""
        return self.request_s + self.prompt_token_s * request.prompt_tokens


class InstanceSpec(Spec):
    """A model's share of devices, with its scheduler, memory and cost model."""

    engine: str | None = Field(
        None, description="A preset of an engine and its version: a name in the catalogue, or a path; other keys win."
    )
    hardware: str = Field(description="The device: a name in the catalogue, or a path.")
    tensor_parallel_size: WholeNumber = Field(1, ge=1, le=4096, description="Devices that share each layer.")
    pipeline_parallel_size: WholeNumber = Field(
        1, ge=1, le=1024, description="Stages that share the layers; as many virtual engines take turns on them."
    )
    pipeline_link: str | None = Field(
        None, description="The link between stages: a name in the catalogue, or a path; by default the device's own."
    )
    scheduler: SchedulerSpec = Field(default_factory=SchedulerSpec, description="Who gets tokens next.")
    memory: MemorySpec = Field(default_factory=MemorySpec, description="Where KV lives.")
    max_model_len: WholeNumber | None = Field(
        None, ge=1, description="The longest prompt and output together, in tokens; by default what the model has."
    )
    dtype: Literal["bf16", "fp16", "fp32"] = Field("bf16", description="The type of activations and plain weights.")
    quantization: Literal["none", "fp8", "int4"] = Field("none", description="The type of the linear layers' weights.")
    kv_cache_dtype: Literal["auto", "fp8"] = Field("auto", description="The type of KV; auto is that of dtype.")
    stepping: Literal["strided", "single"] = Field(
        "strided", description="strided takes many equal steps in one event; single is the slow reference."
    )
    cost: CostSpec = Field(default_factory=RooflineCost, description="How long a step takes.")
    frontend: FrontendSpec = Field(
        default_factory=FrontendSpec, description="What happens to a request before the engine has it."
    )

    @model_validator(mode="after")
    def _check_pipeline(self) -> InstanceSpec:
        """What a network in stages goes together with."""
        if self.pipeline_parallel_size == 1:
            return self  # a link is not used then, so that numbers of stages can be compared
        at = ("pipeline_parallel_size",)
        if isinstance(self.cost, FixedCost):
            raise refusal("constant step times have no stages", remedy="use the law roofline, or one stage", at=at)
        if self.memory.tiers:
            remedy = "leave tiers out, or use tensor_parallel_size"
            raise refusal("tiers below the devices of several stages are not modelled", remedy=remedy, at=at)
        if self.memory.num_blocks is not None and self.memory.num_blocks // self.pipeline_parallel_size < 2:
            message = f"{self.memory.num_blocks} blocks for {self.pipeline_parallel_size} virtual engines"
            raise refusal(message, remedy="each needs two or more", at=("memory", "num_blocks"))
        return self
