"""A scenario in words and figures, section by section, for ``servsim check``."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import numpy as np

from servsim.cost.pipelined import PipelinedCost
from servsim.errors import ServsimError
from servsim.hardware import Device, Tier
from servsim.memory.paged import PagedAllocator
from servsim.model import ModelShape
from servsim.report.tables import format_figure
from servsim.scenario import Scenario, SloBounds
from servsim.scenario.instance_spec import FixedCost
from servsim.scenario.workload_spec import TraceWorkload
from servsim.setup import Setup
from servsim.simulation import Simulation
from servsim.streams import Streams
from servsim.sweep import load_knob
from servsim.units import format_bytes, format_si
from servsim.workload import RequestBlock, open_stream

__all__ = ["Section", "sections"]

Row = tuple[str, ...]  # what, how much, how come


@dataclass(frozen=True, slots=True)
class Section:
    """A part of what was understood, as rows of a table."""

    title: str
    rows: list[Row]


def sections(scenario: Scenario) -> list[Section]:
    """Everything; raises ServsimError where the scenario makes no sense or a trace's row is wrong."""
    setup = Setup.of(scenario)
    Simulation(scenario, setup)  # the policy, too, may find that it cannot work so
    return [
        Section(f"scenario {scenario.name}", _scenario(scenario)),
        Section(f"model {setup.shape.name}", _model(setup.shape, scenario)),
        Section(f"device {setup.device.name}", _device(setup.device, scenario)),
        Section("memory of one device", _memory(setup)),
        Section("step times", _steps(setup)),
        Section("workload", _workload(scenario)),
        Section("SLO", _slo(scenario)),
        *([Section("not modelled", [(note,) for note in setup.notes])] if setup.notes else []),
    ]


def _scenario(scenario: Scenario) -> list[Row]:
    scheduler, memory = scenario.instance.scheduler, scenario.instance.memory
    parameters = scheduler.parameters
    policy = scheduler.policy + (f" ({parameters})" if parameters is not None else "")
    rows: list[Row] = [
        ("seed", str(scenario.seed)),
        ("policy", policy),
        ("max_num_seqs", f"{scheduler.max_num_seqs:,}"),
        ("max_num_batched_tokens", f"{scheduler.max_num_batched_tokens:,}"),
        ("allocator", memory.allocator + (f" ({memory.parameters})" if memory.parameters is not None else "")),
        ("stepping", scenario.instance.stepping),
    ]
    if scheduler.predictor is not None:
        given = scheduler.predictor.parameters
        rows.insert(2, ("predictor", scheduler.predictor.name + (f" ({given})" if given is not None else "")))
    if scenario.instance.engine is not None:
        rows.insert(1, ("engine", scenario.instance.engine, "a preset; what the scenario says itself goes before it"))
    if scenario.instances > 1:
        rows.insert(1, ("instances", f"{scenario.instances:,} behind the router {scenario.router.policy}"))
    return rows


def _model(shape: ModelShape, scenario: Scenario) -> list[Row]:
    spec = scenario.instance
    quantized = "" if spec.quantization == "none" else f", linear layers in {spec.quantization}"
    rows: list[Row] = [("parameters", f"{shape.num_parameters / 1e9:.2f} billion")]
    if shape.moe is not None:
        rows.append(("active a token", f"{shape.num_active_parameters / 1e9:.2f} billion"))
    rows += [
        ("layers", f"{shape.num_hidden_layers}, hidden size {shape.hidden_size:,}"),
        ("attention", _attention(shape)),
        ("weights", f"{spec.dtype}{quantized}"),
        ("positions", f"{shape.max_position_embeddings:,} tokens"),
        ("file", str(scenario.model_path)),
    ]
    return rows


def _attention(shape: ModelShape) -> str:
    if shape.mla is not None:
        return f"{shape.num_attention_heads} heads, latent KV of {shape.mla.kv_lora_rank + shape.mla.qk_rope_head_dim}"
    return f"{shape.num_attention_heads} heads of {shape.head_dim}, {shape.num_key_value_heads} of keys and values"


