"""Linear ageing: the predicted length less a rate times the wait."""

from __future__ import annotations

from typing import Any

from by_hand import ByHand
from clocked import line_of
from exactly import holds, registered
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from servsim.request import Sequence
from servsim.scheduler.lengths.ageing import Ageing

REQUESTS = ((0.0, 100), (1.0, 60), (5.0, 40), (9.0, 5))


def order(**parameters: Any) -> list[int]:
    engine = ByHand(Ageing, parameters=Ageing.Parameters(**parameters))
    for at_s, predicted in REQUESTS:
        engine.arrive(8, predicted=predicted, at_s=at_s)
    return line_of(engine.policy.queue)


def test_golden_ten_tokens_a_second() -> None:
    # 100 + 0, 60 + 10, 40 + 50, 5 + 90
    assert order(tokens_per_s=10) == [1, 2, 3, 0]


def test_at_rate_0_it_is_sjf_and_at_a_high_rate_fcfs() -> None:
    assert order(tokens_per_s=0) == [3, 2, 1, 0]
    assert order(tokens_per_s=1e6) == [0, 1, 2, 3]


def test_prompts_may_be_what_counts() -> None:
    engine = ByHand(Ageing, parameters=Ageing.Parameters(size="prompt"))
    for prompt, predicted in ((50, 1), (10, 99)):
        engine.arrive(prompt, predicted=predicted, at_s=0.0)
    assert line_of(engine.policy.queue) == [1, 0]


@examples(50)
@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=20), st.integers(0, 100))
def test_the_order_by_keys_that_sink_while_waiting_is_this_fixed_one(drawn: list, rate: int) -> None:
    engine = ByHand(Ageing, parameters=Ageing.Parameters(tokens_per_s=rate))
    waiting = [engine.arrive(8, predicted=size, at_s=float(at_s)) for at_s, size in sorted(drawn)]

    def sunk(one: Sequence, now_s: float) -> tuple[float, float, int]:
        return (one.predicted_tokens - rate * (now_s - one.arrival_s), one.arrival_s, one.request_id)

    for now_s in (1000.0, 5000.0):
        expected = sorted(waiting, key=lambda one: sunk(one, now_s))
        assert line_of(engine.policy.queue) == [one.request_id for one in expected]


def test_nobody_is_overtaken_by_those_who_come_its_length_over_the_rate_later() -> None:
    engine = ByHand(Ageing, parameters=Ageing.Parameters(tokens_per_s=10))
    engine.arrive(8, predicted=500, at_s=0.0)
    for number in range(200):
        engine.arrive(8, predicted=1, at_s=float(number))
    line = line_of(engine.policy.queue)
    assert line.index(0) == 50  # those of the first 50 s


def test_strides_are_exact_and_nothing_is_lost() -> None:
    holds("ageing", 5)
    with registered(Ageing, tokens_per_s=3) as name:
        holds(name, 5)
