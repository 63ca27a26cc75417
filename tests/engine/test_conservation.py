"""Nothing is lost and nothing is made up, at any event; and to look changes nothing."""

from __future__ import annotations

from case import Case
from checks import nothing_is_lost, observed_alike, planning_leaves_no_trace
from drawn import cases
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples


@examples(120)
@given(cases())
def test_at_every_event_all_requests_and_all_blocks_are_accounted_for(case: Case) -> None:
    nothing_is_lost(case)


@examples(60)
@given(cases())
def test_to_plan_twice_gives_the_same_plan_and_leaves_no_trace(case: Case) -> None:
    planning_leaves_no_trace(case)


@examples(40)
@given(cases(policy="past_future"))
def test_to_plan_twice_draws_no_length_again(case: Case) -> None:
    planning_leaves_no_trace(case)


@examples(60)
@given(cases(), st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_an_instance_observed_in_mid_stride_says_what_single_steps_would(case: Case, shares: list[float]) -> None:
    observed_alike(case, shares)
