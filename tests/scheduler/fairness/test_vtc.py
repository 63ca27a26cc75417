"""Virtual token counters and their rivals: who is served next, and how unequal service can get."""

from __future__ import annotations

from typing import Any

import pytest
from by_hand import ByHand
from drawn import cases
from hardened import hardened, strides_are_exact
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from servsim.request import Sequence
from servsim.scheduler.engines.fcfs import Fcfs
from servsim.scheduler.fairness.deficit_round_robin import DeficitRoundRobin
from servsim.scheduler.fairness.rpm_limit import RpmLimit
from servsim.scheduler.fairness.vtc import Lcf, Vtc, VtcPredictive

A, B = 0, 1


def arrive(hand: ByHand, tenant: int, prompt: int = 10, predicted: float = 0.0) -> Sequence:
    number = hand.arrivals
    sequence = Sequence(number, float(number), prompt, 1024, tenant, 0, 0, (), predicted)
    hand.arrivals += 1
    hand.policy.add(sequence)
    return sequence


def counter(hand: ByHand, tenant: int) -> float:
    order = hand.policy.queue
    return float(order.counter(order.ledger.account(tenant), order.ledger.settle()))


def one_place(policy: type, **parameters: Any) -> ByHand:
    settings = policy.Parameters(**parameters) if parameters else None  # type: ignore[attr-defined]
    return ByHand(policy, max_num_seqs=1, parameters=settings)


def steps(hand: ByHand, count: int) -> None:
    for _ in range(count):
        hand.step()


def test_a_tenant_that_joins_is_lifted_and_a_tie_goes_to_the_older() -> None:
    hand = one_place(Vtc)
    first, _second, _third = (arrive(hand, A) for _ in range(3))
    hand.step()
    assert counter(hand, A) == 10
    steps(hand, 5)
    assert counter(hand, A) == 20
    joined = arrive(hand, B)
    hand.plan()
    assert counter(hand, B) == 20
    hand.finish(first)
    assert [one.tenant for one in hand.step()] == [A]
    assert counter(hand, A) == 30
    hand.finish(next(iter(hand.running.sequences)))
    assert list(hand.step()) == [joined]


def test_without_the_lift_an_idle_tenant_has_saved_up_its_turns() -> None:
    served = {}
    for policy in (Vtc, Lcf):
        hand = one_place(policy)
        for _ in range(6):
            arrive(hand, A, 100)
        for _ in range(3):
            hand.step()
            hand.finish(next(iter(hand.running.sequences)))
        for _ in range(3):
            arrive(hand, B, 100)
        order = []
        for _ in range(4):
            order += [one.tenant for one in hand.step()]
            hand.finish(next(iter(hand.running.sequences)))
        served[policy] = order
    assert served == {Vtc: [A, B, A, B], Lcf: [B, B, B, A]}


def test_nobody_is_lifted_when_no_other_tenant_waits() -> None:
    hand = one_place(Vtc)
    arrive(hand, A)
    hand.step()
    arrive(hand, B)
    hand.plan()
    assert counter(hand, B) == 0


def test_fcfs_keeps_to_arrivals_where_vtc_takes_turns() -> None:
    def order(policy: type) -> list[int]:
        hand = ByHand(policy, max_num_seqs=4)
        for tenant in (A, A, A, B, B):
            arrive(hand, tenant)
        return [one.tenant for one in hand.step()]

    assert order(Fcfs) == [A, A, A, B]
    assert order(Vtc) == [A, B, A, B]  # each admission is charged before the next is chosen


def test_no_other_tenant_is_tried_when_the_head_does_not_fit() -> None:
    hand = ByHand(Vtc, usable_blocks=10, block_size=4)
    running = arrive(hand, B, 20)
    hand.step()
    arrive(hand, A, 39)
    arrive(hand, B, 1)
    assert hand.step() == {running: 1}
    assert hand.policy.waiting == 2


