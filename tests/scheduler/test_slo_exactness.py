"""SLO-aware policies over drawn scenarios: strides are exact, nothing is lost, nothing waits for ever."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from case import Case
from checks import (
    cutting_is_harmless,
    nothing_is_lost,
    planning_leaves_no_trace,
    strided_equals_single,
    with_arrivals_on_boundaries,
)
from drawn import cases, picks
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from with_deadlines import known

from servsim.scheduler.policy import Bounds

bounds = st.lists(
    st.builds(
        Bounds,
        st.sampled_from([float("inf"), 0.5, 1.0, 3.0, 20.0]),
        st.sampled_from([float("inf"), 0.13, 0.3, 1.0]),
        st.sampled_from([float("inf"), 2.0, 6.0, 30.0]),
    ),
    min_size=1,
    max_size=3,
).map(tuple)

POLICIES = [
    ("edf", {}),
    ("edf", {"bound": "e2e"}),
    ("least_slack", {}),
    ("least_slack", {"bound": "e2e", "hysteresis_s": 0.0}),
    ("least_slack", {"bound": "e2e", "hysteresis_s": 0.7}),
    ("shedding", {}),
    ("shedding", {"bound": "e2e"}),
    ("shedding", {"rule": "moore_hodgson"}),
    ("shedding", {"rule": "moore_hodgson", "bound": "e2e"}),
    ("slo_gain", {}),
    ("slo_gain", {"bound": "ttft"}),
    ("slos_serve", {"min_chunk_tokens": 1}),
    ("slos_serve", {"min_chunk_tokens": 8}),
    ("tier_admission", {"queue_depth": 2.0, "kv_utilization": 0.5}),
]


@pytest.mark.parametrize(("policy", "parameters"), POLICIES, ids=str)
def test_strides_are_exact_and_nothing_is_lost(policy: str, parameters: dict[str, Any]) -> None:
    @examples(12)
    @given(cases(), bounds, st.sampled_from([None, 0.5, 2.0]))
    def hold(case: Case, given_bounds: tuple[Bounds, ...], sigma: float | None) -> None:
        with known(policy, given_bounds, **parameters) as name:
            case = replace(case, policy=name, sigma=sigma)
            strided_equals_single(case)
            nothing_is_lost(case)
            cutting_is_harmless(case)

    hold()


@pytest.mark.parametrize(("policy", "parameters"), POLICIES, ids=str)
def test_arrivals_on_boundaries_and_plans_asked_for_twice_change_nothing(
    policy: str, parameters: dict[str, Any]
) -> None:
    @examples(8)
    @given(cases(loops=False), picks, bounds)
    def hold(case: Case, chosen: list, given_bounds: tuple[Bounds, ...]) -> None:
        with known(policy, given_bounds, **parameters) as name:
            case = replace(case, policy=name)
            strided_equals_single(with_arrivals_on_boundaries(case, chosen))
            planning_leaves_no_trace(case)

    hold()
