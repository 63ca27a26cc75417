"""Clairvoyant: three classes, promotion after tau at ticks, a queue that can be full."""

from __future__ import annotations

import pytest
from assembly import Assembly
from by_hand import ByHand
from case import Asked, Case
from clocked import Clocked, line_of
from exactly import holds, registered

from servsim.cost.fixed import FixedCost
from servsim.scheduler.engines.fcfs import Fcfs
from servsim.scheduler.lengths.clairvoyant import Clairvoyant


def waiting(*requests: tuple[float, float], policy: type = Clairvoyant, **parameters: object) -> Clocked:
    """Requests (arrival, prediction) that wait for a serial backend."""
    given = policy.Parameters(**parameters) if parameters else None
    engine = Clocked(policy, max_num_seqs=1, parameters=given)
    for at_s, predicted in requests:
        engine.arrive(8, predicted=predicted, at_s=at_s)
    return engine


def test_short_is_below_200_and_medium_below_800_and_each_is_first_in_first_out() -> None:
    requests = ((0.0, 800.0), (0.1, 799.0), (0.2, 200.0), (0.3, 199.0), (0.4, 5.0))
    assert line_of(waiting(*requests).policy.queue) == [3, 4, 1, 2, 0]
    assert line_of(waiting(*requests, policy=Fcfs).policy.queue) == [0, 1, 2, 3, 4]


def test_a_long_one_that_waited_tau_beats_a_newer_short_one() -> None:
    engine = waiting((0.0, 900.0), (14.0, 10.0))
    assert engine.admitted_at(14.9) == [1]
    engine = waiting((0.0, 900.0), (14.0, 10.0))
    assert engine.admitted_at(15.0) == [0]


def test_within_class_0_it_is_who_joined_first() -> None:
    engine = waiting((0.0, 900.0), (1.0, 10.0), (0.5, 300.0), (2.0, 20.0))
    engine.now_s = 16.0
    engine.plan()
    assert line_of(engine.policy.queue) == [0, 2, 1, 3]


@pytest.mark.parametrize(("now_s", "first"), [(15.3, 1), (15.9, 1), (16.0, 0)])
def test_promotions_happen_at_ticks_of_a_second(now_s: float, first: int) -> None:
    engine = waiting((0.3, 900.0), (14.0, 10.0))
    assert engine.policy.timer_s() == 16.0
    assert engine.admitted_at(now_s) == [first]


def test_tau_may_be_three_mean_latencies_of_short_requests() -> None:
    engine = waiting((0.0, 900.0), mean_short_latency_s=2.0)
    assert engine.policy.timer_s() == 6.0


def test_golden_a_serial_backend() -> None:
    # Long, medium and short come while a first one is served; a prefill takes 2 s, a token 1 s.
    requests = (Asked(0.0, 4, 3, 3), Asked(0.5, 4, 4, 4), Asked(1.0, 4, 3, 3), Asked(1.5, 4, 1, 1), Asked(2.0, 4, 1, 1))
    cost = FixedCost(2.0, 1.0)
    with registered(Clairvoyant, short_tokens=2, medium_tokens=4) as name:
        rows = Assembly(Case(requests, cost, policy=name, max_num_seqs=1)).run().requests
        assert rows["scheduled_s"].tolist() == [0.0, 12.0, 8.0, 4.0, 6.0]
    with registered(Clairvoyant, short_tokens=2, medium_tokens=4, tau_s=4.0) as name:
        rows = Assembly(Case(requests, cost, policy=name, max_num_seqs=1)).run().requests
        # At 5 the first long one is short as well, and joined before the last.
        assert rows["scheduled_s"].tolist() == [0.0, 6.0, 11.0, 4.0, 15.0]
    rows = Assembly(Case(requests, cost, policy="fcfs", max_num_seqs=1)).run().requests
    assert rows["scheduled_s"].tolist() == [0.0, 4.0, 9.0, 13.0, 15.0]


def test_the_257th_that_waits_is_rejected() -> None:
    engine = ByHand(Clairvoyant, max_num_seqs=1)
    for number in range(256):
        assert engine.policy.accepts(engine.arrive(8)) == (number < 255)
    engine.step()
    assert engine.policy.accepts(engine.arrive(8)) is False
    without = ByHand(Clairvoyant, parameters=Clairvoyant.Parameters(capacity=None))
    for _ in range(400):
        assert without.policy.accepts(without.arrive(8))


def test_a_rejected_request_is_counted_and_the_others_end() -> None:
    requests = tuple(Asked(0.0, 4, 3, 3) for _ in range(10))
    with registered(Clairvoyant, capacity=4) as name:
        records = Assembly(Case(requests, FixedCost(1.0, 1.0), policy=name, max_num_seqs=1)).run()
    assert (records.requests["status"] == 1).sum() == 6
    assert (records.requests["status"] == 0).sum() == 4


def test_strides_are_exact_and_nothing_is_lost() -> None:
    holds("clairvoyant", 5)
    with registered(Clairvoyant, short_tokens=5, medium_tokens=15, tau_s=0.7, tick_s=0.4, capacity=4) as name:
        holds(name)


@pytest.mark.parametrize("single", [False, True])
def test_a_promotion_ends_a_stride_where_the_head_was_refused_by_the_memory(single: bool) -> None:
    # The short one does not fit beside the first; the long one does, and is in front of it from 3 s on.
    requests = (Asked(0.0, 4, 60, 60), Asked(0.05, 4, 20, 20), Asked(0.06, 97, 3, 3))
    with registered(Clairvoyant, short_tokens=5, medium_tokens=15, tau_s=2.5) as name:
        memory = {"num_blocks": 101, "block_size": 1}
        case = Case(requests, FixedCost(0.25, 0.2), policy=name, max_num_seqs=4, **memory)
        rows = Assembly(case, single=single).run().requests
    assert rows["scheduled_s"].tolist()[1] == 0.25 + 14 * 0.2
