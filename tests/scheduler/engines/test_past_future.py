"""Past-Future's admission, by hand: which peaks let a request in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from by_hand import ByHand, Constant
from case import Case
from checks import nothing_is_lost, strided_equals_single
from drawn import cases
from hypothesis import given
from profiles import examples

from servsim import registry
from servsim.request import Sequence
from servsim.scheduler import Surroundings
from servsim.scheduler.engines.fcfs import Fcfs
from servsim.scheduler.engines.past_future import PastFuture


def engine(
    uniform: float = 0.5,
    *,
    usable_blocks: int = 25,
    block_size: int = 4,
    policy: type = PastFuture,
    **parameters: Any,
) -> ByHand:
    """Blocks of 4 tokens by default; the history begins as [10, 10]; every random number is ``uniform``."""
    settings = {"window": 4, "default_output_tokens": 10, **parameters}
    return ByHand(
        policy,
        usable_blocks=usable_blocks,
        block_size=block_size,
        parameters=PastFuture.Parameters(**settings),
        stream=Constant(uniform),
    )


def two_running_and_one_waiting(prompt: int = 20, **settings: Any) -> tuple[ByHand, dict[Sequence, int], Sequence]:
    """A runs with 1 of about 10 tokens emitted; B, and then C, ask to come in. What the step gave, and C."""
    hand = engine(**settings)
    hand.arrive(20, declared=40)
    hand.step()
    hand.arrive(30, declared=30)
    c = hand.arrive(prompt, declared=40)
    return hand, hand.step(), c


def test_a_request_whose_peak_reaches_the_limit_exactly_is_refused() -> None:
    # 25 usable blocks of 4 tokens, 5 % in reserve: the peak must stay below 95.
    # A: 21 held, grid [1, 10, 10, 40] at 0.5 is 10, so 10 - 1 - 1 = 8 to come. B and C draw 10: (30, 9) and (20, 9).
    # With B: max(30 + 9, 51 + 2 x 8) = 67. With C too: max(39, 50 + 2 x 9, 71 + 3 x 8) = 95.
    hand, given, c = two_running_and_one_waiting()
    assert sorted(given.values()) == [1, 30]
    assert hand.policy.head() is c


def test_a_peak_one_token_below_the_limit_is_let_in() -> None:
    _, given, c = two_running_and_one_waiting(prompt=19)  # max(39, 49 + 2 x 9, 70 + 3 x 8) = 94
    assert given[c] == 19


def test_without_a_reserve_the_limit_is_the_capacity() -> None:
    _, given, c = two_running_and_one_waiting(reserve=0.0)
    assert given[c] == 20


def test_the_capacity_is_that_of_the_usable_blocks() -> None:
    _, given, c = two_running_and_one_waiting(usable_blocks=26)  # 104 tokens, 98.8 below the reserve
    assert given[c] == 20


def test_fcfs_lets_in_what_past_future_refuses() -> None:
    _, given, c = two_running_and_one_waiting(policy=Fcfs)
    assert given[c] == 20


def test_the_worst_scenario_decides() -> None:
    class OneHigh(Constant):
        """0.5, but for one of the five scenarios of the running request."""

        def random(self, count: int) -> Any:
            drawn = super().random(count)
            drawn[2] = self.high
            return drawn

    # A draws 10 at 0.5, (51, 8), and with B's (10, 9) the peak is 77; but 60 at almost 1, (51, 58): 109.
    for high, admitted in ((0.5, True), (0.999999, False)):
        hand = engine()
        hand.stream = hand.policy.admission._stream = OneHigh(0.5)
        hand.stream.high = high
        hand.arrive(50, declared=60)
        hand.step()
        b = hand.arrive(10, declared=60)
        assert (b in hand.step()) == admitted


def test_a_request_is_admitted_without_a_draw_where_all_declared_maxima_fit() -> None:
    hand = engine()
    hand.arrive(10, declared=10)
    hand.step()
    hand.arrive(20, declared=20)
    hand.step()
    assert hand.stream.draws == 0


def test_a_request_is_refused_without_a_draw_where_the_held_tokens_overflow() -> None:
    hand = engine()
    hand.arrive(50, declared=500)
    hand.step()
    hand.arrive(45, declared=500)  # 51 + 45 >= 95
    hand.step()
    assert hand.policy.waiting == 1 and hand.stream.draws == 0


def test_a_lone_request_is_let_in_whatever_the_estimate_says() -> None:
    hand = engine(default_output_tokens=1000)
    one = hand.arrive(60, declared=1000)
    assert hand.step() == {one: 60}


def test_a_cold_start_is_careful_and_finished_requests_teach_it_better() -> None:
    hand = engine(0.99, default_output_tokens=1000)
    first, second = hand.arrive(10, declared=1000), hand.arrive(10, declared=1000)
    assert hand.step() == {first: 10}  # 1,000 tokens to come would burst 100
    for _ in range(5):
        hand.policy.admission.history.append(3)
    hand.finish(first)
    third = hand.arrive(10, declared=1000)
    assert hand.step() == {second: 10, third: 10}


class Early(Constant):
    """Almost 1 for so many draws, then 0.5; a pass takes five a running request and five a waiting one."""

    def __init__(self, high: int) -> None:
        super().__init__(0.999999)
        self.high = high

    def random(self, count: int) -> Any:
        drawn = super().random(count)
        drawn[self.high :] = 0.5
        return drawn


@pytest.mark.parametrize("wait", [1, 6])
def test_a_refused_head_is_drawn_again_after_so_many_decode_steps(wait: int) -> None:
    hand = engine(router_max_wait_tokens=wait)
    hand.stream = hand.policy.admission._stream = Early(10)
    a = hand.arrive(50, declared=60)
    hand.step()
    b = hand.arrive(10, declared=60)
    for step in range(wait):  # A is drawn at 60, (51, 58): a peak of 109
        assert hand.step() == {a: 1}
        assert hand.policy.stable_steps() == max(1, wait - step - 1)
    assert hand.step() == {a: 1, b: 10}  # A is drawn at 10


def test_a_finish_draws_a_refused_head_again_at_once() -> None:
    hand = engine(router_max_wait_tokens=1000)
    hand.stream = hand.policy.admission._stream = Early(10 + 15)  # two passes
    hand.arrive(1, declared=1)
    a = hand.arrive(50, declared=60)
    hand.step()
    other = next(iter(hand.running.sequences))
    b = hand.arrive(10, declared=60)
    assert hand.step() == {other: 1, a: 1}
    hand.finish(other)
    assert hand.step() == {a: 1, b: 10}


def test_a_finished_request_makes_room_and_its_length_enters_the_history() -> None:
    hand, _, c = two_running_and_one_waiting()
    a = next(iter(hand.running.sequences))
    hand.finish(a)
    assert 2 in hand.policy.admission.history.lengths  # A's two tokens
    assert hand.step()[c] == 20


def test_the_token_held_but_not_stored_counts() -> None:
    # A decoder stores P + g - 1 tokens and holds P + g: 51 + 44 = 95 is refused, 51 + 43 is looked at further.
    for prompt, draws in ((44, False), (43, True)):
        hand = engine(reserve=0.05)
        hand.arrive(50, declared=500)
        hand.step()
        hand.arrive(prompt, declared=500)
        hand.step()
        assert (hand.stream.draws > 0) == draws


def test_the_later_version_counts_slack_and_pending_chunks_and_keeps_no_reserve() -> None:
    # A: (22, 7 + 10 - 1 - 1 + 6 = 21), B and C: (31, 22) and (21, 22). With B 53 + 2 x 21 = 95, with C too
    # 74 + 3 x 21 = 137.
    for tokens, admitted in ((137, False), (138, True)):
        hand = engine(version="later", usable_blocks=tokens, block_size=1)
        a = hand.arrive(20, declared=40)
        hand.step()
        b, c = hand.arrive(30, declared=40), hand.arrive(20, declared=40)
        assert hand.step() == {a: 1, b: 30} | ({c: 20} if admitted else {})


def test_the_later_version_has_a_reserve_if_one_is_given() -> None:
    for reserve, limit in ((None, 1.0), (0.05, 0.95), (0.0, 1.0)):
        parameters = PastFuture.Parameters(version="later", reserve=reserve)
        assert parameters.limit_share == pytest.approx(limit)
    assert PastFuture.Parameters().limit_share == pytest.approx(0.95)


def test_a_later_request_in_several_chunks_waits_seven_steps_for_each() -> None:
    rule = engine(version="later", usable_blocks=1000, chunked_prefill_size=16).policy.admission
    packed = rule._packed(np.array([33]), np.array([0]), np.array([10]), np.array([33]))
    assert (int(packed[0] & 0xFFFFFFFF), int(packed[0] >> 32)) == (34, 3 * 7 + 10 - 1 + 6)


def test_the_later_version_takes_exact_strides() -> None:
    def later(surroundings: Surroundings) -> PastFuture:
        settings = {"version": "later", "window": 10, "default_output_tokens": 8, "router_max_wait_tokens": 2}
        return PastFuture(replace(surroundings, parameters=PastFuture.Parameters(**settings)))

    registry._registered["schedulers"]["later"] = later

    @examples(15)
    @given(cases())
    def hold(case: Case) -> None:
        strided_equals_single(replace(case, policy="later"))
        nothing_is_lost(replace(case, policy="later"))

    try:
        hold()
    finally:
        del registry._registered["schedulers"]["later"]
