"""vLLM v0: prefill or decode, one free block for each, recompute and swap."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from assembly import Assembly
from by_hand import ByHand
from case import Asked, Case
from checks import nothing_is_lost, planning_leaves_no_trace, strided_equals_single
from drawn import cases
from hypothesis import given
from profiles import examples
from variants import variant

from servsim.cost.fixed import FixedCost
from servsim.metrics.token_times import all_token_times, token_times
from servsim.records import STATUSES
from servsim.request import Sequence
from servsim.scheduler import Plan
from servsim.scheduler.engines.fcfs import Fcfs
from servsim.scheduler.engines.vllm_v0 import VllmV0, VllmV0Parameters
from servsim.scheduler.orders import KeyOrder
from servsim.scheduler.policy import Surroundings


def settings(**values: Any) -> VllmV0Parameters:
    return VllmV0Parameters.model_validate({"watermark": 0.0, **values})


def small(**values: Any) -> ByHand:
    """Ten blocks of four tokens, a watermark of one."""
    return ByHand(VllmV0, usable_blocks=10, block_size=4, parameters=settings(watermark=0.1, **values))


class Swapping(ByHand):
    """Carries swaps out besides."""

    def _begin(self, plan: Plan) -> None:
        for sequence in plan.swapped_out:
            self._leave(sequence)
            self.running.remove(sequence)
        super()._begin(plan)
        for sequence in plan.swapped_in:
            self.running.admit(sequence)
            del self.running.prefilling[sequence]
            self._join(sequence)


def swapping(blocks: int, **values: Any) -> Swapping:
    """Blocks of four tokens, one byte a token, one byte a second."""

    def made(surroundings: Surroundings) -> VllmV0:
        return VllmV0(replace(surroundings, kv_bytes_per_token=1))

    values = {"preemption_mode": "swap", "copy_bandwidth_gb_per_s": 1e-9, "copy_launch_s": 0, **values}
    return Swapping(made, usable_blocks=blocks, block_size=4, parameters=settings(**values))


def test_eight_iterations_near_capacity() -> None:
    engine = small()
    a, b, c = engine.arrive(12), engine.arrive(12), engine.arrive(10)
    free = lambda: engine.memory.free_blocks  # noqa: E731
    assert engine.step() == {a: 12, b: 12, c: 10} and not engine.last.decode  # 1
    assert free() == 1
    assert engine.step() == {a: 1, b: 1}  # 2: a takes the last block, b finds none, c goes
    assert list(engine.last.preempted) == [c] and free() == 2
    for _ in range(4):  # 3 to 6: c needs three, 2 - 3 < 1
        assert engine.step() == {a: 1, b: 1}
        assert engine.policy.head() is c
    assert [a.prompt_tokens + engine.running.generated_tokens(one) for one in (a, b)] == [18, 18]
    assert free() == 0
    assert engine.step() == {a: 1}  # 7: a needs no block, and yet b goes for want of a free one
    assert list(engine.last.preempted) == [b] and free() == 5
    assert engine.policy.head() is b  # in front of c
    assert engine.step() == {a: 1}  # 8: five blocks for b's 18 tokens, 5 - 5 < 1; c, who needs three, is not tried
    assert engine.policy.waiting == 2


def test_fcfs_would_have_kept_b_in_the_seventh_iteration() -> None:
    engine = ByHand(Fcfs, usable_blocks=10, block_size=4)
    a, b, _ = engine.arrive(12), engine.arrive(12), engine.arrive(10)
    for _ in range(6):
        engine.step()
    assert engine.step() == {a: 1, b: 1}


def test_of_several_victims_the_oldest_ends_up_first_in_line() -> None:
    engine = ByHand(VllmV0, usable_blocks=8, block_size=4, parameters=settings())
    a, b, c, d = (engine.arrive(8) for _ in range(4))
    assert engine.step() == {a: 8, b: 8, c: 8, d: 8}
    assert engine.step() == {a: 1, b: 1}  # d goes for a and b; c for itself, two blocks of d's are used up
    assert list(engine.last.preempted) == [d, c]
    assert [engine.policy.queue.peek(place) for place in (0, 1)] == [c, d]


def test_prompts_stall_decoders_and_nothing_is_padded() -> None:
    engine = ByHand(VllmV0, budget=512)
    decoder = engine.arrive(8)
    engine.step()
    long, short, last = engine.arrive(400), engine.arrive(100), engine.arrive(20)
    assert engine.step() == {long: 400, short: 100}  # 500 without padding, 800 with it
    assert not engine.last.decode
    assert engine.step() == {last: 20}
    assert engine.step() == {decoder: 1, long: 1, short: 1, last: 1}


def test_a_prompt_longer_than_the_budget_goes_by_itself() -> None:
    engine = ByHand(VllmV0, budget=512)
    short, long = engine.arrive(8), engine.arrive(1000)
    engine.arrive(8)
    assert engine.step() == {short: 8}
    assert engine.step() == {long: 1000}


def test_later_and_never() -> None:
    engine = small()
    a = engine.arrive(16)
    engine.step()
    later = Sequence(7, 7.0, 24, 100, 0, 0, 0, ())  # six blocks: 6 - 6 < 1
    assert engine.policy.accepts(later)
    engine.policy.add(later)
    engine.arrive(4)
    assert engine.step() == {a: 1} and engine.policy.head() is later and engine.policy.waiting == 2
    assert engine.policy.accepts(Sequence(8, 8.0, 36, 100, 0, 0, 0, ()))
    assert not engine.policy.accepts(Sequence(9, 9.0, 37, 100, 0, 0, 0, ()))  # ten blocks: 10 - 10 < 1


def test_one_that_can_never_be_let_in_is_rejected_and_counted() -> None:
    with variant({"v0": (VllmV0, settings(watermark=0.1), 1000)}) as names:
        requests = (Asked(0.0, 37, 1, 1), Asked(0.0, 4, 1, 1))
        case = Case(requests, FixedCost(1.0, 1.0), policy=names["v0"], num_blocks=11, block_size=4)
        records = Assembly(case).run()
    assert [STATUSES[code] for code in records.requests["status"]] == ["rejected", "finished"]


def test_max_num_seqs_bounds_the_running_ones() -> None:
    engine = ByHand(VllmV0, max_num_seqs=2)
    a, b, c = engine.arrive(4), engine.arrive(4), engine.arrive(4)
    assert engine.step() == {a: 4, b: 4}
    assert engine.step() == {a: 1, b: 1}
    engine.finish(a)
    assert engine.step() == {c: 4}


def test_a_lone_sequence_is_not_preempted_for_a_block_that_it_does_not_need() -> None:
    engine = ByHand(VllmV0, usable_blocks=2, block_size=4, parameters=settings())
    a = engine.arrive(5)
    assert engine.step() == {a: 5}
    assert [engine.step() for _ in range(3)] == [{a: 1}] * 3


def test_any_order_goes_with_it_and_says_who_is_the_victim() -> None:
    def shortest_first(surroundings: Surroundings) -> VllmV0:
        return VllmV0(surroundings, KeyOrder(lambda one: one.predicted_tokens))

    engine = ByHand(shortest_first, usable_blocks=4, block_size=4, parameters=settings())
    long, short = engine.arrive(8, predicted=900), engine.arrive(8, predicted=9)
    assert list(engine.step()) == [short, long]
    assert engine.step() == {short: 1}
    assert list(engine.last.preempted) == [long]


def test_a_victim_is_copied_out_and_comes_back_before_any_newcomer() -> None:
    engine = swapping(6)
    a, b = engine.arrive(8), engine.arrive(12)
    engine.step()
    assert engine.memory.free_blocks == 1
    assert engine.step() == {a: 1}
    assert list(engine.last.swapped_out) == [b] and engine.last.copy_s == 12.0  # three blocks of four bytes
    new = engine.arrive(1)
    assert engine.policy.waiting == 2 and engine.policy.head() is b
    assert engine.step() == {a: 1}  # three blocks are free, three and one are asked; the newcomer is not tried
    engine.finish(a)
    assert engine.step() == {b: 1}
    assert list(engine.last.swapped_in) == [b] and engine.last.copy_s == 12.0
    assert engine.running.generated_tokens(b) == 2 and engine.running.kv_tokens(b) == 13
    assert engine.step() == {new: 1} and not engine.last.decode


def test_where_the_swap_space_is_full_the_victim_is_recomputed() -> None:
    for space, kept in ((11, False), (12, True)):
        engine = swapping(6, swap_space_gib=space / 2**30)
        engine.arrive(8)
        b = engine.arrive(12)
        engine.step()
        engine.step()
        assert list(engine.last.swapped_out if kept else engine.last.preempted) == [b]
        assert b.kv_tokens == (12 if kept else 0)


def test_prompts_are_held_back_until_the_delay_is_over() -> None:
    """A prefill takes 1/2 s and a decode 1/8 s: with a factor of 3/4 the second waits 3/8 s from its arrival."""
    requests = (Asked(0.0, 4, 20, 20), Asked(0.8125, 4, 1, 1))
    case = Case(requests, FixedCost(1 / 2, 1 / 8))
    scheduled = {}
    for factor in (0.0, 0.75):
        with variant({"v0": (VllmV0, settings(delay_factor=factor), 1000)}) as names:
            scheduled[factor] = Assembly(replace(case, policy=names["v0"])).run().requests["scheduled_s"][1]
    # 0.8125 + 0.375 = 1.1875, and the next boundary is at 1.25
    assert scheduled == {0.0: 0.875, 0.75: 1.25}


def test_on_the_very_end_of_the_delay_they_are_still_held_back() -> None:
    requests = (Asked(0.0, 4, 20, 20), Asked(0.875, 4, 1, 1))
    case = Case(requests, FixedCost(1 / 2, 1 / 8))
    with variant({"v0": (VllmV0, settings(delay_factor=0.75), 1000)}) as names:
        case = replace(case, policy=names["v0"])
        for single in (False, True):
            assert Assembly(case, single=single).run().requests["scheduled_s"][1] == 1.375  # not 1.25


def test_a_run_worked_by_hand() -> None:
    """A prefill takes 1/4 s, a decode 1/8 s: the first one's decodes stall while the second is prefilled."""
    requests = (Asked(0.0, 4, 6, 6), Asked(0.3, 4, 3, 3))
    case = Case(requests, FixedCost(1 / 4, 1 / 8), policy="vllm_v0")
    records = Assembly(case).run()
    assert token_times(records, 0).tolist() == [0.25, 0.375, 0.75, 0.875, 1.0, 1.125]
    assert token_times(records, 1).tolist() == [0.625, 0.75, 0.875]
    mixed = Assembly(replace(case, policy="fcfs")).run()
    assert token_times(mixed, 0).tolist() == [0.25, 0.375, 0.625, 0.75, 0.875, 1.0]


