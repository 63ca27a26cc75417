"""Whole simulations of requests with several outputs: strides are exact, and sharing is what it comes to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from whole_runs import run, strided_equals_single

import servsim
from servsim.errors import CapacityError
from servsim.metrics.token_times import all_token_times
from servsim.records import PAUSE_REASONS

TIER = {"cpu": {"capacity": "1 GiB", "link": "pcie-gen4-x16"}}


def scenario(
    workload: dict[str, Any],
    *,
    num_blocks: int = 60,
    block_size: int = 16,
    tiers: Any = None,
    requests: int = 12,
    **scheduler: Any,
) -> dict[str, Any]:
    return {
        "name": "groups",
        "model": "llama-3.1-8b",
        "instance": {
            "hardware": "h100-sxm",
            "max_model_len": 512,
            "scheduler": {"policy": "vllm_v0", "max_num_seqs": 16, **scheduler},
            "memory": {"num_blocks": num_blocks, "block_size": block_size, "tiers": tiers or {}},
        },
        "workload": {
            "arrivals": {"process": "poisson", "rate_per_s": 40},
            "lengths": {
                "prompt_tokens": {"distribution": "uniform", "min": 10, "max": 90},
                "output_tokens": {"distribution": "geometric", "mean": 40},
            },
            "num_requests": requests,
            "max_tokens": 400,
            **workload,
        },
    }


SAMPLES = {"samples": {"count": 4, "forked": True}}
BEAMS = {"beam_search": {"width": 4, "reorder_probability": 0.3}}


@pytest.mark.parametrize("copies", ["blocking", "async", "groups alone", None])
@examples(6)
@given(
    workload=st.sampled_from([SAMPLES, BEAMS]),
    num_blocks=st.sampled_from([40, 60, 90]),
    block_size=st.sampled_from([16, 8, 5]),
    seed=st.integers(0, 1000),
    ordered=st.booleans(),
)
def test_strides_change_nothing_with_groups(
    copies: str | None, workload: Any, num_blocks: int, block_size: int, seed: int, ordered: bool
) -> None:
    settings: dict[str, Any] = {"preemption_mode": "swap", "swap_copies": copies} if copies else {}
    if copies == "groups alone":
        settings = {"preemption_mode": "recompute", "swap_copies": "async"}
    if ordered and not copies:
        settings = {"policy": "combined", "batching": "vllm_v0", "order": "shortest_prompt_first"}
    tiers = TIER if copies else None
    case = scenario(workload, num_blocks=num_blocks, block_size=block_size, tiers=tiers, **settings)
    strided_equals_single(case, f"seed={seed}")


@pytest.mark.parametrize("copies", ["blocking", "async"])
def test_what_is_shared_is_copied_once(copies: str) -> None:
    lengths = {"prompt_tokens": 160, "output_tokens": 100}
    case = scenario({**SAMPLES, "lengths": lengths}, tiers=TIER, preemption_mode="swap", swap_copies=copies)
    result = servsim.simulate(case)
    swaps = result.pauses[result.pauses["reason"] == "swapped"]
    memory = result.summary["memory"]
    assert len(swaps) > 3 and set(result.pauses["reason"]) == {"swapped"}
    assert memory["copied_out_bytes_cpu"] == memory["copied_in_bytes_cpu"] > 0
    block_bytes = 16 * 131_072
    # Ten blocks of the prompt once, and at most seven of each output; without sharing at least 44.
    assert 11 <= memory["copied_out_bytes_cpu"] / block_bytes / len(swaps) <= 10 + 4 * 7


def test_with_a_tier_groups_alone_may_be_swapped() -> None:
    """What vLLM v0 does by itself: once one output is left of a group, it is recomputed."""
    case = scenario(SAMPLES, num_blocks=50, tiers=TIER, requests=30)
    reasons = strided_equals_single(case).pauses["reason"].tolist()
    assert {PAUSE_REASONS[reason] for reason in reasons} == {"preempted", "swapped"}


def test_virtual_engines_serve_groups() -> None:
    case = scenario(SAMPLES, num_blocks=90)
    case["instance"]["pipeline_parallel_size"] = 2
    records = strided_equals_single(case)
    assert set(records.requests["instance"]) == {0, 1} and records.memory["forks"] == 12 * 3


def test_sharing_serves_the_same_tokens_from_less_memory() -> None:
    workload = {
        "samples": {"count": 3, "forked": True},
        "lengths": {"prompt_tokens": 100, "output_tokens": 30},
        "arrivals": {"process": "constant", "rate_per_s": 1},
    }
    together = run(scenario(workload, requests=3))
    apart = run(scenario({**workload, "samples": {"count": 3, "forked": False}}, requests=3))
    # 6 full blocks of the prompt in common, and 3 of each with 129 tokens; or three times 9.
    assert together.strides["kv_blocks_used"].max() == 6 + 3 * 3
    assert apart.strides["kv_blocks_used"].max() == 3 * 9
    assert together.strides["prefill_tokens"].sum() == 300
    assert apart.strides["prefill_tokens"].sum() == 900


def test_all_tokens_that_come_out_are_counted() -> None:
    beams = {**BEAMS, "lengths": {"prompt_tokens": 20, "output_tokens": 10}}
    result = servsim.simulate(scenario(beams, num_blocks=200, requests=5))
    assert result.summary["tokens"]["output_tokens"] == 5 * 4 * 10
    assert result.requests["output_tokens"].tolist() == [10] * 5
    throughput = result.summary["throughput"]
    assert throughput["output_tokens_per_s"] == pytest.approx(4 * 10 * throughput["requests_per_s"])
    steps = result.strides["steps"] * result.strides["decode_seqs"]
    assert steps.sum() == 5 * 4 * 9  # the first token comes with the prefill


@pytest.mark.parametrize("workload", [SAMPLES, BEAMS])
def test_the_tokens_of_the_longest_output_can_be_told_from_the_rows(workload: dict[str, Any]) -> None:
    records = run(scenario(workload, num_blocks=45, preemption_mode="swap"))
    rows = records.requests
    times = dict(all_token_times(records))
    assert rows["preemptions"].any()
    for number, output_tokens, finish_s in zip(
        rows["request_id"], rows["output_tokens"], rows["finish_s"], strict=True
    ):
        assert len(times[number]) == output_tokens
        assert times[number][-1] == pytest.approx(finish_s)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"swap_space_gib": 0}, "instance.scheduler.swap_space_gib"),
        ({"policy": "combined", "batching": {"name": "vllm_v0", "swap_space_gib": 0}},
         "instance.scheduler.batching.swap_space_gib"),
        ({"tiers": {"cpu": {"capacity": "2 MiB", "link": "pcie-gen4-x16"}}}, "instance.memory.tiers.cpu.capacity"),
    ],
)  # fmt: skip
def test_a_run_stops_where_a_group_finds_no_swap_space(settings: dict[str, Any], key: str) -> None:
    workload = {**SAMPLES, "lengths": {"prompt_tokens": 60, "output_tokens": 90}}
    with pytest.raises(CapacityError, match="4 live sequences") as caught:
        servsim.simulate(scenario(workload, **settings))
    error = caught.value
    assert " blocks are free" in error.message and error.place == "scenario: instance.scheduler"
    assert error.remedy == f"raise {key}, or lower instance.scheduler.max_num_seqs"


def test_a_closed_loop_waits_for_the_longest_output() -> None:
    loop = {**SAMPLES, "arrivals": {"process": "closed_loop", "concurrency": 2}}
    records = strided_equals_single(scenario(loop, num_blocks=200))
    rows = records.requests
    assert set(rows["arrival_s"][2:].tolist()) <= set(rows["finish_s"].tolist())
