"""Which tiers a policy may swap to, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

import servsim
from servsim.errors import ServsimError
from servsim.scenario import load_scenario

CPU = {"cpu": {"capacity": "1 GiB", "link": "pcie-gen4-x16"}}


def scenario(tiers: Any = CPU, memory: Any = None, **scheduler: Any) -> dict[str, Any]:
    return {
        "name": "swapping",
        "model": "llama-3.1-8b",
        "instance": {
            "hardware": "h100-sxm",
            "max_model_len": 1024,
            "scheduler": {"max_num_seqs": 16, **scheduler},
            "memory": {"num_blocks": 70, "tiers": tiers, **(memory or {})},
        },
        "workload": {
            "arrivals": {"process": "poisson", "rate_per_s": 40},
            "lengths": {
                "prompt_tokens": {"distribution": "fixed", "value": 200},
                "output_tokens": {"distribution": "fixed", "value": 150},
            },
            "num_requests": 20,
            "max_tokens": 150,
        },
    }


SWAP = {"policy": "vllm_v0", "preemption_mode": "swap"}
MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    (scenario(policy="fcfs"), "keeps nothing below the device, and the policy fcfs swaps nothing", "memory.tiers"),
    (scenario(policy="vllm_v0"), "the policy vllm_v0 swaps nothing as it is set to recompute", "memory.tiers"),
    (
        scenario(tiers={**CPU, "cxl": {"capacity": "1 GiB", "link": "cxl-2.0-x8"}}, **SWAP),
        "2 tiers, but a policy swaps to one",
        "memory.tiers",
    ),
    (scenario(tiers={}, **SWAP, swap_copies="async"), "there is no tier to swap to", "scheduler.swap_copies"),
    (
        scenario(memory={"allocator": "prefix_blocks"}, **SWAP, swap_copies="async"),
        "the tiers are those of the allocator prefix_blocks",
        "scheduler.swap_copies",
    ),
    (scenario(**SWAP, swap_space_gib=8), "leave swap_space_gib out", "scheduler.swap_space_gib"),
    (
        scenario(tiers={}, policy="combined", batching={"name": "vllm_v0", "swap_copies": "async"}),
        "there is no tier to swap to",
        "scheduler.batching.swap_copies",
    ),
    (
        scenario(policy="combined", batching="vllm_v1"),
        "the policy combined with the batching vllm_v1 swaps nothing",
        "memory.tiers",
    ),
    (
        scenario(policy="combined", batching={"name": "vllm_v0", "preemption_mode": "swap", "swap_space_gib": 8}),
        "leave swap_space_gib out",
        "scheduler.batching.swap_space_gib",
    ),
    (scenario(tiers={"cpu": {"capacity": 1024, "link": "pcie-gen4-x16"}}, **SWAP), "does not hold one block", "tiers"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "message", "place"), MISTAKES, ids=[message for _, message, _ in MISTAKES])
def test_a_tier_that_nobody_can_use_as_asked_is_refused(wrong: dict[str, Any], message: str, place: str) -> None:
    with pytest.raises(ServsimError) as caught:
        servsim.simulate(wrong)
    assert message in str(caught.value)
    assert place in str(caught.value)


@pytest.mark.parametrize("copies", ["blocking", "async"])
def test_a_batching_swaps_to_a_tier_as_the_policy_does_that_it_makes_up(copies: str) -> None:
    settings = {"preemption_mode": "swap", "swap_copies": copies, "copy_granularity": "groups"}
    whole = servsim.simulate(scenario(policy="vllm_v0", **settings))
    parts = servsim.simulate(scenario(policy="combined", batching={"name": "vllm_v0", **settings}))
    assert parts.requests.equals(whole.requests) and parts.strides.equals(whole.strides)
    assert parts.summary["memory"] == whole.summary["memory"]
    assert parts.summary["memory"]["copied_out_bytes_cpu"] > 0


@pytest.mark.parametrize("order", ["lcf", "vtc_predictive", "deficit_round_robin"])
def test_who_comes_back_beside_the_steps_is_charged_to_its_tenant_like_anybody(order: str) -> None:
    """Nobody tells an order when the KV of who was swapped in is there."""
    batching = {"name": "vllm_v0", "preemption_mode": "swap", "swap_copies": "async"}
    what = scenario(policy="combined", batching=batching, order=order)
    what["workload"]["classes"] = [{"name": "a", "share": 1}, {"name": "b", "share": 2}]
    what["workload"]["lengths"]["output_tokens"] = {"distribution": "uniform", "min": 1, "max": 300}
    strided, single = (servsim.simulate(what, [f"instance.stepping={mode}"]) for mode in ("strided", "single"))
    assert strided.requests.equals(single.requests) and strided.strides.equals(single.strides)
    assert strided.summary["memory"]["copied_in_bytes_cpu"] > 0
    assert strided.summary["counts"]["finished"] == 20


@pytest.mark.parametrize("policy", ["vllm_v0", "priority_trace", "fastserve"])
@pytest.mark.parametrize("copies", ["blocking", "async"])
def test_a_policy_swaps_to_a_tier_and_the_summary_tells_how_much(policy: str, copies: str) -> None:
    settings = SWAP if policy == "vllm_v0" else {"policy": policy}
    result = servsim.simulate(scenario(**{**settings, "swap_copies": copies}))
    moved = result.summary["memory"]
    assert moved["copied_out_bytes_cpu"] == moved["copied_in_bytes_cpu"] > 0
    assert result.summary["counts"]["finished"] == 20
    assert set(result.pauses["reason"]) == {"swapped"}


def test_what_a_run_resolves_to_can_be_loaded_again() -> None:
    first = load_scenario(scenario(**SWAP, swap_copies="async"))
    again = load_scenario(first.model_dump(mode="json"))
    assert again.instance == first.instance
