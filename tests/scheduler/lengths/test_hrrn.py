"""Highest response ratio next, by the count of prefilled tokens."""

from __future__ import annotations

from by_hand import ByHand
from clocked import line_of
from exactly import holds, registered

from servsim.request import Sequence
from servsim.scheduler import Plan
from servsim.scheduler.engines.fcfs import Fcfs
from servsim.scheduler.lengths.hrrn import Hrrn, ResponseRatioOrder
from servsim.scheduler.lengths.shortest_prompt_first import ShortestPromptFirst


def prompt(number: int, tokens: int) -> Sequence:
    return Sequence(number, float(number), tokens, 100, 0, 0, 0, ())


def prefill(order: ResponseRatioOrder, tokens: int) -> None:
    order.began(Plan([(prompt(99, tokens), tokens)], decode=True))


def test_golden_the_ratio_is_tokens_prefilled_since_over_its_own() -> None:
    order = ResponseRatioOrder()
    order.push(prompt(0, 100))
    prefill(order, 45)
    order.push(prompt(1, 10))
    assert line_of(order) == [0, 1]  # 45/100 and 0
    prefill(order, 5)
    assert line_of(order) == [0, 1]  # 50/100 and 5/10: by arrival
    prefill(order, 6)
    assert line_of(order) == [1, 0]  # 56/100 and 11/10
    order.push(prompt(2, 1))
    assert line_of(order) == [1, 0, 2]
    prefill(order, 2)
    assert line_of(order) == [2, 1, 0]  # 2/1, 13/10, 58/100


def test_decode_steps_do_not_age_anybody() -> None:
    order = ResponseRatioOrder()
    order.push(prompt(0, 100))
    prefill(order, 20)
    order.push(prompt(1, 10))
    before = line_of(order)
    order.began(Plan(decode=True))
    assert line_of(order) == before


def test_a_long_prompt_is_not_overtaken_for_ever_as_by_shortest_prompt_first() -> None:
    def when_served(policy: type) -> int:
        engine = ByHand(policy, max_num_seqs=1)
        long = engine.arrive(100)
        for turn in range(60):
            engine.arrive(10)
            engine.arrive(10)
            given = engine.step()
            if long in given:
                return turn
            engine.finish(next(iter(given)))
        return 60

    assert when_served(Fcfs) == 0
    assert when_served(ShortestPromptFirst) == 60
    assert when_served(Hrrn) == 0

    engine = ByHand(Hrrn, max_num_seqs=1)
    first = engine.arrive(50)
    engine.arrive(100)
    short = engine.arrive(10)
    engine.step()
    engine.finish(first)
    assert list(engine.step()) == [short]  # 50/10 against 50/100


def test_a_line_longer_than_128_is_served_by_arrival() -> None:
    order = ResponseRatioOrder()
    for number in range(128):
        order.push(prompt(number, 1000 - number))
    prefill(order, 500)
    assert order.peek(0).request_id == 127
    order.push(prompt(128, 5000))
    assert line_of(order) == list(range(129))
    assert order.newcomer_matters(order.peek(128), has_place=True)  # it has made another one the head
    order.drop(1)
    assert order.peek(0).request_id == 127


def test_a_preempted_one_begins_to_wait_anew_with_all_that_it_lost() -> None:
    order = ResponseRatioOrder()
    order.push(prompt(0, 10))
    prefill(order, 10)
    lost = prompt(1, 10)
    lost.generated_tokens = 10
    order.push_preempted(lost)
    prefill(order, 10)
    assert [order._rank(order.peek(index))[0] for index in range(2)] == [-2.0, -0.5]


def test_strides_are_exact_and_nothing_is_lost() -> None:
    holds("hrrn")
    with registered(Hrrn, longest_line=3) as name:
        holds(name)
