"""The properties can fail: an engine that is broken on purpose does not pass them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from assembly import Assembly
from case import Case
from checks import (
    agrees_with_oracle,
    cutting_is_harmless,
    nothing_is_lost,
    observed_alike,
    planning_leaves_no_trace,
    strided_equals_single,
    with_arrivals_on_boundaries,
)
from costs import LinesCost
from drawn import UNIT_S, cases, inexact_costs, picks
from hypothesis import given
from hypothesis import strategies as st
from profiles import SEARCH

from servsim.clock import BOUNDARY, schedule_at
from servsim.cost.stride import Stride
from servsim.engine import instance as engine
from servsim.engine.completions import Completions
from servsim.engine.instance import Instance
from servsim.engine.observation import Observation
from servsim.engine.pauses import Pauses
from servsim.memory.paged import PagedAllocator
from servsim.scheduler.batching import VllmV1Batching
from servsim.scheduler.engines.past_future import PastFutureAdmission
from servsim.scheduler.policy import UNBOUNDED

Break = Callable[[pytest.MonkeyPatch], None]


class NoticedError(Exception):
    """A check failed, or the broken engine did."""


def same_requests(case: Case) -> None:
    """The strictest thing to ask of the clock alone: rows may be cut otherwise, times may not differ."""
    strided, single = Assembly(case).run().requests, Assembly(case, single=True).run().requests
    for name, column in strided.items():
        assert column.tobytes() == single[name].tobytes(), name


def on_boundaries(case: Case, chosen: list[Any]) -> None:
    agrees_with_oracle(with_arrivals_on_boundaries(case, chosen, hair_s=UNIT_S / 2**20))


def notices(check: Callable[..., None], *strategies: Any) -> bool:
    """Whether a search over drawn cases finds one that fails the check."""

    @SEARCH
    @given(st.tuples(*strategies))
    def search(drawn: tuple[Any, ...]) -> None:
        try:
            check(*drawn)
        except Exception as error:
            raise NoticedError from error

    try:
        search()
    except NoticedError:
        return True
    return False


def one_step_too_many_before_full(patch: pytest.MonkeyPatch) -> None:
    right = PagedAllocator.steps_until_full
    patch.setattr(
        PagedAllocator, "steps_until_full", lambda self, at_most: min(at_most, right(self, at_most) + (at_most > 1))
    )


def boundaries_before_arrivals(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine, "BOUNDARY", 0)


def plans_before_what_an_end_causes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine, "PLAN", 0)


def anchored_again_at_every_event(patch: pytest.MonkeyPatch) -> None:
    right = Instance._stride_of

    def wrong(self: Instance, plan: Any, began_s: float, plain: bool) -> Stride:
        if plain:
            self._end_stride(0, self.running.decoders)
        return right(self, plan, began_s, plain)

    patch.setattr(Instance, "_stride_of", wrong)


def now_plus_duration(patch: pytest.MonkeyPatch) -> None:
    class Adding:
        """Schedules a boundary at ``now += dt``."""

        def __init__(self, stride: Stride, instance: Instance) -> None:
            self.stride, self.instance = stride, instance

        def end_s(self, step: int) -> float:
            stride, now_s = self.stride, self.instance.env.now
            for each in range(self.instance._steps_done + 1, step + 1):
                now_s += stride.step_s(each)
            return now_s

    right = Instance._pass_time
    patch.setattr(Instance, "_pass_time", lambda self, stride, steps: right(self, Adding(stride, self), steps))  # type: ignore[arg-type]


def a_draw_in_every_plan(patch: pytest.MonkeyPatch) -> None:
    _before_every_plan(patch, lambda admission: admission._draws(1))


def a_new_pass_in_every_plan(patch: pytest.MonkeyPatch) -> None:
    _before_every_plan(patch, PastFutureAdmission._forget)


def _before_every_plan(patch: pytest.MonkeyPatch, act: Callable[[PastFutureAdmission], Any]) -> None:
    right = VllmV1Batching.plan

    def wrong(self: VllmV1Batching, now_s: float) -> Any:
        if isinstance(self.admission, PastFutureAdmission):
            act(self.admission)
        return right(self, now_s)

    patch.setattr(VllmV1Batching, "plan", wrong)


def a_refusal_that_never_expires(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PastFutureAdmission, "stable_steps", lambda self: UNBOUNDED)


def stale_completions_taken_for_true(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Completions, "_stale", lambda self: self._heap[0][2] not in self._finish_steps)


def arrivals_that_never_matter(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(VllmV1Batching, "arrival_matters", lambda self, sequence: False)


def strides_cut_a_step_late(patch: pytest.MonkeyPatch) -> None:
    right = Stride.first_end_at_or_after
    patch.setattr(Stride, "first_end_at_or_after", lambda self, time_s: right(self, time_s) + 1)


def a_breakpoint_that_is_missed(patch: pytest.MonkeyPatch) -> None:
    right = LinesCost.decode_stride

    def wrong(self: LinesCost, start_s: float, decoders: int, context_tokens: int) -> Stride:
        stride = right(self, start_s, decoders, context_tokens)
        stride.limit += 1
        return stride

    patch.setattr(LinesCost, "decode_stride", wrong)


def a_step_past_the_first_that_ends(patch: pytest.MonkeyPatch) -> None:
    right = Completions.next_step
    patch.setattr(Completions, "next_step", lambda self: right(self) + 1)


def preempted_in_the_wrong_order(patch: pytest.MonkeyPatch) -> None:
    right = VllmV1Batching.begin

    def wrong(self: VllmV1Batching, plan: Any) -> None:
        right(self, plan._replace(preempted=plan.preempted[::-1]))

    patch.setattr(VllmV1Batching, "begin", wrong)


def the_left_out_lost(patch: pytest.MonkeyPatch) -> None:
    right = VllmV1Batching._walked

    def wrong(self: VllmV1Batching, *arguments: Any) -> Any:
        return right(self, *arguments)._replace(left_out=[])

    patch.setattr(VllmV1Batching, "_walked", wrong)


def blocks_that_are_not_given_back(patch: pytest.MonkeyPatch) -> None:
    right = PagedAllocator.release

    def wrong(self: PagedAllocator, sequence: Any) -> None:
        right(self, sequence)
        self.used_blocks += sequence.kv_tokens % 7 == 0

    patch.setattr(PagedAllocator, "release", wrong)


def an_observer_a_step_ahead(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Instance, now_s: float) -> Observation:
        steps = 0
        if self._stride is not None and self._boundary is not None:
            steps = max(0, self._stride.first_end_at_or_after(now_s) - self._steps_done)
        blocks = self.memory.blocks_after(steps)
        return Observation(self.waiting, len(self.running), blocks, self.memory.total_blocks)

    patch.setattr(Instance, "observe", wrong)


def pauses_that_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Pauses, "decoded", lambda self, now_s: self.resuming.clear())


def boundaries_a_hair_late(patch: pytest.MonkeyPatch) -> None:
    def wrong(env: Any, event: Any, time_s: float, priority: int) -> None:
        schedule_at(env, event, time_s * (1 + 1e-8) if priority >= BOUNDARY else time_s, priority)

    patch.setattr(engine, "schedule_at", wrong)


EXACT = cases(exact=True)
BROKEN: list[tuple[Break, Callable[..., None], tuple[Any, ...]]] = [
    (one_step_too_many_before_full, strided_equals_single, (cases(),)),
    (one_step_too_many_before_full, nothing_is_lost, (cases(),)),
    (boundaries_before_arrivals, on_boundaries, (cases(exact=True, loops=False), picks)),
    (plans_before_what_an_end_causes, agrees_with_oracle, (EXACT,)),
    (anchored_again_at_every_event, same_requests, (cases(cost=inexact_costs),)),
    (now_plus_duration, same_requests, (cases(cost=inexact_costs),)),
    (a_draw_in_every_plan, strided_equals_single, (cases(policy="past_future"),)),
    (a_draw_in_every_plan, planning_leaves_no_trace, (cases(policy="past_future"),)),
    (a_new_pass_in_every_plan, strided_equals_single, (cases(policy="past_future"),)),
    (a_new_pass_in_every_plan, cutting_is_harmless, (cases(policy="past_future"),)),
    (a_refusal_that_never_expires, strided_equals_single, (cases(policy="past_future"),)),
    (stale_completions_taken_for_true, agrees_with_oracle, (EXACT,)),
    (arrivals_that_never_matter, strided_equals_single, (cases(),)),
    (strides_cut_a_step_late, strided_equals_single, (cases(),)),
    (strides_cut_a_step_late, observed_alike, (cases(), st.lists(st.floats(0, 1), min_size=1, max_size=4))),
    (a_breakpoint_that_is_missed, agrees_with_oracle, (EXACT,)),
    (a_step_past_the_first_that_ends, strided_equals_single, (cases(),)),
    (preempted_in_the_wrong_order, agrees_with_oracle, (EXACT,)),
    (the_left_out_lost, agrees_with_oracle, (cases(exact=True, policy="sjf"),)),
    (blocks_that_are_not_given_back, nothing_is_lost, (cases(),)),
    (an_observer_a_step_ahead, observed_alike, (cases(), st.lists(st.floats(0, 1), min_size=1, max_size=4))),
    (pauses_that_are_forgotten, agrees_with_oracle, (cases(exact=True, policy="sjf"),)),
    (boundaries_a_hair_late, agrees_with_oracle, (EXACT,)),
]


@pytest.mark.parametrize(
    ("broken", "check", "strategies"),
    [pytest.param(*row, id=f"{row[0].__name__}-{row[1].__name__}") for row in BROKEN],
)
def test_a_broken_engine_is_found_out(
    broken: Break, check: Callable[..., None], strategies: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    assert notices(check, *strategies)