def test_the_token_of_the_prefill_is_free_unless_it_is_asked_for() -> None:
    for charged, expected in ((False, 10), (True, 12)):
        hand = one_place(Vtc, prefill_token_charged=charged)
        arrive(hand, A)
        hand.step()
        assert counter(hand, A) == expected


def test_weights_divide_the_charge() -> None:
    hand = one_place(Vtc, weights=(4.0,))
    arrive(hand, A)
    steps(hand, 3)
    assert counter(hand, A) == (10 + 2 * 2) / 4


def test_the_code_charges_all_who_decode_again_when_one_ends() -> None:
    for double, expected in ((False, 10 + 10 + 2 * 6), (True, 10 + 10 + 2 * 6 + 2 * 2)):
        hand = ByHand(Vtc, parameters=Vtc.Parameters(double_charge_on_finish=double))
        first, _ = arrive(hand, A), arrive(hand, A)
        steps(hand, 4)
        hand.finish(first)
        assert counter(hand, A) == expected


def test_the_order_stays_until_two_counters_cross() -> None:
    hand = ByHand(Vtc, usable_blocks=20, block_size=4)
    arrive(hand, B, 30)
    hand.step()
    hand.finish(next(iter(hand.running.sequences)))
    arrive(hand, A, 20)
    hand.step()
    arrive(hand, A, 79)
    arrive(hand, B, 79)  # at 30, more than A has
    hand.plan()
    promised = hand.policy.stable_steps()
    assert promised == 4  # A has 20 + 2 k, so they are equal after 5; one less is promised, for rounding
    heads = []
    for _ in range(7):
        hand.plan()
        heads.append(hand.policy.head().tenant)
        hand.step()
    assert heads == [A, A, A, A, A, B, B]  # a tie goes to B, which came first


def test_counters_that_move_apart_never_change_the_head() -> None:
    hand = ByHand(Vtc, usable_blocks=20, block_size=4)
    arrive(hand, A, 20)
    hand.step()
    for tenant in (A, B):
        arrive(hand, tenant, 79)
    hand.step()
    hand.plan()
    assert hand.policy.head().tenant == B and counter(hand, A) == 22
    assert hand.policy.stable_steps() > 1 << 50


def test_the_prediction_is_charged_at_admission_and_the_rest_refunded() -> None:
    hand = one_place(VtcPredictive, prediction="predictor")
    one = arrive(hand, A, predicted=5.0)
    hand.step()
    assert counter(hand, A) == 10 + 2 * 5
    steps(hand, 3)
    assert counter(hand, A) == 20
    hand.finish(one)
    assert counter(hand, A) == 10 + 2 * 3
    arrive(hand, A, predicted=2.0)
    hand.step()
    steps(hand, 5)  # three beyond the prediction
    assert counter(hand, A) == 16 + 10 + 2 * 5


def test_the_average_starts_at_the_first_length_and_follows_by_a_fifth() -> None:
    hand = one_place(VtcPredictive)
    for length, expected in ((10, 10.0), (20, 12.0)):
        one = arrive(hand, A)
        steps(hand, length)
        hand.finish(one)
        assert hand.policy.queue._averages[A] == expected


@examples(30)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 30)), min_size=60, max_size=60), st.integers(1, 6))
def test_service_of_two_backlogged_tenants_differs_by_the_bound_at_most(sizes: list, places: int) -> None:
    """2 max(w_p P_max, w_q Mem), Mem in tokens."""
    blocks = 30
    hand = ByHand(Vtc, max_num_seqs=places, usable_blocks=blocks, block_size=4)
    lengths = {}
    for number, (prompt, output) in enumerate(sizes):
        lengths[arrive(hand, number % 3 == 0, prompt)] = output
    bound = 2 * max(1 * 40, 2 * 4 * blocks)
    while len({one.tenant for one in _waiting(hand)}) == 2:
        assert abs(counter(hand, A) - counter(hand, B)) <= bound
        hand.step()
        for one in list(hand.running.sequences):
            if hand.running.generated_tokens(one) >= lengths[one]:
                hand.finish(one)