def test_swapped_time_and_copies_are_in_the_records() -> None:
    requests = (Asked(0.0, 8, 4, 4), Asked(0.0, 12, 3, 3))
    kinds = {"v0": (VllmV0, settings(preemption_mode="swap", copy_bandwidth_gb_per_s=24e-9, copy_launch_s=0), 1000)}
    with variant(kinds, kv_bytes_per_token=1) as names:
        case = Case(requests, FixedCost(1 / 4, 1 / 8), policy=names["v0"], num_blocks=7, block_size=4)
        records = Assembly(case).run()
    assert token_times(records, 0).tolist() == [0.25, 0.875, 1.0, 1.125]  # its second token waits for the copy
    assert token_times(records, 1).tolist() == [0.25, 1.75, 1.875]  # copied back for half a second
    assert records.requests["transfer_wait_s"].tolist() == [0.0, 0.5]
    assert records.requests["preemptions"].tolist() == [0, 1]


KINDS = {
    "recompute": (VllmV0, settings(), 1000),
    "watermark": (VllmV0, settings(watermark=0.15), 1000),
    "swap": (VllmV0, settings(preemption_mode="swap", copy_bandwidth_gb_per_s=64e-9), 1000),
    "little space": (VllmV0, settings(preemption_mode="swap", swap_space_gib=20 / 2**30), 1000),
    "delay": (VllmV0, settings(delay_factor=0.7), 1000),
    "both": (VllmV0, settings(delay_factor=2.5, preemption_mode="swap", swap_space_gib=30 / 2**30), 1000),
}


@pytest.mark.parametrize("kind", KINDS)
def test_strides_are_exact_and_nothing_is_lost(kind: str) -> None:
    @examples(15)
    @given(cases(policy="fcfs"))
    def hold(case: Case) -> None:
        case = replace(case, policy=names[kind])
        strided_equals_single(case)
        nothing_is_lost(case)
        planning_leaves_no_trace(case)
        for number, times_s in all_token_times(Assembly(case).run()):
            assert len(times_s) == case.requests[number].output

    with variant(KINDS, kv_bytes_per_token=1) as names:
        hold()
