"""Whole runs with conversations that are kept: exact in strides, with copies under way, whatever the policy."""

from __future__ import annotations

from typing import Any

import pytest
from cached_runs import Asked, Run, Scene, tier
from checks import same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from whole_runs import strided_equals_single

POLICIES = ["fcfs", "sglang", "vllm_v0", "sarathi", "past_future", "fastserve", "srpt", "least_slack"]


def conversations(policy: dict[str, Any], memory: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Sessions of a few turns that together want more memory than there is."""
    return {
        "seed": changes.get("seed", 0),
        "model": "llama-3.1-8b",
        "instance": {
            "hardware": "h100-sxm",
            "scheduler": {"max_num_seqs": 8, "max_num_batched_tokens": 256, **policy},
            "memory": {"allocator": "pensieve", **memory},
            "max_model_len": 1500,
        },
        "workload": {
            "arrivals": {"process": "poisson", "rate_per_s": changes.get("rate_per_s", 20)},
            "lengths": {
                "prompt_tokens": {"distribution": "lognormal", "median": 60, "sigma": 1.0, "max": 500},
                "output_tokens": {"distribution": "lognormal", "median": 80, "sigma": 0.8, "max": 400},
            },
            "tokens_per_hash": changes.get("tokens_per_hash", 16),
            "sessions": {
                "turns": {"distribution": "geometric", "mean": 4},
                "think_time_s": {"distribution": "lognormal", "median_s": 1, "sigma": 0.8},
                "max_context_tokens": 1400,
            },
            "num_requests": changes.get("num_requests", 60),
            "max_tokens": 500,
        },
    }


TIGHT = {"watermark": 0.0, "reserve_full_isl": False}


def below(capacity: str = "256 MiB", link: str = "pcie-gen3-x16") -> dict[str, Any]:
    return {"cpu": {"capacity": capacity, "link": link}}


@pytest.mark.parametrize("policy", POLICIES)
def test_strides_are_exact_while_chunks_are_copied_evicted_and_fetched(policy: str) -> None:
    records = strided_equals_single(conversations({"policy": policy}, {"num_blocks": 120, **TIGHT, "tiers": below()}))
    told = records.memory
    moved = ("hit_tokens", "hit_tokens_cpu", "copied_out_bytes_cpu", "copied_in_bytes_cpu", "evicted_blocks")
    assert all(told[name] > 0 for name in moved), told
    assert told["evicted_blocks_cpu"] > 0  # 256 MiB are 64 chunks
    assert (records.requests["transfer_wait_s"] > 0).any()
    assert (records.requests["cached_tokens"] > 0).any()


@pytest.mark.parametrize("policy", [{"policy": "fcfs"}, {"policy": "vllm_v0", "preemption_mode": "swap"}])
def test_strides_are_exact_without_a_tier_and_with_preemptions(policy: dict[str, Any]) -> None:
    records = strided_equals_single(conversations(policy, {"num_blocks": 100, **TIGHT}, rate_per_s=100))
    assert records.requests["preemptions"].sum() > 0
    assert records.memory["dropped_blocks"] == records.memory["evicted_blocks"] > 0


@settings(max_examples=12, deadline=None)
@given(
    policy=st.sampled_from(POLICIES),
    block_size=st.sampled_from([8, 16, 32]),
    tokens=st.sampled_from([3200, 4800, 9600]),
    capacity=st.sampled_from([None, "24 MiB", "200 MiB", "2 GiB"]),
    link=st.sampled_from(["pcie-gen3-x16", "pcie-gen5-x16"]),
    copy_below=st.sampled_from([0.0, 0.25, 1.0]),
    granularity=st.sampled_from(["groups", "blocks"]),
    tokens_per_hash=st.sampled_from([8, 16, 48]),
    rate_per_s=st.sampled_from([2, 10, 40]),
    seed=st.integers(0, 1000),
)
def test_strides_are_exact_in_any_scenario(
    policy: str,
    block_size: int,
    tokens: int,
    capacity: str | None,
    link: str,
    copy_below: float,
    granularity: str,
    **changes: Any,
) -> None:
    memory = {"num_blocks": tokens // block_size, "block_size": block_size, "copy_below": copy_below}
    memory |= {"copy_granularity": granularity, "tiers": below(capacity, link) if capacity else {}}
    strided_equals_single(conversations({"policy": policy}, memory, num_requests=25, **changes))


turns = st.builds(
    lambda gap, prompt, output, session, other: (gap, prompt, output, session, other),
    st.sampled_from([0.0, 0.125, 0.25, 1.0, 3.7]),
    st.integers(1, 40),
    st.integers(1, 30),
    st.integers(-1, 2),
    st.booleans(),
)


@settings(deadline=None)
@given(
    drawn=st.lists(turns, min_size=2, max_size=12),
    blocks=st.integers(20, 60),
    tier_blocks=st.sampled_from([0, 4, 12, 200]),
    bytes_per_s=st.sampled_from([500.0, 8000.0, 1e6]),
    copy_below=st.sampled_from([0.0, 0.25, 1.0]),
    policy=st.sampled_from(["fcfs", "sglang", "vllm_v0"]),
)
def test_sessions_may_overlap_and_change_their_minds(
    drawn: list[tuple[float, int, int, int, bool]],
    blocks: int,
    tier_blocks: int,
    bytes_per_s: float,
    copy_below: float,
    policy: str,
) -> None:
    requests = []
    now_s = 0.0
    for gap, prompt, output, session, other in drawn:
        now_s += gap
        ids = tuple(100 * session + unit + 1000 * (other and unit > 2) for unit in range((prompt + output) // 4))
        requests.append(Asked(now_s, prompt, output, ids if session >= 0 else (), session))
    tiers = (tier(tier_blocks, bytes_per_s),) if tier_blocks else ()
    scene = Scene(
        tuple(requests),
        num_blocks=blocks,
        allocator="pensieve",
        policy=policy,
        settings={"chunk_size": 8, "copy_below": copy_below},
        tiers=tiers,
    )
    records = []
    for single in (False, True):
        run = Run(scene, single=single)
        records.append(run.run(run.memory.check_integrity))
        assert run.memory.used_blocks == run.memory.transfers == 0
    same_bits(*records)
    assert records[0].memory == records[1].memory


def test_conversations_kept_below_are_worth_more_than_those_kept_on_the_device_alone() -> None:
    found = []
    for memory in ({}, {"tiers": below("24 MiB")}, {"tiers": below("2 GiB")}):
        records = strided_equals_single(conversations({"policy": "fcfs"}, {"num_blocks": 200, **memory}))
        found.append(records.memory["hit_tokens"] / records.memory["queried_tokens"])
    assert found[0] < found[2]
    assert found[1] < found[2]
