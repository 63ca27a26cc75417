"""No policy can reach a true output length: nothing that it holds leads to one."""

from __future__ import annotations

import dataclasses
import types
from typing import Any

import numpy as np
import pytest
import simpy

from servsim import registry
from servsim.request import Request, Sequence
from servsim.scenario import load_scenario
from servsim.scheduler import Plan
from servsim.simulation import Simulation

TRUTH = 54_321


def reachable(root: Any) -> list[Any]:
    """Everything that can be got at from an object through attributes, items, closures and bound methods.

    Not through the clock, in which all that will happen is queued, nor through the bell by which an allocator tells the
    engine that a transfer has ended: both are the allocator's, and lead to everything.
    """
    found: dict[int, Any] = {}
    pending = [root]
    while pending:
        one = pending.pop()
        if id(one) in found or isinstance(
            one, str | bytes | type | types.ModuleType | np.random.Generator | simpy.Environment
        ):
            continue
        found[id(one)] = one
        pending += parts_of(one)
    return list(found.values())


def parts_of(one: Any) -> list[Any]:
    if isinstance(one, dict):
        return [*one.keys(), *one.values()]
    if isinstance(one, list | tuple | set | frozenset):
        return list(one)
    if isinstance(one, types.MethodType):
        return [one.__self__, one.__func__]
    if isinstance(one, types.FunctionType):
        return [cell.cell_contents for cell in one.__closure__ or ()]
    parts = [part for name, part in getattr(one, "__dict__", {}).items() if name != "changed"]
    for kind in type(one).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        parts += [getattr(one, name) for name in ([slots] if isinstance(slots, str) else slots) if hasattr(one, name)]
    if hasattr(one, "__iter__") and type(one).__module__ == "collections":
        parts += list(one)
    return parts


def test_a_sequence_and_a_plan_have_no_place_for_the_truth() -> None:
    names = {field.name for field in dataclasses.fields(Sequence)}
    assert not {name for name in names | set(Plan._fields) if "output" in name}
    with pytest.raises(AttributeError):
        Sequence(0, 0.0, 1, 1, 0, 0, 0, ()).output_tokens = 5  # type: ignore[attr-defined]


@pytest.mark.parametrize("policy", registry.names("schedulers"))
@pytest.mark.parametrize("allocator", registry.names("allocators"))
def test_nothing_that_a_policy_holds_in_mid_run_leads_to_a_request_or_its_output(policy: str, allocator: str) -> None:
    scenario = {
        "model": "llama-3.1-8b",
        "instance": {
            "hardware": "h100-sxm",
            "scheduler": {
                "policy": policy,
                "max_num_seqs": 4,
                "predictor": {"name": "lognormal_noise", "sigma": 1.0},
            },
            "memory": {"allocator": allocator, "num_blocks": 1_000_000},
            "max_model_len": 100_000,
            "cost": {"law": "fixed", "prefill_s": 1.0, "decode_s": 1.0},
        },
        "workload": {
            "arrivals": {"process": "constant", "rate_per_s": 1},
            "lengths": {"prompt_tokens": 10, "output_tokens": TRUTH},
            "num_requests": 20,
            "max_tokens": 60_000,
        },
    }
    simulation = Simulation(load_scenario(scenario))
    simulation.env.run(until=30.5)
    held = reachable(simulation.instances[0].policy)
    sequences = {one.request_id for one in held if isinstance(one, Sequence)}
    assert sequences >= set(range(20))  # the walk does get everywhere
    assert not [one for one in held if isinstance(one, Request)]
    assert TRUTH not in [one for one in held if isinstance(one, int | float)]
    assert not [one for one in held if isinstance(one, np.ndarray) and (one == TRUTH).any()]


@pytest.mark.parametrize("policy", ["fcfs", "past_future"])
def test_decisions_before_the_first_finish_do_not_depend_on_true_lengths(policy: str) -> None:
    def scheduled(output_tokens: int) -> list[float]:
        scenario = {
            "model": "llama-3.1-8b",
            "instance": {
                "hardware": "h100-sxm",
                "scheduler": {"policy": policy, "max_num_seqs": 64},
                "memory": {"num_blocks": 400},
                "max_model_len": 4000,
            },
            "workload": {
                "arrivals": {"process": "poisson", "rate_per_s": 50},
                "lengths": {"prompt_tokens": 300, "output_tokens": output_tokens},
                "num_requests": 60,
                "max_tokens": 2000,
            },
        }
        simulation = Simulation(load_scenario(scenario))
        simulation.env.run(until=1.2)  # 150 steps at the most
        instance = simulation.instances[0]
        return [sequence.scheduled_s for sequence, _ in instance.unfinished()]

    short, long = scheduled(300), scheduled(2000)
    assert any(time == time for time in short)
    np.testing.assert_array_equal(short, long)


@pytest.mark.parametrize("policy", ["vllm_v0", "priority_trace", "fastserve"])
def test_nor_does_the_tier_that_a_policy_swaps_to(policy: str) -> None:
    scheduler: dict[str, Any] = {"policy": policy, "max_num_seqs": 4, "swap_copies": "async"}
    scheduler["predictor"] = {"name": "lognormal_noise", "sigma": 1.0}
    if policy == "vllm_v0":
        scheduler["preemption_mode"] = "swap"
    scenario = {
        "model": "llama-3.1-8b",
        "instance": {
            "hardware": "h100-sxm",
            "scheduler": scheduler,
            "memory": {"num_blocks": 60, "tiers": {"cpu": {"capacity": "4 GiB", "link": "pcie-gen3-x16"}}},
            "max_model_len": 800,
        },
        "workload": {
            "arrivals": {"process": "constant", "rate_per_s": 1000},
            "lengths": {"prompt_tokens": 200, "output_tokens": 531},
            "num_requests": 20,
            "max_tokens": 600,
        },
    }
    simulation = Simulation(load_scenario(scenario))
    instance = simulation.instances[0]
    space = instance._swapping.space  # type: ignore[union-attr]
    while not space.transfers:
        simulation.env.step()
    held = reachable(instance.policy)
    assert any(one is space for one in held)
    assert not [one for one in held if isinstance(one, Request)]
    assert 531 not in [one for one in held if isinstance(one, int | float)]
