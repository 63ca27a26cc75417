"""Nothing is lost and nothing is made up, at any event; and to look changes nothing."""

from __future__ import annotations

import pytest
from assembly import Assembly
from case import Asked, Case
from checks import nothing_is_lost, observed_alike, planning_leaves_no_trace
from drawn import cases
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from servsim import registry
from servsim.cost.fixed import FixedCost
from servsim.errors import SimulationError
from servsim.scheduler import Plan, VllmV1Batching


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


class Forgetful(VllmV1Batching):
    """Stops planning in the middle of a run: a bug, and not an idle instance."""

    def plan(self, now_s: float) -> Plan:
        return super().plan(now_s) if now_s < 1.0 else Plan()


def test_an_instance_that_plans_nothing_while_something_runs_is_a_bug_that_names_the_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(registry._registered["schedulers"], "forgetful", Forgetful)
    case = Case((Asked(0.0, 4, 20, 20),), FixedCost(0.25, 0.125), policy="forgetful")
    with pytest.raises(SimulationError, match=r"plans nothing at 1\.0 s while request 0 waits"):
        Assembly(case).run()