def _device(device: Device, scenario: Scenario) -> list[Row]:
    peaks = device.peak_flops_per_s.model_dump(exclude_none=True)
    rows: list[Row] = [
        ("memory", format_bytes(device.memory_bytes), "as its driver reports it"),
        ("memory bandwidth", format_si(device.memory_bandwidth_bytes_per_s, "B/s")),
        ("peaks", ", ".join(f"{dtype} {format_si(flops, 'FLOP/s')}" for dtype, flops in peaks.items())),
        ("tensor_parallel_size", str(scenario.instance.tensor_parallel_size)),
    ]
    stages, between = scenario.instance.pipeline_parallel_size, scenario.instance.pipeline_link
    if stages > 1:
        rows.append(("pipeline_parallel_size", str(stages), "as many virtual engines take turns on the stages"))
        rows.append(("pipeline_link", between or "the interconnect"))
    elif between is not None:
        rows.append(("pipeline_link", between, "not used: there is one stage"))
    if device.interconnect is not None:
        link = format_si(device.interconnect.bandwidth_bytes_per_s, "B/s")
        rows.append(("interconnect", f"{device.interconnect.name}, {link} a direction"))
    kernels = "measured on it" if device.calibrated else "uncalibrated: default efficiencies stand in"
    return [*rows, ("kernels", kernels), ("file", str(scenario.hardware_path))]


def _memory(setup: Setup) -> list[Row]:
    budget, scheduler = setup.budget, setup.scenario.instance.scheduler
    usable = f"{budget.gpu_memory_utilization:g} (gpu_memory_utilization) of {format_bytes(budget.device_bytes)}"
    activations = (
        f"a step of {scheduler.max_num_batched_tokens:,} tokens, logits of {scheduler.max_num_seqs:,} sequences"
    )
    rows: list[Row] = []
    if len(setup.stages) > 1:
        layers = ", ".join(str(stage.shape.num_hidden_layers) for stage in setup.stages)
        rows.append(("stages", f"{layers} layers", "the devices of the fullest stage follow"))
    rows += [
        ("usable", format_bytes(budget.usable_bytes), usable),
        ("- weights", format_bytes(budget.weight_bytes)),
        ("- activations", format_bytes(budget.activation_bytes), activations),
        ("- runtime", format_bytes(budget.runtime_bytes), "CUDA graphs, workspaces: a constant"),
        ("= left for KV", format_bytes(max(0, budget.kv_bytes))),
        ("KV a token", format_bytes(budget.kv_bytes_per_token), f"{budget.kv_bytes_per_token:,} bytes, all layers"),
        ("a block", format_bytes(budget.block_bytes), f"{budget.block_size} tokens (block_size)"),
        ("blocks", f"{budget.num_blocks:,}", _blocks(setup)),
    ]
    engines = setup.scenario.instance.pipeline_parallel_size
    if engines > 1:
        share = f"an equal share for each of {engines} virtual engines; what follows is one's"
        rows.append(("blocks of one", f"{budget.num_blocks // engines:,}", share))
    memory = setup.allocator()
    if memory.block_size != budget.block_size:
        rows.append((
            "blocks of its own", f"{memory.total_blocks:,}",
            f"{memory.block_size:,} tokens each: the allocator {setup.scenario.instance.memory.allocator} cuts its own",
        ))  # fmt: skip
    else:
        null_block = isinstance(memory, PagedAllocator) and memory.total_blocks == budget.num_blocks // engines - 1
        why = "one block is vLLM's null block, and holds nothing" if null_block else ""
        rows.append(("usable blocks", f"{memory.total_blocks:,}", why))
    rows.append(("KV capacity", f"{memory.total_blocks * memory.block_size:,} tokens"))
    longest = "max_model_len" if setup.scenario.instance.max_model_len else "max_model_len, the model's positions"
    rows += [_tier(tier, setup) for tier in setup.tiers]
    rows.append(("longest request", f"{setup.max_model_len:,} tokens", longest))
    return rows


def _tier(tier: Tier, setup: Setup) -> Row:
    """A memory below the device: what it holds, and how fast it is reached."""
    devices = setup.scenario.instance.tensor_parallel_size
    tokens = tier.capacity_bytes // (setup.budget.kv_bytes_per_token * devices)
    route = tier.route
    speeds = f"{format_si(route.in_bytes_per_s, 'B/s')} in, {format_si(route.out_bytes_per_s, 'B/s')} out"
    return (f"tier {tier.name}", f"{tokens:,} tokens", f"{format_bytes(tier.capacity_bytes)}, {speeds}")


def _blocks(setup: Setup) -> str:
    budget = setup.budget
    if budget.given:
        return "as the scenario says (memory.num_blocks); the budget above does not count"
    return f"{budget.kv_bytes:,} // {budget.block_bytes:,} bytes"


