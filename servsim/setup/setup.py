"""What a scenario was understood to mean: everything looked up, and the memory arithmetic done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import simpy

from servsim.cost.cost_model import CostModel
from servsim.errors import ScenarioError
from servsim.hardware import Device, Tier, load_device
from servsim.memory.allocator import Allocator
from servsim.memory.budget import MemoryBudget, kv_budget
from servsim.memory.kept import KvBounds
from servsim.memory.surroundings import KvShape
from servsim.memory.swap_space import SwapSpace
from servsim.memory.tier import resolve_tiers
from servsim.model import ModelShape, load_model
from servsim.model.operators import StepOperators
from servsim.model.stages import Stage, pipeline_stages
from servsim.scenario import Scenario
from servsim.scenario.instance_spec import FixedCost
from servsim.setup.costs import cost_model
from servsim.setup.memories import allocator, swap_space
from servsim.setup.placing import placed

__all__ = ["Setup"]


@dataclass(frozen=True, slots=True)
class Setup:
    """What a scenario was understood to mean, before anything runs."""

    scenario: Scenario
    shape: ModelShape
    device: Device
    stages: tuple[Stage, ...]
    fullest: Stage  # with room for the fewest blocks: no other can use more
    budget: MemoryBudget  # of each of its devices
    max_model_len: int
    tiers: tuple[Tier, ...] = ()

    @classmethod
    def of(cls, scenario: Scenario) -> Setup:
        """Look everything up and do the memory arithmetic.

        Raises ScenarioError or CapacityError where model, device and settings do not go together.
        """
        spec = scenario.instance
        shape = load_model(scenario.model_path)
        device = load_device(scenario.hardware_path, scenario.place(("instance", "hardware")))
        with placed(scenario, "instance", "tensor_parallel_size"):
            shape.check_tensor_parallel(spec.tensor_parallel_size)
            if not isinstance(spec.cost, FixedCost):
                device.check_tensor_parallel(spec.tensor_parallel_size)
        compression = spec.memory.compression
        kv_dtype = spec.dtype if spec.kv_cache_dtype == "auto" else spec.kv_cache_dtype
        with placed(scenario, "instance", "pipeline_parallel_size"):
            stages = pipeline_stages(shape, spec.pipeline_parallel_size)
        with placed(scenario, "model"):
            budgets = [
                kv_budget(
                    device,
                    stage,
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
                for stage in stages
            ]
        longest = spec.max_model_len or shape.max_position_embeddings
        if longest > shape.max_position_embeddings:
            raise ScenarioError(
                f"{longest} tokens, but {shape.name} has positions for {shape.max_position_embeddings}",
                place=scenario.place(("instance", "max_model_len")),
                remedy=f"at most {shape.max_position_embeddings}",
            )
        tiers = resolve_tiers(spec.memory.tiers, scenario.place)
        fullest = min(range(len(stages)), key=lambda number: (budgets[number].num_blocks, budgets[number].kv_bytes))
        return cls(scenario, shape, device, stages, stages[fullest], budgets[fullest], longest, tiers)

    @property
    def operators(self) -> StepOperators:
        """All operators of a step, whatever stage does them."""
        return self.operators_of(Stage(self.shape))

    def operators_of(self, stage: Stage) -> StepOperators:
        """What one device of a stage does in a step."""
        spec = self.scenario.instance
        return stage.operators(spec.tensor_parallel_size, spec.dtype, spec.quantization, self.kv_dtype)

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

    def cost_model(self) -> CostModel:
        """How long steps take."""
        return cost_model(self)

    def allocator(
        self,
        env: simpy.Environment | None = None,
        tokens_per_hash: int | None = None,
        prefill_s: Callable[[int], float] = lambda tokens: 0.0,
    ) -> Allocator:
        """A fresh KV memory of one instance; raises CapacityError if not one token could ever be held.

        ``env`` is the clock of its transfers, ``tokens_per_hash`` the unit in which the workload tells contents.
        """
        return allocator(self, env or simpy.Environment(), tokens_per_hash, prefill_s)

    def swap_space(self, env: simpy.Environment) -> SwapSpace | None:
        """The first tier as one instance's policy swaps to it; None without tiers, or if they are the allocator's.

        Raises CapacityError if it does not hold a block.
        """
        return swap_space(self, env)

    @property
    def kv_shape(self) -> KvShape:
        """How a token's KV lies in the memory of one device."""
        size_bytes, layers = self.budget.kv_bytes_per_token, self.fullest.shape.num_hidden_layers
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
        if isinstance(spec.cost, FixedCost):
            return ()
        notes = [f"{self.shape.name}, not modelled: {what}" for what in self.shape.not_modelled]
        if not self.device.calibrated:
            notes.append(
                f"{self.device.name} is uncalibrated: no kernel was measured on it, and default efficiencies stand in"
            )
        return tuple(notes)
