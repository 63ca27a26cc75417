"""Strides against single steps, to the bit; both against a plain simulator; over drawn scenarios."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from assembly import Assembly
from case import Asked, Case
from checks import (
    agrees_with_oracle,
    cutting_is_harmless,
    happened,
    nothing_is_lost,
    same_bits,
    strided_equals_single,
    with_arrivals_on_boundaries,
)
from drawn import UNIT_S, cases, picks, rooflines
from hypothesis import given
from profiles import SEARCH, examples

import servsim
from servsim import registry
from servsim.cost.fixed import FixedCost
from servsim.metrics.token_times import all_token_times, inter_token_latencies, token_times
from servsim.scheduler import Plan, VllmV1Batching

POLICIES_AND_ALLOCATORS = list(product(["fcfs", "sjf", "past_future"], ["paged", "contiguous"]))


@examples(150)
@given(cases())
def test_strides_and_single_steps_are_equal_to_the_bit(case: Case) -> None:
    strided_equals_single(case)


@examples(100)
@given(cases(loops=False), picks)
def test_they_are_equal_with_arrivals_on_step_boundaries_and_an_ulp_beside_them(case: Case, chosen: list) -> None:
    strided_equals_single(with_arrivals_on_boundaries(case, chosen))


@examples(120)
@given(cases(exact=True))
def test_decisions_times_memory_and_tokens_are_those_of_the_oracle(case: Case) -> None:
    agrees_with_oracle(case)


@examples(80)
@given(cases(exact=True, loops=False), picks)
def test_the_oracle_agrees_about_arrivals_on_and_beside_step_boundaries(case: Case, chosen: list) -> None:
    """On a clock without rounding, where a boundary is the same instant for both."""
    agrees_with_oracle(with_arrivals_on_boundaries(case, chosen, hair_s=UNIT_S / 2**20))


@examples(80)
@given(cases(cost=rooflines, coincidences=False))
def test_the_oracle_agrees_with_the_roofline_across_its_breakpoints(case: Case) -> None:
    agrees_with_oracle(case)


@examples(60)
@given(cases(policy="past_future", exact=True))
def test_the_oracle_agrees_about_every_past_future_admission(case: Case) -> None:
    agrees_with_oracle(case)


@examples(60)
@given(cases(policy="sjf", exact=True))
def test_the_oracle_agrees_about_sjf_and_those_it_leaves_out_of_a_step(case: Case) -> None:
    agrees_with_oracle(case)


@examples(80)
@given(cases())
def test_cutting_strides_anywhere_is_harmless(case: Case) -> None:
    cutting_is_harmless(case)


@pytest.mark.parametrize(
    "event",
    [
        "finished",
        "rejected",
        "one token",
        "preempted",
        "preempted twice",
        "preempted before the first token",
        "left_out",
        "breakpoint",
        "long stride",
        "fragmented",
        "lengths drawn",
    ],
)
def test_the_drawn_scenarios_reach(event: str) -> None:
    class FoundError(Exception):
        pass

    policy = {"left_out": "sjf", "lengths drawn": "past_future"}.get(event)

    @SEARCH
    @given(cases(policy=policy))
    def search(case: Case) -> None:
        if event in happened(case):
            raise FoundError

    with pytest.raises(FoundError):
        search()


@pytest.mark.parametrize(("policy", "allocator"), POLICIES_AND_ALLOCATORS)
def test_the_stepping_of_a_scenario_changes_no_bit_of_its_records(policy: str, allocator: str) -> None:
    scenario = {
        "model": "llama-3.1-8b",
        "instances": 2,
        "router": "random",
        "instance": {
            "hardware": "h100-sxm",
            "max_model_len": 2048,
            "scheduler": {"policy": policy, "max_num_seqs": 16, "max_num_batched_tokens": 512},
            "memory": {"allocator": allocator, "num_blocks": 300},
        },
        "workload": {
            "arrivals": {"process": "gamma", "rate_per_s": 20, "burstiness": 0.3},
            "lengths": {
                "prompt_tokens": {"distribution": "lognormal", "median": 200, "sigma": 1.0, "max": 1000},
                "output_tokens": {"distribution": "lognormal", "median": 100, "sigma": 1.0, "max": 1000},
            },
            "num_requests": 100,
        },
    }
    strided = servsim.simulate(scenario)
    single = servsim.simulate(scenario, ["instance.stepping=single"])
    same_bits(strided.records, single.records)
    assert strided.summary == single.summary
    assert strided.records.strides["steps"].max() > 1


@pytest.mark.parametrize(("side", "scheduled_s"), [("before", 1.5), ("on", 1.5), ("after", 1.625)])
def test_an_arrival_on_a_boundary_is_seen_there_and_an_ulp_later_at_the_next(side: str, scheduled_s: float) -> None:
    alone = Case((Asked(0.0, 4, 20, 20),), FixedCost(0.25, 0.125))
    case = with_arrivals_on_boundaries(alone, [(0.5, side, Asked(0.0, 4, 1, 1))])
    assert case.requests[1].arrival_s == pytest.approx(1.5, abs=1e-9)
    for single in (False, True):
        assert Assembly(case, single=single).run().requests["scheduled_s"][1] == scheduled_s


class PrefillFirst(VllmV1Batching):
    """Steps that prefill do nothing else, as in vLLM v0: the decoders wait."""

    def plan(self, now_s: float) -> Plan:
        plan = super().plan(now_s)
        return plan._replace(decode=False) if plan.prefills else plan


@pytest.fixture
def prefill_first(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(registry._registered["schedulers"], "prefill_first", PrefillFirst)
    return "prefill_first"


def test_decoders_that_a_prefill_stalls_emit_nothing_meanwhile(prefill_first: str) -> None:
    requests = (Asked(0.0, 4, 6, 6), Asked(0.3, 4, 3, 3))
    records = Assembly(Case(requests, FixedCost(0.25, 0.125), policy=prefill_first)).run()
    assert token_times(records, 0).tolist() == [0.25, 0.375, 0.75, 0.875, 1.0, 1.125]
    assert token_times(records, 1).tolist() == [0.625, 0.75, 0.875]
    assert not len(records.pauses["request_id"])  # the rows say it: in the second prefill nobody decodes
    assert records.strides["decode_seqs"].tolist() == [0, 1, 0, 2, 1]
    gaps_s, weights = inter_token_latencies(records)
    assert sorted(np.repeat(gaps_s, weights).tolist()) == sorted([0.125, 0.375, *[0.125] * 5])


def test_a_policy_of_somebody_elses_that_stalls_decoders_is_held_to_the_same(prefill_first: str) -> None:
    @examples(60)
    @given(cases())
    def hold(case: Case) -> None:
        case = replace(case, policy=prefill_first)
        strided_equals_single(case)
        nothing_is_lost(case)
        records = Assembly(case).run()
        gaps_s = [np.empty(0)]
        for number, times_s in all_token_times(records):
            assert len(times_s) == case.requests[number].output
            gaps_s.append(np.diff(times_s))
        values_s, weights = inter_token_latencies(records)
        counted_s = np.repeat(values_s, weights)
        np.testing.assert_allclose(np.sort(counted_s), np.sort(np.concatenate(gaps_s)), rtol=1e-9, atol=1e-12)

    hold()