def _waiting(hand: ByHand) -> list[Sequence]:
    order = hand.policy.queue
    order.refresh(0.0)
    return [one for account in order._waiting.values() for one in account.line]


def test_deficit_round_robin_serves_a_quantum_and_passes_the_turn_on() -> None:
    hand = one_place(DeficitRoundRobin, quantum=20)
    for tenant in (A, A, A, A, B, B, B, B):
        arrive(hand, tenant, 10)
    order = []
    for _ in range(8):
        order += [one.tenant for one in hand.step()]
        hand.finish(next(iter(hand.running.sequences)))
    assert order == [A, A, B, B, A, A, B, B]


def test_a_deficit_of_many_quanta_is_made_up_at_once_and_in_the_same_order() -> None:
    hand = ByHand(DeficitRoundRobin, max_num_seqs=1, parameters=DeficitRoundRobin.Parameters(quantum=1e0, w_p=1e6))
    for tenant, prompt in ((A, 30), (A, 1), (B, 20), (B, 1)):
        arrive(hand, tenant, prompt)
    order = []
    for _ in range(4):
        order += [one.tenant for one in hand.step()]
        hand.finish(next(iter(hand.running.sequences)))
    assert order == [A, B, B, A]


@pytest.mark.parametrize("kind", [Vtc, DeficitRoundRobin])
def test_a_tenant_without_a_share_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        kind.Parameters(weights=(1.0, 0.0))


def test_deficit_round_robin_keeps_the_turn_of_a_head_that_waits_for_memory() -> None:
    hand = ByHand(DeficitRoundRobin, usable_blocks=10, block_size=4, parameters=DeficitRoundRobin.Parameters(quantum=5))
    running = arrive(hand, A, 20)
    hand.step()
    large = arrive(hand, B, 39)
    hand.step()
    arrive(hand, A, 1)
    steps(hand, 3)
    assert hand.policy.head() is large
    hand.finish(running)
    assert large in hand.step()


def test_more_requests_a_minute_than_allowed_are_rejected() -> None:
    hand = ByHand(RpmLimit, parameters=RpmLimit.Parameters(requests_per_minute=2))

    def taken(at_s: float, tenant: int) -> bool:
        return bool(hand.policy.accepts(Sequence(0, at_s, 1, 1, tenant, 0, 0, ())))

    assert [taken(at_s, A) for at_s in (0.0, 1.0, 2.0, 59.9, 60.0, 60.5, 61.0)] == [1, 1, 0, 0, 1, 0, 1]
    assert taken(2.0, B)


KINDS = {
    "vtc": lambda draw: hardened(
        Vtc,
        Vtc.Parameters(
            weights=(1, 2.5),
            double_charge_on_finish=draw(st.booleans()),
            prefill_token_charged=draw(st.booleans()),
        ),
        tenants=draw(st.sampled_from([2, 3, 5])),
    ),
    "vtc_predictive": lambda draw: hardened(
        VtcPredictive,
        VtcPredictive.Parameters(prediction=draw(st.sampled_from(["ema", "predictor"]))),
        tenants=draw(st.sampled_from([2, 3, 5])),
    ),
    "lcf": lambda draw: hardened(Lcf, None, tenants=3),
    "deficit_round_robin": lambda draw: hardened(
        DeficitRoundRobin,
        DeficitRoundRobin.Parameters(quantum=draw(st.sampled_from([1, 20, 300]))),
        tenants=draw(st.sampled_from([2, 3, 5])),
    ),
    "rpm_limit": lambda draw: hardened(RpmLimit, RpmLimit.Parameters(requests_per_minute=100), tenants=2),
}


@pytest.mark.parametrize("name", KINDS)
def test_strides_are_exact_and_nothing_is_lost(name: str) -> None:
    @examples(15)
    @given(cases(), st.data())
    def hold(case: Any, data: Any) -> None:
        strides_are_exact(case, KINDS[name](data.draw))

    hold()
