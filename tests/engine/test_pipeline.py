"""Virtual engines that share the stages of a pipeline: a plain tandem queue agrees, strides equal single steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from assembly import Assembly
from case import Asked, Case
from checks import cutting_is_harmless, nothing_is_lost, same_bits, strided_equals_single, with_arrivals_on_boundaries
from costs import LinesCost
from drawn import UNIT_S, cases, exact_costs, inexact_costs, picks
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from servsim.cost.fixed import FixedCost
from servsim.cost.host import HostWork
from servsim.cost.pipelined import PipelinedCost
from servsim.cost.stride import Stride
from servsim.records import Records


def no_time(tokens: int) -> float:
    return 0.0


def some_time(tokens: int) -> float:
    return UNIT_S * (3 + tokens)


any_costs = st.one_of(exact_costs, inexact_costs)


@st.composite
def pipelines(draw: Any, stages: Any = any_costs) -> PipelinedCost:
    chosen = draw(st.lists(stages, min_size=2, max_size=4))
    host = HostWork(
        draw(st.sampled_from([0.0, 4 * UNIT_S, 0.25])),
        asynchronous=draw(st.booleans()),
        gap_s=draw(st.sampled_from([0.0, 2 * UNIT_S])),
    )
    return PipelinedCost(chosen, draw(st.sampled_from([no_time, some_time])), host)


fixed_stages = st.builds(FixedCost, st.sampled_from([0.25, 0.1, 0.375]), st.sampled_from([0.125, 0.03, 0.0625]))


@examples(150)
@given(cases(cost=pipelines()))
def test_strides_and_single_steps_are_equal_to_the_bit(case: Case) -> None:
    strided_equals_single(case)


@examples(100)
@given(cases(cost=pipelines(exact_costs), loops=False), picks)
def test_they_are_equal_with_arrivals_on_step_boundaries_and_an_ulp_beside_them(case: Case, chosen: list) -> None:
    strided_equals_single(with_arrivals_on_boundaries(case, chosen))


@examples(60)
@given(cases(cost=pipelines()))
def test_cutting_strides_anywhere_is_harmless(case: Case) -> None:
    cutting_is_harmless(case)


@examples(60)
@given(cases(cost=pipelines()))
def test_nothing_is_lost(case: Case) -> None:
    nothing_is_lost(case)


@examples(100)
@given(cases(cost=pipelines(fixed_stages)))
def test_every_step_ends_when_a_plain_tandem_queue_says_so(case: Case) -> None:
    records = Assembly(case).run()
    stages = len(case.cost.stages)
    for first in range(0, case.instances * stages, stages):
        steps = _steps(records, range(first, first + stages))
        ends_s = _tandem(steps, case.cost)
        for (start_s, instance, _, end_s, _), reference_s in zip(steps, ends_s, strict=True):
            assert end_s == pytest.approx(reference_s, rel=1e-9, abs=1e-12), (start_s, instance)


def _steps(records: Records, instances: range) -> list[tuple[float, int, bool, float, int]]:
    """Every step of these engines in the order of planning: start, engine, whether it prefills, end, tokens.

    Times are the engine's own to the bit: an arrival may lie an ulp before another engine's boundary, and goes first.
    """
    rows = records.strides
    steps = []
    for row in np.flatnonzero(np.isin(rows["instance"], list(instances))):
        assert rows["first_step_s"][row] == rows["last_step_s"][row]  # every stage takes a constant time
        stride = Stride(float(rows["start_s"][row]), float(rows["first_step_s"][row]))
        assert stride.end_s(int(rows["steps"][row])) == rows["end_s"][row]
        prefills = rows["prefill_tokens"][row] > 0
        tokens = int(rows["prefill_tokens"][row] + rows["decode_seqs"][row])
        for step in range(rows["steps"][row]):
            steps.append((stride.end_s(step), int(rows["instance"][row]), prefills, stride.end_s(step + 1), tokens))
    return sorted(steps)


def _tandem(steps: list[Any], cost: PipelinedCost) -> list[float]:
    """When each of them ends: every server takes one at a time, first planned, first served."""
    host: Any = cost._host
    busy_s = dict.fromkeys(range(-1, len(cost.stages)), -1.0)
    ends_s = []
    for start_s, _, prefills, _, tokens in steps:
        begun_s = max(start_s, busy_s[-1])
        waited_s = host.gap_s + (0.0 if host.asynchronous else host.step_s)
        hidden_s = host.step_s if host.asynchronous else 0.0
        busy_s[-1] = begun_s + max(waited_s, hidden_s)
        clock_s = begun_s + waited_s
        for stage, one in enumerate(cost.stages):
            clock_s += cost.send_s(tokens) if stage else 0.0
            clock_s = max(clock_s, busy_s[stage]) + (one.prefill_s if prefills else one.decode_s)  # type: ignore[attr-defined]
            busy_s[stage] = clock_s
        ends_s.append(max(clock_s, busy_s[-1]))
    return ends_s


def _requests(count: int, output: int = 41, gap_s: float = 0.0) -> tuple[Asked, ...]:
    return tuple(Asked(number * gap_s, 1, output, output) for number in range(count))


def _pipeline(*decode_s: float) -> PipelinedCost:
    return PipelinedCost([FixedCost(each, each) for each in decode_s], no_time)


def test_two_busy_engines_keep_both_stages_busy() -> None:
    """A request alone takes two stages a token; with one in each engine the tokens come twice as often together."""
    alone = Assembly(Case(_requests(1), _pipeline(0.25, 0.25))).run().requests["finish_s"]
    both = Assembly(Case(_requests(2), _pipeline(0.25, 0.25))).run().requests["finish_s"]
    assert alone[0] == 41 * 0.5
    assert both.tolist() == [41 * 0.5, 41 * 0.5 + 0.25]


def test_the_slowest_stage_sets_the_pace() -> None:
    """Two engines, stages of 1/8 and 3/8 s: a step of either ends every 3/8 s."""
    finish_s = Assembly(Case(_requests(2), _pipeline(0.125, 0.375))).run().requests["finish_s"]
    assert finish_s.tolist() == [0.125 + 0.375 * 81, 0.125 + 0.375 * 82]


def test_an_engine_that_is_alone_strides() -> None:
    records = Assembly(Case(_requests(1), _pipeline(0.25, 0.25))).run()
    assert records.strides["steps"].tolist() == [1, 40]


def test_the_step_under_way_is_finished_before_another_engine_gets_the_stage() -> None:
    """The second request comes in the first stage of the first one's step, and waits until it is through."""
    case = Case((Asked(0.0, 1, 41, 41), Asked(5.125, 1, 1, 1)), _pipeline(0.25, 0.25))
    records = Assembly(case).run()
    assert records.requests["first_token_s"][1] == 5.25 + 0.5
    steps = records.strides["steps"][records.strides["instance"] == 0].tolist()
    assert steps[:2] == [1, 10] and sum(steps) == 41


