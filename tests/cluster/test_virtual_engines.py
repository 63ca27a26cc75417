"""Pipelined instances as a whole: every policy and allocator on virtual engines, their memory, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from checks import same_bits

from servsim import simulate
from servsim.errors import CapacityError, ScenarioError
from servsim.records import Records
from servsim.scenario import load_scenario
from servsim.setup import Setup
from servsim.simulation import Simulation


def scenario(**instance: Any) -> dict[str, Any]:
    return {
        "name": "pipelined",
        "model": "llama-3.1-8b",
        "instance": {"hardware": "h100-sxm", "pipeline_parallel_size": 2, **instance},
        "workload": {
            "arrivals": {"process": "poisson", "rate_per_s": 30},
            "lengths": {
                "prompt_tokens": {"distribution": "uniform", "min": 1, "max": 900},
                "output_tokens": {"distribution": "uniform", "min": 1, "max": 200},
            },
            "num_requests": 120,
        },
    }


def run(what: dict[str, Any], *overrides: str) -> Records:
    return Simulation(load_scenario(what, overrides)).run()


@pytest.mark.parametrize("policy", ["fcfs", "vllm_v0", "sarathi", "past_future", "sglang", "fastserve", "trail", "vtc"])
@pytest.mark.parametrize("memory", [{"num_blocks": 260}, {"allocator": "prefix_blocks"}, {"allocator": "vattention"}])
def test_strides_and_single_steps_are_equal_whatever_the_policy_and_the_allocator(policy: str, memory: Any) -> None:
    what = scenario(scheduler={"policy": policy, "max_num_seqs": 24}, memory=memory)
    if policy in ("past_future", "sglang"):
        what["workload"]["max_tokens"] = 300
    strided = run(what)
    same_bits(strided, run(what, "instance.stepping=single"))
    assert set(strided.requests["instance"]) == {0, 1}


def test_each_engine_has_its_share_of_the_blocks() -> None:
    whole, half = (Setup.of(load_scenario(scenario(memory={"num_blocks": blocks}))) for blocks in (1001, 500))
    assert whole.allocator().total_blocks == 500 - 1  # the null block of each
    assert half.allocator().total_blocks == 250 - 1


def test_each_engine_has_its_share_of_the_swap_space() -> None:
    """A stage of 16 of 32 layers: 1 MiB a block of 16 tokens, 1,024 blocks in a GiB."""
    what = scenario(scheduler={"policy": "vllm_v0", "preemption_mode": "swap", "swap_space_gib": 1.0})
    policies: list[Any] = [instance.policy for instance in Simulation(load_scenario(what)).instances]
    assert [policy._host.total_blocks for policy in policies] == [512, 512]


def test_stages_leave_more_room_for_kv_than_one_device_has() -> None:
    one, two = (
        Setup.of(load_scenario(scenario(), [f"instance.pipeline_parallel_size={size}"])).budget for size in (1, 2)
    )
    assert two.weight_bytes < 0.6 * one.weight_bytes
    assert two.kv_bytes_per_token == one.kv_bytes_per_token / 2
    assert two.num_blocks > 2 * one.num_blocks


def test_a_slower_link_makes_tokens_later() -> None:
    own = simulate(scenario()).summary["tpot_s"]["mean"]
    network = simulate(scenario(pipeline_link="rdma-200g")).summary["tpot_s"]["mean"]
    assert network > own


def test_summaries_count_every_engine() -> None:
    result = simulate(scenario(memory={"num_blocks": 800}))
    assert set(result.strides["instance"]) == {0, 1}
    assert set(result.strides["kv_blocks_total"]) == {399}
    assert result.summary["batches"]["busy"] <= 1


def test_a_lone_pipeline_is_as_slow_as_all_its_stages() -> None:
    """At hardly any load a token passes both stages, whose devices together do what one did before, and a send."""
    overrides = ["workload.arrivals.rate_per_s=0.01", "workload.num_requests=10"]
    one = simulate(scenario(), [*overrides, "instance.pipeline_parallel_size=1"]).summary["tpot_s"]["mean"]
    two = simulate(scenario(), overrides).summary["tpot_s"]["mean"]
    assert one < two < 1.02 * one


@pytest.mark.parametrize(
    ("instance", "overrides", "place", "message"),
    [
        ({"cost": {"law": "fixed", "prefill_s": 1, "decode_s": 1}}, [], "pipeline_parallel_size", "have no stages"),
        ({"pipeline_parallel_size": 33}, [], "pipeline_parallel_size", "32 layers, not enough for 33 stages"),
        ({"pipeline_link": "h100-sxm"}, [], "scenario: instance.pipeline_link: ", "h100-sxm is a GPU, not a link"),
        ({"pipeline_link": "rdma-400"}, [], "pipeline_link", "rdma-400g"),
        ({"memory": {"num_blocks": 3}}, [], "num_blocks", "3 blocks for 2 virtual engines"),
        (
            {"memory": {"allocator": "prefix_blocks", "tiers": {"cpu": {"capacity": "1 GiB", "link": "rdma-200g"}}}},
            [],
            "pipeline_parallel_size",
            "not modelled",
        ),
        ({"hardware": "mi300x"}, ["instance.pipeline_link=pcie-gen5-x17"], "pipeline_link", "pcie-gen5-x16"),
    ],
)
def test_what_makes_no_sense_is_refused(
    instance: dict[str, Any], overrides: list[str], place: str, message: str
) -> None:
    with pytest.raises((ScenarioError, CapacityError)) as refused:
        Simulation(load_scenario(scenario(**instance), overrides))
    assert place in str(refused.value) and message in str(refused.value)


def test_a_link_is_not_used_by_one_stage() -> None:
    """So that numbers of stages can be compared with one another."""
    alone = "instance.pipeline_parallel_size=1"
    same_bits(run(scenario(), alone), run(scenario(pipeline_link="rdma-200g"), alone))
