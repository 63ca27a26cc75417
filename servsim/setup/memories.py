"""The KV memory of one instance, and where its policy swaps to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import simpy

from servsim.errors import CapacityError, ScenarioError
from servsim.memory.allocator import Allocator
from servsim.memory.surroundings import MemorySurroundings
from servsim.memory.swap_space import SwapSpace
from servsim.scenario.instance_spec import FixedCost
from servsim.scenario.scheduler_spec import batching_of
from servsim.setup.placing import placed

if TYPE_CHECKING:
    from servsim.setup.setup import Setup

__all__ = ["allocator", "swap_space"]


def allocator(
    setup: Setup,
    env: simpy.Environment,
    tokens_per_hash: int | None,
    prefill_s: Callable[[int], float],
) -> Allocator:
    """A fresh KV memory of one instance; raises CapacityError if not one token could ever be held.

    ``env`` is the clock of its transfers, ``tokens_per_hash`` the unit in which the workload tells contents.
    """
    instance = setup.scenario.instance
    spec = instance.memory
    surroundings = MemorySurroundings(
        setup.budget.num_blocks // instance.pipeline_parallel_size,
        spec.block_size,
        setup.max_model_len,
        spec.parameters,
        max_num_seqs=instance.scheduler.max_num_seqs,
        kv=setup.kv_shape,
        tokens_per_hash=tokens_per_hash,
        tiers=setup.tiers,
        env=env,
        shared_reads=not isinstance(instance.cost, FixedCost) and instance.cost.shared_prefix_attention,
        prefill_s=prefill_s,
    )
    with placed(setup.scenario, "instance", "memory"):
        memory: Allocator = spec.plug_in(surroundings)
    if spec.prefix_hit_fraction and (hasattr(memory, "shares") or hasattr(memory, "uses_tiers")):
        raise ScenarioError(
            f"the allocator {spec.allocator} finds prefixes by itself",
            place=setup.scenario.place(("instance", "memory", "prefix_hit_fraction")),
            remedy="leave it out, or use the allocator paged",
        )
    if surroundings.shared_reads and not getattr(memory, "shares", False):
        raise ScenarioError(
            f"in the allocator {spec.allocator} no two sequences have KV in common",
            place=setup.scenario.place(("instance", "cost", "shared_prefix_attention")),
            remedy="use the allocator prefix_blocks or radix",
        )
    if not memory.fits(1):
        raise CapacityError(
            f"the allocator {spec.allocator} cannot hold a single request in {setup.budget.num_blocks} blocks of "
            f"{spec.block_size} tokens (max_model_len is {setup.max_model_len})",
            place=setup.scenario.place(("instance", "memory")),
            remedy="raise num_blocks or gpu_memory_utilization, or lower instance.max_model_len",
        )
    return memory


def swap_space(setup: Setup, env: simpy.Environment) -> SwapSpace | None:
    """The first tier as one instance's policy swaps to it; None without tiers, or if they are the allocator's.

    Raises CapacityError if it does not hold a block.
    """
    instance = setup.scenario.instance
    if not setup.tiers or getattr(instance.memory.plug_in, "uses_tiers", False):
        return None
    parameters = batching_of(instance.scheduler).spec.parameters
    with placed(setup.scenario, "instance", "memory", "tiers"):
        return SwapSpace(
            env,
            setup.tiers[0],
            setup.kv_shape,
            instance.memory.block_size,
            granularity=getattr(parameters, "copy_granularity", "blocks"),
            asynchronous=getattr(parameters, "swap_copies", "blocking") == "async",
        )
