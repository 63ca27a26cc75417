"""How long the steps of a scenario's instances take: one cost model for each stage, and all of them together."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from servsim.cost.cost_model import CostModel
from servsim.cost.decode_extra import DecodeExtra
from servsim.cost.fixed import FixedCost
from servsim.cost.host import HostWork
from servsim.cost.launching import as_launched
from servsim.cost.pipelined import PipelinedCost
from servsim.cost.roofline import RooflineCost
from servsim.cost.sends import StageSends
from servsim.hardware import load_link
from servsim.memory.tier import locate
from servsim.model import DTYPE_BYTES
from servsim.model.operators import StepOperators
from servsim.model.stages import Stage
from servsim.scenario.instance_spec import FixedCost as FixedCostSpec
from servsim.scenario.instance_spec import RooflineCost as RooflineCostSpec
from servsim.setup.placing import placed

if TYPE_CHECKING:
    from servsim.setup.setup import Setup

__all__ = ["cost_model"]


def cost_model(setup: Setup) -> CostModel:
    """How long steps take; with several stages, a :class:`PipelinedCost`."""
    spec = setup.scenario.instance.cost
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
    if len(setup.stages) == 1:
        return _stage_cost(setup, setup.stages[0], spec, host)
    launches = HostWork(eager_layer_s=spec.eager_layer_s, capture_sizes=spec.capture_sizes)
    stages = [_stage_cost(setup, stage, spec, launches) for stage in setup.stages]
    return PipelinedCost(stages, _sends(setup).time_s, host)


def _stage_cost(setup: Setup, stage: Stage, spec: RooflineCostSpec, host: HostWork) -> CostModel:
    """How long steps take on the devices of one stage, what the compression of KV adds included."""
    cost = RooflineCost(
        _operators_read(setup, stage),
        as_launched(setup.device, spec.elementwise_launch_s, spec.fp8_gemm_launch_s),
        host,
        ragged_attention=spec.ragged_attention,
        mixed_attention=spec.mixed_attention,
    )
    return _compressed(setup, stage, cost)


def _operators_read(setup: Setup, stage: Stage) -> StepOperators:
    """The operators of a stage, where attention reads compressed KV."""
    operators, compression = setup.operators_of(stage), setup.scenario.instance.memory.compression
    read_bytes = operators.attention.kv_bytes_per_token * compression.bytes_read
    return replace(operators, attention=replace(operators.attention, kv_bytes_per_token=read_bytes))


def _compressed(setup: Setup, stage: Stage, cost: CostModel) -> CostModel:
    """The cost model with what the compression of KV adds to decode steps: to each stage by its layers."""
    instance = setup.scenario.instance
    spec = instance.memory.compression
    share = stage.shape.num_hidden_layers / setup.shape.num_hidden_layers
    token_s = 0.0
    if spec.link is not None:
        place = setup.scenario.place(("instance", "memory", "compression", "link"))
        token_bytes = stage.shape.kv_bytes_per_token(setup.kv_dtype, instance.tensor_parallel_size)
        bandwidth = load_link(locate("links", spec.link, place), place).read_bandwidth_bytes_per_s
        token_s = spec.fetch_share * token_bytes / bandwidth
    if not (spec.step_s or spec.sequence_s or token_s):
        return cost
    return DecodeExtra(
        cost,
        step_s=share * spec.step_s,
        sequence_s=share * spec.sequence_s,
        token_s=token_s,
        overlapped=spec.overlapped,
    )


def _sends(setup: Setup) -> StageSends:
    """What the stages send each other."""
    spec = setup.scenario.instance
    place = setup.scenario.place(("instance", "pipeline_link"))
    link = None if spec.pipeline_link is None else load_link(locate("links", spec.pipeline_link, place), place)
    hidden_bytes = setup.shape.hidden_size * DTYPE_BYTES[spec.dtype]
    with placed(setup.scenario, "instance", "pipeline_link"):
        return StageSends(setup.device, link, hidden_bytes=hidden_bytes, group=spec.tensor_parallel_size)