@pytest.mark.parametrize(("arrival_s", "first_token_s"), [(np.nextafter(5.0, 0), 5.5), (5.0, 5.75)])
def test_who_wakes_before_a_boundary_goes_before_the_next_step_and_at_it_behind(
    arrival_s: float, first_token_s: float
) -> None:
    """At 5 s the first engine's step ends, and both stages are free; an ulp decides who of the two gets them first."""
    case = Case((Asked(0.0, 1, 41, 41), Asked(float(arrival_s), 1, 1, 1)), _pipeline(0.25, 0.25))
    strided_equals_single(case)
    assert Assembly(case).run().requests["first_token_s"][1] == pytest.approx(first_token_s, rel=1e-12)


def test_the_step_under_way_takes_its_place_with_the_context_that_it_has_by_then() -> None:
    """Stages of ``attended + 1`` units: at 1,000 tokens of context the second request waits for a long first stage."""
    stage = LinesCost(UNIT_S, ((0, 1),))
    cost = PipelinedCost([stage, stage], no_time)
    first = Asked(0.0, 1000, 41, 41)
    began_s = [2 * (3 * 1000 + 1) * UNIT_S]  # of the decode steps; the prefill has 3 units a token, and one that emits
    for step in range(9):
        began_s.append(began_s[-1] + 2 * (1001 + step + 1) * UNIT_S)
    arrival_s = began_s[-1] + UNIT_S
    records = Assembly(Case((first, Asked(arrival_s, 1, 1, 1)), cost)).run()
    freed_s = began_s[-1] + (1001 + 9 + 1) * UNIT_S
    second_stage_s = freed_s + (1001 + 9 + 1) * UNIT_S
    assert records.requests["first_token_s"][1] == second_stage_s + 4 * UNIT_S


def test_another_engine_may_wake_between_a_step_and_the_plan_after_it() -> None:
    """In a closed loop engine 0 wakes on a boundary of engine 1, after the end of its step and before its plan."""
    requests = (Asked(0.0, 1, 1, 1), Asked(0.0, 1, 41, 41), Asked(0.0, 1, 9, 9))
    case = Case(requests, _pipeline(0.25, 0.25), concurrency=2, think_s=2.25)
    strided_equals_single(case)
    records = Assembly(case).run()
    assert records.requests["instance"].tolist() == [0, 1, 0]
    assert records.requests["arrival_s"][2] in records.strides["end_s"][records.strides["instance"] == 1]


def test_requests_go_to_the_engine_with_the_fewest_unfinished() -> None:
    case = Case(
        (Asked(0.0, 1, 40, 40), Asked(0.0, 1, 2, 2), Asked(0.0, 1, 40, 40), Asked(3.0, 1, 2, 2)),
        _pipeline(0.125, 0.125),
    )
    assert Assembly(case).run().requests["instance"].tolist() == [0, 1, 0, 1]


def test_several_pipelined_instances_do_not_touch_each_other() -> None:
    two = Assembly(Case(_requests(4), _pipeline(0.25, 0.25), instances=2)).run()
    assert two.requests["instance"].tolist() == [0, 2, 1, 3]
    one = Assembly(Case(_requests(2), _pipeline(0.25, 0.25))).run()
    assert two.requests["finish_s"].tolist() == np.repeat(one.requests["finish_s"], 2).tolist()


def test_one_stage_is_no_pipeline() -> None:
    case = Case(_requests(6, gap_s=0.75), FixedCost(0.25, 0.125), max_num_seqs=2)
    lone = replace(case, cost=PipelinedCost([case.cost], no_time))
    same_bits(Assembly(case).run(), Assembly(lone).run())
