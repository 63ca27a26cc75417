"""vLLM v1 with its knobs: priority mode, and prefills that stand half done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from by_hand import ByHand
from case import Asked, Case
from checks import nothing_is_lost, planning_leaves_no_trace, same_bits, strided_equals_single
from drawn import cases
from hypothesis import given
from profiles import examples
from variants import variant

from servsim.cost.fixed import FixedCost
from servsim.metrics.token_times import token_times
from servsim.request import Sequence
from servsim.scheduler.engines.vllm_v1 import VllmV1, VllmV1Parameters
from servsim.scheduler.orders import KeyOrder
from servsim.scheduler.policy import Surroundings

PRIORITY = VllmV1Parameters(scheduling_policy="priority")


def threshold(tokens: int, policy: str = "fcfs") -> VllmV1Parameters:
    return VllmV1Parameters.model_validate({"long_prefill_token_threshold": tokens, "scheduling_policy": policy})


def arrive(engine: ByHand, prompt: int, priority: int) -> Sequence:
    """A sequence with a priority."""
    sequence = Sequence(engine.arrivals, float(engine.arrivals), prompt, 1024, 0, 0, priority, ())
    engine.arrivals += 1
    engine.policy.add(sequence)
    return sequence


def test_without_a_threshold_the_first_takes_what_is_left_of_the_budget() -> None:
    engine = ByHand(VllmV1, budget=512)
    r1, r2 = engine.arrive(8), engine.arrive(8)
    engine.step()
    w1, w2 = engine.arrive(600), engine.arrive(100)
    assert engine.step() == {r1: 1, r2: 1, w1: 510}
    assert engine.step() == {r1: 1, r2: 1, w1: 90, w2: 100}


def test_with_a_threshold_the_second_goes_beside_the_first_and_emits_before_it() -> None:
    engine = ByHand(VllmV1, budget=512, parameters=threshold(256))
    r1, r2 = engine.arrive(8), engine.arrive(8)
    engine.step()
    w1, w2 = engine.arrive(600), engine.arrive(100)
    assert engine.step() == {r1: 1, r2: 1, w1: 256, w2: 100}
    assert engine.running.generated_tokens(w2) == 1
    assert engine.step() == {r1: 1, r2: 1, w1: 256, w2: 1}
    assert engine.step() == {r1: 1, r2: 1, w1: 88, w2: 1}


def test_several_prefills_stand_half_done_and_go_on_in_list_order() -> None:
    engine = ByHand(VllmV1, budget=100, parameters=threshold(40))
    a, b, c, d = (engine.arrive(tokens) for tokens in (90, 90, 90, 5))
    assert engine.step() == {a: 40, b: 40, c: 20}
    assert list(engine.running.prefilling) == [a, b, c]
    assert engine.step() == {a: 40, b: 40, c: 20}
    assert engine.step() == {a: 10, b: 10, c: 40, d: 5}
    assert engine.step() == {a: 1, b: 1, c: 10, d: 1}


def test_a_decoder_behind_long_prefills_misses_the_step_when_they_use_up_the_budget() -> None:
    engine = ByHand(VllmV1, budget=10, parameters=threshold(4))
    a, b = engine.arrive(13), engine.arrive(2)
    assert engine.step() == {a: 4, b: 2}
    c, d = engine.arrive(8), engine.arrive(1)
    assert engine.step() == {a: 4, b: 1, c: 4, d: 1}
    e, f = engine.arrive(8), engine.arrive(8)
    assert engine.step() == {a: 4, b: 1, c: 4, d: 1}  # ten: e and f are not let in
    assert engine.step() == {a: 1, b: 1, c: 1, d: 1, e: 4, f: 2}
    assert engine.step() == {a: 1, b: 1, c: 1, d: 1, e: 4, f: 2}
    ahead = ByHand(VllmV1, budget=9, parameters=threshold(4))
    long, middle, decoder = ahead.arrive(30), ahead.arrive(30), ahead.arrive(1)
    assert ahead.step() == {long: 4, middle: 4, decoder: 1}
    late = ahead.arrive(1)
    assert ahead.step() == {long: 4, middle: 4, decoder: 1}
    del late
    ahead.policy.max_num_batched_tokens = 8
    assert ahead.step() == {long: 4, middle: 4}
    assert not ahead.last.decode and not ahead.last.left_out  # nobody decodes: all of them stall


def test_those_that_miss_a_step_are_the_last_of_the_list() -> None:
    engine = ByHand(VllmV1, budget=12, parameters=threshold(4))
    first = engine.arrive(1)
    engine.step()
    long, middle, last = engine.arrive(40), engine.arrive(40), engine.arrive(2)
    assert engine.step() == {first: 1, long: 4, middle: 4, last: 2}
    engine.policy.max_num_batched_tokens = 9
    assert engine.step() == {first: 1, long: 4, middle: 4}
    assert list(engine.last.left_out) == [last]
    engine.policy.max_num_batched_tokens = 12
    assert engine.step() == {first: 1, long: 4, middle: 4, last: 1}


def test_the_most_urgent_goes_first_and_equals_by_arrival() -> None:
    def admitted(parameters: VllmV1Parameters) -> list[int]:
        engine = ByHand(VllmV1, max_num_seqs=3, parameters=parameters)
        for priority in (2, 0, 5, 0):
            arrive(engine, 8, priority)
        return [one.request_id for one in engine.step()]

    assert admitted(PRIORITY) == [1, 3, 0]
    assert admitted(VllmV1Parameters()) == [0, 1, 2]


def test_the_least_urgent_is_preempted_wherever_it_stands_and_waits_by_its_priority() -> None:
    engine = ByHand(VllmV1, usable_blocks=6, block_size=4, parameters=PRIORITY)
    ids = [arrive(engine, 8, priority) for priority in (9, 1, 5)]
    engine.step()
    urgent = arrive(engine, 8, 7)
    engine.step()
    assert list(engine.last.preempted) == [ids[0]]
    assert engine.policy.head() is urgent
    of_equals = ByHand(VllmV1, usable_blocks=6, block_size=4, parameters=PRIORITY)
    equals = [arrive(of_equals, 8, 3) for _ in range(3)]
    of_equals.step()
    of_equals.step()
    assert list(of_equals.last.preempted) == [equals[2]]  # the latest arrival


def test_another_order_may_be_given_in_place_of_the_parameter() -> None:
    def shortest_prompt(surroundings: Surroundings) -> VllmV1:
        return VllmV1(surroundings, KeyOrder(lambda one: one.prompt_tokens))

    engine = ByHand(shortest_prompt, budget=10, parameters=threshold(4))
    long, short = engine.arrive(9), engine.arrive(3)
    assert engine.step() == {short: 3, long: 4}


def test_a_run_worked_by_hand() -> None:
    """A step with prefill takes 1/4 s, one without 1/8 s: the threshold lets the short one through, fcfs does not."""
    requests = (Asked(0.0, 12, 2, 2), Asked(0.0, 2, 2, 2))
    case = Case(requests, FixedCost(1 / 4, 1 / 8), max_num_batched_tokens=8)
    from assembly import Assembly

    with variant({"v1": (VllmV1, threshold(6), 1000)}) as names:
        records = Assembly(replace(case, policy=names["v1"])).run()
    assert token_times(records, 0).tolist() == [0.5, 0.625]
    assert token_times(records, 1).tolist() == [0.25, 0.5]
    records = Assembly(replace(case, policy="fcfs")).run()
    assert token_times(records, 1).tolist() == [0.5, 0.625]


@pytest.mark.parametrize(
    ("arrival_s", "seen_s", "seen_late_s"),
    [(0.25, 0.25, 0.375), (0.3, 0.375, 0.5), (0.375, 0.375, 0.5), (2.0, 2.0, 2.0)],
)
def test_an_asynchronous_plan_sees_what_had_arrived_when_the_step_before_began(
    arrival_s: float, seen_s: float, seen_late_s: float
) -> None:
    """Steps begin at 0, 1/4, 3/8, 1/2, ...; by 2 s the first request has ended and nothing is under way."""
    from assembly import Assembly

    case = Case((Asked(0.0, 4, 8, 8), Asked(arrival_s, 4, 2, 2)), FixedCost(1 / 4, 1 / 8))
    kinds = {"sync": (VllmV1, None, 1000), "async": (VllmV1, VllmV1Parameters(async_scheduling=True), 1000)}
    with variant(kinds) as names:
        found = [Assembly(replace(case, policy=names[kind])).run().requests["scheduled_s"][1] for kind in kinds]
    assert found == [seen_s, seen_late_s]


class ByNumber(VllmV1):
    """Requests of drawn cases get priorities."""

    def add(self, sequence: Sequence) -> None:
        sequence.priority = sequence.request_id % 3
        super().add(sequence)


KINDS = {
    "v1": (VllmV1, VllmV1Parameters(), 1000),
    "threshold": (VllmV1, threshold(3), 1000),
    "priority": (ByNumber, PRIORITY, 1000),
    "both": (ByNumber, threshold(2, "priority"), 1000),
    "async": (VllmV1, VllmV1Parameters(async_scheduling=True), 1000),
}


@pytest.fixture(scope="module")
def policies() -> Iterator[dict[str, str]]:
    with variant(KINDS) as names:
        yield names


@pytest.mark.parametrize("kind", KINDS)
def test_strides_are_exact_and_nothing_is_lost(kind: str, policies: dict[str, str]) -> None:
    @examples(20)
    @given(cases(policy="fcfs"))
    def hold(case: Case) -> None:
        case = replace(case, policy=policies[kind])
        strided_equals_single(case)
        nothing_is_lost(case)
        planning_leaves_no_trace(case)

    hold()


def test_by_default_it_is_fcfs_to_the_bit(policies: dict[str, str]) -> None:
    from assembly import Assembly

    @examples(20)
    @given(cases(policy="fcfs"))
    def hold(case: Case) -> None:
        same_bits(Assembly(case).run(), Assembly(replace(case, policy=policies["v1"])).run())

    hold()


def test_the_fast_way_and_the_walk_agree_where_the_budget_lasts(policies: dict[str, str]) -> None:
    """A plan with a threshold is what a walk down the list gives, admissions aside."""

    def walked(policy: Any) -> None:
        plan = policy.plan

        def checked(now_s: float) -> Any:
            found = plan(now_s)
            if not found.preempted and policy.running.sequences:
                walk = policy._walk()
                going_on = list(found.prefills)[: len(found.prefills) - found.admitted]
                assert (list(walk.prefills), walk.decode, list(walk.left_out)) == (
                    going_on,
                    found.decode,
                    list(found.left_out),
                )
            return found

        policy.plan = checked

    from assembly import Assembly

    @examples(20)
    @given(cases(policy="fcfs"))
    def hold(case: Case) -> None:
        Assembly(replace(case, policy=policies["threshold"]), change=walked).run()

    hold()
