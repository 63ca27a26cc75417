"""SSJF: shortest prediction first, with a turn for the longest waiter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from assembly import Assembly
from case import Asked, Case
from clocked import Clocked
from exactly import holds, registered
from test_policies_differ import run, ttft_s

from servsim.cost.fixed import FixedCost
from servsim.scheduler.lengths.ssjf import Ssjf
from servsim.scheduler.policy import Surroundings


class Costed(Ssjf):
    """Where a prefill takes half a second and a token a tenth."""

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(
            replace(surroundings, prefill_s=lambda tokens: 0.5, decode_s=lambda decoders, context_tokens: 0.1)
        )


def waiting(*requests: tuple[float, float], policy: Any = Ssjf, places: int = 1, **parameters: float) -> Clocked:
    """Requests (arrival, prediction) that wait."""
    engine = Clocked(policy, max_num_seqs=places, parameters=Ssjf.Parameters(**parameters))
    for at_s, predicted in requests:
        engine.arrive(8, predicted=predicted, at_s=at_s)
    return engine


def test_the_shortest_prediction_goes_first_until_the_longest_waiter_waited_more_than_100_s() -> None:
    requests = ((0.0, 500.0), (50.0, 10.0))
    assert waiting(*requests).admitted_at(100.0) == [1]
    assert waiting(*requests).admitted_at(100.001) == [0]
    assert waiting(*requests).policy.queue.timer_s() == float("inf")  # nobody has looked yet
    engine = waiting(*requests)
    engine.plan()
    assert engine.policy.timer_s() == pytest.approx(100.0) and engine.policy.timer_s() > 100.0


def test_or_more_than_10_times_its_predicted_duration() -> None:
    requests = ((0.0, 40.0), (1.0, 10.0))  # 0.5 + 40 * 0.1 = 4.5 s
    assert waiting(*requests, policy=Costed).policy.predicted_duration_s(
        waiting(*requests).policy.head()
    ) == pytest.approx(1.5)
    assert waiting(*requests, policy=Costed).admitted_at(44.9) == [1]
    assert waiting(*requests, policy=Costed).admitted_at(45.1) == [0]


def test_only_the_longest_waiter_is_looked_at() -> None:
    # The second is over its limit of 10 * 1.5 s, the first is not over its 10 * 9.5 s.
    requests = ((0.0, 90.0), (1.0, 10.0), (19.0, 5.0))
    assert waiting(*requests, policy=Costed).admitted_at(20.0) == [2]


def test_the_whole_round_goes_by_waiting_time() -> None:
    requests = ((0.0, 500.0), (1.0, 400.0), (2.0, 10.0))
    assert waiting(*requests, places=2).admitted_at(101.0) == [0, 1]
    assert waiting(*requests, places=2).admitted_at(99.0) == [2, 1]


def test_after_its_turn_it_is_by_prediction_again() -> None:
    engine = waiting((0.0, 500.0), (90.0, 400.0), (91.0, 10.0))
    assert engine.admitted_at(101.0) == [0]
    assert engine.admitted_at(102.0) == [2]


def test_golden_a_guard_of_two_seconds() -> None:
    requests = (Asked(0.0, 4, 1, 1), Asked(0.1, 4, 9, 9), *(Asked(0.2, 4, 1, 1) for _ in range(4)))
    with registered(Ssjf, max_wait_s=2.0) as name:
        case = Case(requests, FixedCost(1.0, 0.5), policy=name, max_num_seqs=1)
        # Two short ones pass in front; at 3 s the long one has waited 2.9 s, takes 5 s, and the rest go after it.
        assert Assembly(case).run().requests["scheduled_s"].tolist() == [0.0, 3.0, 1.0, 2.0, 8.0, 9.0]
    sjf = Assembly(replace(case, policy="sjf")).run()
    assert sjf.requests["scheduled_s"].tolist() == [0.0, 5.0, 1.0, 2.0, 3.0, 4.0]


def test_with_a_guard_the_longest_wait_is_shorter_than_with_sjf_and_the_mean_still_below_fcfs() -> None:
    guarded, sjf, fcfs = run("ssjf", None, max_wait_s=3.0), run("sjf", None), run("fcfs", None)
    assert ttft_s(guarded).max() < ttft_s(sjf).max()
    assert ttft_s(guarded).mean() < ttft_s(fcfs).mean()


def test_strides_are_exact_and_nothing_is_lost() -> None:
    holds("ssjf", 5)
    with registered(Ssjf, max_wait_s=1.3) as name:
        holds(name)


@pytest.mark.parametrize("single", [False, True])
def test_the_guard_ends_a_stride_where_the_head_was_refused_by_the_memory(single: bool) -> None:
    requests = (Asked(0.0, 4, 60, 60), Asked(0.05, 4, 20, 20), Asked(0.06, 97, 3, 3))
    with registered(Ssjf, max_wait_s=3.1) as name:
        memory = {"num_blocks": 101, "block_size": 1}
        case = Case(requests, FixedCost(0.25, 0.2), policy=name, max_num_seqs=4, **memory)
        rows = Assembly(case, single=single).run().requests
    assert rows["scheduled_s"].tolist()[1] == 0.25 + 15 * 0.2  # the first boundary after 3.15 s
