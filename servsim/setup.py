"""What a scenario was understood to mean: everything looked up, and the memory arithmetic done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import simpy

from servsim.cost.cost_model import CostModel
from servsim.cost.decode_extra import DecodeExtra
from servsim.cost.fixed import FixedCost
from servsim.cost.host import HostWork
from servsim.cost.launching import as_launched
from servsim.cost.roofline import RooflineCost
from servsim.errors import CapacityError, ScenarioError
from servsim.hardware import Device, Tier, load_device, load_link
from servsim.memory.allocator import Allocator
from servsim.memory.budget import MemoryBudget, kv_budget
from servsim.memory.kept import KvBounds
from servsim.memory.surroundings import KvShape, MemorySurroundings
from servsim.memory.swap_space import SwapSpace
from servsim.memory.tier import locate, resolve_tiers
from servsim.model import ModelShape, load_model
from servsim.model.operators import StepOperators, step_operators
from servsim.scenario import Scenario
from servsim.scenario.instance_spec import FixedCost as FixedCostSpec

__all__ = ["Setup"]


@dataclass(frozen=True, slots=True)
class Setup:
    """What a scenario was understood to mean, before anything runs."""

    scenario: Scenario
    shape: ModelShape
    device: Device
    operators: StepOperators
    budget: MemoryBudget
    max_model_len: int
    tiers: tuple[Tier, ...] = ()

    @classmethod
    def of(cls, scenario: Scenario) -> Setup:
        """Look everything up and do the memory arithmetic.

        Raises ScenarioError or CapacityError where model, device and settings do not go together.
        """
        spec = scenario.instance
        shape = load_model(scenario.model_path)
        device = load_device(scenario.hardware_path)
        shared = ("instance", "tensor_parallel_size")
        _placed(scenario, shared, shape.check_tensor_parallel, spec.tensor_parallel_size)
        if not isinstance(spec.cost, FixedCostSpec):
            _placed(scenario, shared, device.check_tensor_parallel, spec.tensor_parallel_size)
        compression = spec.memory.compression
        kv_dtype = spec.dtype if spec.kv_cache_dtype == "auto" else spec.kv_cache_dtype
        try:
            budget = kv_budget(
                device,
                shape,
                tensor_parallel_size=spec.tensor_parallel_size,
                dtype=spec.dtype,
                quantization=spec.quantization,
                kv_dtype=kv_dtype,
                gpu_memory_utilization=spec.memory.gpu_memory_utilization,
                block_size=spec.memory.block_size,
                max_num_seqs=spec.scheduler.max_num_seqs,
                max_num_batched_tokens=spec.scheduler.max_num_batched_tokens,
                num_blocks=spec.memory.num_blocks,
                stored_share=compression.stored_share,
            )
        except CapacityError as error:
            raise CapacityError(error.message, place=scenario.place(("model",)), remedy=error.remedy) from None
        longest = spec.max_model_len or shape.max_position_embeddings
        if longest > shape.max_position_embeddings:
            raise ScenarioError(
                f"{longest} tokens, but {shape.name} has positions for {shape.max_position_embeddings}",
                place=scenario.place(("instance", "max_model_len")),
                remedy=f"at most {shape.max_position_embeddings}",
            )
        operators = step_operators(shape, spec.tensor_parallel_size, spec.dtype, spec.quantization, kv_dtype)
        tiers = resolve_tiers(spec.memory.tiers, scenario.place)
        return cls(scenario, shape, device, operators, budget, longest, tiers)

    def cost_model(self) -> CostModel:
        """How long steps take."""
        spec = self.scenario.instance.cost
        if isinstance(spec, FixedCostSpec):
            return FixedCost(spec.prefill_s, spec.decode_s)
        host = HostWork(
            spec.host_step_s,
            spec.host_sequence_s,
            asynchronous=spec.async_scheduling,
            gap_s=spec.gap_s,
            sequence_gap_s=spec.sequence_gap_s,
            eager_layer_s=spec.eager_layer_s,
            capture_sizes=spec.capture_sizes,
        )
        device = as_launched(self.device, spec.elementwise_launch_s, spec.fp8_gemm_launch_s)
        cost = RooflineCost(
            self._operators_read(),
            device,
            host,
            ragged_attention=spec.ragged_attention,
            mixed_attention=spec.mixed_attention,
        )
        return self._compressed(cost)

    def _operators_read(self) -> StepOperators:
        """The operators, where attention reads compressed KV."""
        compression, attention = self.scenario.instance.memory.compression, self.operators.attention
        read_bytes = attention.kv_bytes_per_token * compression.bytes_read
        return replace(self.operators, attention=replace(attention, kv_bytes_per_token=read_bytes))

    def _compressed(self, cost: CostModel) -> CostModel:
        """The cost model with what the compression of KV adds to decode steps."""
        spec = self.scenario.instance.memory.compression
        token_s = 0.0
        if spec.link is not None:
            place = self.scenario.place(("instance", "memory", "compression", "link"))
            token_bytes = self.shape.kv_bytes_per_token(self.kv_dtype, self.scenario.instance.tensor_parallel_size)
            bandwidth = load_link(locate("hardware", spec.link, place)).read_bandwidth_bytes_per_s
            token_s = spec.fetch_share * token_bytes / bandwidth
        if not (spec.step_s or spec.sequence_s or token_s):
            return cost
        return DecodeExtra(
            cost, step_s=spec.step_s, sequence_s=spec.sequence_s, token_s=token_s, overlapped=spec.overlapped
        )

    @property
    def kv_dtype(self) -> str:
        """The type in which KV is stored."""
        spec = self.scenario.instance
        return spec.dtype if spec.kv_cache_dtype == "auto" else spec.kv_cache_dtype

    def read_bounds(self, memory: Allocator) -> tuple[KvBounds, ...]:
        """What bounds the tokens that decode attention reads: what the allocator keeps, and sparse reads."""
        read_tokens = self.scenario.instance.memory.compression.read_tokens
        found: list[KvBounds] = [] if read_tokens is None else [KvBounds(total=read_tokens)]
        kept: KvBounds | None = getattr(memory, "bounds", None)
        return tuple(found if kept is None else [*found, kept])

    def allocator(
        self,
        env: simpy.Environment | None = None,
        tokens_per_hash: int | None = None,
        prefill_s: Callable[[int], float] = lambda tokens: 0.0,
    ) -> Allocator:
        """A fresh KV memory of one instance; raises CapacityError if not one token could ever be held.

        ``env`` is the clock of its transfers, ``tokens_per_hash`` the unit in which the workload tells contents.
        """
        instance = self.scenario.instance
        spec = instance.memory
        surroundings = MemorySurroundings(
            self.budget.num_blocks,
            spec.block_size,
            self.max_model_len,
            spec.parameters,
            max_num_seqs=instance.scheduler.max_num_seqs,
            kv=self.kv_shape,
            tokens_per_hash=tokens_per_hash,
            tiers=self.tiers,
            env=env or simpy.Environment(),
            shared_reads=not isinstance(instance.cost, FixedCostSpec) and instance.cost.shared_prefix_attention,
            prefill_s=prefill_s,
        )
        try:
            memory: Allocator = spec.plug_in(surroundings)
        except (ScenarioError, CapacityError) as error:
            place = error.place or self.scenario.place(("instance", "memory"))
            raise type(error)(error.message, place=place, remedy=error.remedy) from None
        if spec.prefix_hit_fraction and (hasattr(memory, "shares") or hasattr(memory, "uses_tiers")):
            raise ScenarioError(
                f"the allocator {spec.allocator} finds prefixes by itself",
                place=self.scenario.place(("instance", "memory", "prefix_hit_fraction")),
                remedy="leave it out, or use the allocator paged",
            )
        if surroundings.shared_reads and not getattr(memory, "shares", False):
            raise ScenarioError(
                f"in the allocator {spec.allocator} no two sequences have KV in common",
                place=self.scenario.place(("instance", "cost", "shared_prefix_attention")),
                remedy="use the allocator prefix_blocks or radix",
            )
        if not memory.fits(1):
            raise CapacityError(
                f"the allocator {spec.allocator} cannot hold a single request in {self.budget.num_blocks} blocks of "
                f"{spec.block_size} tokens (max_model_len is {self.max_model_len})",
                place=self.scenario.place(("instance", "memory")),
                remedy="raise num_blocks or gpu_memory_utilization, or lower instance.max_model_len",
            )
        return memory

    def swap_space(self, env: simpy.Environment) -> SwapSpace | None:
        """The first tier as one instance's policy swaps to it; None without tiers, or if they are the allocator's.

        Raises CapacityError if it does not hold a block.
        """
        instance = self.scenario.instance
        if not self.tiers or getattr(instance.memory.plug_in, "uses_tiers", False):
            return None
        parameters = instance.scheduler.parameters
        try:
            return SwapSpace(
                env,
                self.tiers[0],
                self.kv_shape,
                instance.memory.block_size,
                granularity=getattr(parameters, "copy_granularity", "blocks"),
                asynchronous=getattr(parameters, "swap_copies", "blocking") == "async",
            )
        except CapacityError as error:
            place = self.scenario.place(("instance", "memory", "tiers"))
            raise CapacityError(error.message, place=place, remedy=error.remedy) from None

    @property
    def kv_shape(self) -> KvShape:
        """How a token's KV lies in the memory of one device."""
        size_bytes, layers = self.budget.kv_bytes_per_token, self.shape.num_hidden_layers
        return KvShape(
            num_layers=layers,
            row_bytes=size_bytes // (2 * layers),
            bytes_per_token=size_bytes,
            sliding_window=self.shape.sliding_window,
            devices=self.scenario.instance.tensor_parallel_size,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the results must know about the model and the device."""
        spec = self.scenario.instance
        if isinstance(spec.cost, FixedCostSpec):
            return ()
        notes = [f"{self.shape.name}, not modelled: {what}" for what in self.shape.not_modelled]
        if not self.device.calibrated:
            notes.append(
                f"{self.device.name} is uncalibrated: no kernel was measured on it, and default efficiencies stand in"
            )
        return tuple(notes)


def _placed(scenario: Scenario, path: tuple[str, ...], check: Any, *arguments: Any) -> None:
    """Run a check of another room and say where in the scenario its complaint belongs."""
    try:
        check(*arguments)
    except ScenarioError as error:
        raise ScenarioError(error.message, place=scenario.place(path), remedy=error.remedy) from None