def _steps(setup: Setup) -> list[Row]:
    """From the shortest step that there is to the longest that the settings allow."""
    cost = setup.cost_model()
    memory = setup.allocator()
    scheduler = setup.scenario.instance.scheduler
    capacity = memory.total_blocks * memory.block_size
    seqs = min(scheduler.max_num_seqs, memory.total_blocks)
    context = min(seqs * (setup.max_model_len - 1), capacity)
    chunk = min(scheduler.max_num_batched_tokens, setup.max_model_len, capacity)

    def ms(step_s: float) -> str:
        return f"{format_figure(step_s, 1e3)} ms"

    rows: list[Row] = [
        ("floor", ms(cost.step_s([], 0, 1, 1)), "decode of one sequence with one token of context"),
        ("full decode batch", ms(cost.step_s([], 0, seqs, seqs)), f"{seqs:,} sequences, one token of context each"),
        (
            "ceiling of decode",
            ms(cost.step_s([], 0, seqs, context)),
            f"{seqs:,} sequences, {context:,} tokens of context together",
        ),
        ("full prefill", ms(cost.step_s([(chunk, 0)], 1, 0, 0)), f"a prompt of {chunk:,} tokens alone"),
    ]
    if isinstance(cost, PipelinedCost):
        sends = f"{ms(cost.send_s(1))}, {ms(cost.send_s(chunk))}"
        rows.append(("stage to stage", sends, f"hidden states of 1 and of {chunk:,} tokens"))
    if isinstance(setup.scenario.instance.cost, FixedCost):
        rows.append(("law", "fixed", "as the scenario says, whatever the model and the device"))
    return rows


_SAMPLE = 1 << 16


def _workload(scenario: Scenario) -> list[Row]:
    workload = scenario.workload
    stream = open_stream(workload, Streams(scenario.seed))
    blocks = list(islice(stream.blocks(), 1))
    count = "as many as arrive" if stream.num_requests is None else f"{stream.num_requests:,}"
    if workload.duration_s is not None:
        count += f", within {workload.duration_s:g} s"
    rows: list[Row] = []
    if isinstance(workload, TraceWorkload):
        rows.append(("trace", str(workload.trace), f"read as {workload.format}"))
    rows.append(("requests", count, "planned turns; arrivals are those of sessions" if stream.sessions else ""))
    rows.append(("arrivals", workload.arrivals.process if workload.arrivals is not None else "those of the trace"))
    rows.append(("rate", _rate(scenario)))
    if blocks and len(blocks[0]):
        rows += _lengths(blocks[0], stream.num_requests)
    if stream.slo_classes != ("default",):
        rows.append(("SLO classes", ", ".join(stream.slo_classes)))
    if stream.tenants != ("default",):
        rows.append(("tenants", ", ".join(stream.tenants)))
    return [*rows, *(("note", note) for note in stream.notes)]


def _rate(scenario: Scenario) -> str:
    try:
        knob = load_knob(scenario)
    except ServsimError as error:
        return error.message
    return f"{format_figure(knob.rate_per_s)} requests/s ({knob.path}: {knob.value:g})"


def _lengths(block: RequestBlock, total: int | None) -> list[Row]:
    some = "" if total == len(block) else f"of the first {len(block):,}"

    def described(name: str, values: np.ndarray) -> Row:
        p50, p99 = np.percentile(values, [50, 99])
        return (
            name,
            f"mean {values.mean():,.1f}, p50 {p50:,.0f}, p99 {p99:,.0f}, max {values.max():,}",
            some,
        )

    rows = [
        described("prompt tokens", block.prompt_tokens),
        described("output tokens", block.output_tokens),
        described("declared max_tokens", block.max_tokens),
    ]
    if block.further_outputs is not None:
        rows.append(("outputs", f"{1 + block.further_outputs.shape[1]} a request, of which the longest is told above"))
    if block.beam_width > 1:
        rows.append(("beams", f"{block.beam_width} a request, as long as its output"))
    return rows


def _slo(scenario: Scenario) -> list[Row]:
    if scenario.slo is None:
        return [("none", "latencies are reported, and no request is judged")]
    if isinstance(scenario.slo, SloBounds):
        return [("every request", _bounds(scenario.slo))]
    return [(name, _bounds(bounds)) for name, bounds in scenario.slo.items()]


def _bounds(bounds: SloBounds) -> str:
    given = bounds.model_dump(exclude_none=True)
    return ", ".join(f"{name.removesuffix('_s').upper()} ≤ {value:g} s" for name, value in given.items())
