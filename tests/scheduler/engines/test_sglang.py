"""SGLang's scheduler by hand: the new-token ratio, who is let in, who is retracted, in which order they wait."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from assembly import Assembly
from by_hand import ByHand
from case import Asked, Case
from exactly import holds_however_cut, registered

from servsim.cost.fixed import FixedCost
from servsim.errors import ScenarioError
from servsim.metrics.token_times import token_times
from servsim.scheduler import Surroundings
from servsim.scheduler.engines.fcfs import Fcfs
from servsim.scheduler.engines.sglang import Sglang


def engine(
    policy: Any = Sglang, *, tokens: int = 100, page: int = 1, budget: int = 2048, seats: int = 256, **settings: Any
) -> ByHand:
    parameters = Sglang.Parameters(**settings) if policy is Sglang else None
    return ByHand(
        policy,
        usable_blocks=tokens // page,
        block_size=page,
        budget=budget,
        max_num_seqs=seats,
        parameters=parameters,
    )


def variant(**settings: Any) -> Callable[[Surroundings], Sglang]:
    parameters = Sglang.Parameters(**settings)
    return lambda surroundings: Sglang(replace(surroundings, parameters=parameters))


def test_the_ratio_falls_in_a_line_over_600_decode_steps_to_14_percent_of_its_start() -> None:
    hand = engine(tokens=10_000)
    hand.arrive(1, declared=5000)
    hand.step()
    rule = hand.policy.admission
    assert rule.ratio == 0.7  # a prefill does not count
    seen = [rule.ratio]
    for _ in range(700):
        hand.step()
        seen.append(rule.ratio)
    assert seen[300] == pytest.approx((0.7 + 0.098) / 2)
    assert seen[599] > seen[600] == pytest.approx(0.098)
    assert seen[700] == seen[600]


def test_an_idle_instance_starts_with_the_first_ratio_again() -> None:
    hand = engine(tokens=10_000)
    a = hand.arrive(1, declared=50)
    for _ in range(11):
        hand.step()
    assert hand.policy.admission.ratio < 0.7
    b = hand.arrive(1, declared=50)
    hand.step()
    assert hand.policy.admission.ratio < 0.7
    hand.finish(a)
    hand.finish(b)
    hand.arrive(1, declared=50)
    assert hand.policy.admission.ratio == 0.7


def test_conservativeness_multiplies_the_ratio() -> None:
    assert engine(schedule_conservativeness=0.5).policy.admission.ratio == 0.35
    assert engine(schedule_conservativeness=2).policy.admission.ratio == 1.0


@pytest.mark.parametrize(("prompt", "admitted"), [(42, True), (43, False)])
def test_a_request_must_need_strictly_less_than_what_is_left_by_the_running(prompt: int, admitted: bool) -> None:
    # A stores 20 of 100 and may emit 41 - 1 = 40 more: 80 - 40 x 0.7 = 52 are left. B needs its prompt and 9.
    hand = engine()
    a = hand.arrive(20, declared=41)
    hand.step()
    b = hand.arrive(prompt, declared=9)
    assert hand.step() == ({b: prompt} if admitted else {a: 1})


def test_those_admitted_in_one_pass_count_in_full_and_in_whole_pages() -> None:
    # A takes 24 of 160 in pages of 8, and 40 to come: 96 are left for B, not 96 + 0.3 x 40.
    for prompt, both in ((85, True), (86, False)):
        hand = engine(tokens=160, page=8)
        a, b = hand.arrive(20, declared=40), hand.arrive(prompt, declared=10)
        assert hand.step() == ({a: 20, b: prompt} if both else {a: 20})


def test_at_most_4096_tokens_to_come_are_counted() -> None:
    hand = engine(tokens=10_000)
    a, b = hand.arrive(1000, declared=1_000_000), hand.arrive(1000, declared=3000)
    assert hand.step() == {a: 1000, b: 1000}  # 5,096 and 4,000


def test_a_refusal_stands_until_somebody_ends() -> None:
    hand = engine(tokens=100, new_token_ratio_decay_steps=1)
    a, b = hand.arrive(20, declared=41), hand.arrive(1, declared=5)
    hand.step()
    c = hand.arrive(43, declared=9)
    assert hand.step() == {a: 1, b: 1}
    assert hand.step() == {a: 1, b: 1}  # the ratio has fallen to 0.098 by now, and nobody looks
    assert hand.policy.stable_steps() > 1000
    hand.finish(b)
    assert hand.step() == {c: 43}


def test_fcfs_lets_in_what_the_ratio_refuses() -> None:
    hand = engine(Fcfs)
    a = hand.arrive(20, declared=41)
    hand.step()
    b = hand.arrive(43, declared=9)
    assert hand.step() == {a: 1, b: 43}


def test_prefills_stall_the_decoders_and_a_long_prompt_goes_on_first_in_whole_pages() -> None:
    hand = engine(tokens=1000, page=4, budget=30)
    a = hand.arrive(10, declared=5)
    assert hand.step() == {a: 10}
    b, c = hand.arrive(9, declared=5), hand.arrive(40, declared=5)
    assert hand.step() == {b: 9, c: 16}  # 30 - 12 leaves 18, cut to four pages
    d = hand.arrive(3, declared=5)
    assert hand.step() == {c: 24, d: 3}
    assert not hand.last.decode
    assert hand.step() == {a: 1, b: 1, c: 1, d: 1}


def full_memory() -> tuple[ByHand, list[Any]]:
    """Four decoders, of which the third has emitted most; not one more token fits."""
    hand = engine(tokens=120, init_new_token_ratio=0.01)
    a = hand.arrive(20, declared=50)
    hand.step()
    for _ in range(10):
        hand.step()
    b, c, d = hand.arrive(15, declared=20), hand.arrive(18, declared=8), hand.arrive(18, declared=8)
    hand.step()
    while hand.memory.steps_until_full(1):
        hand.step()
    return hand, [a, b, c, d]


def test_those_with_the_fewest_tokens_are_retracted_longest_prompt_first_until_20_steps_fit() -> None:
    # 30 + 51 stored, and 9 steps of four more: 117, and 3 free. Without D, 27 more: 30, and 60 are needed. Without C,
    # 57: 40 are needed by two.
    hand, (a, b, c, d) = full_memory()
    assert hand.memory.stored_tokens == 117
    generated = [hand.running.generated_tokens(one) for one in (a, b, c, d)]
    assert generated == [20, 10, 10, 10]
    assert hand.step() == {a: 1, b: 1}
    assert list(hand.last.preempted) == [d, c]
    # 30 generated, 20 steps for each of two, over 70 declared and one
    assert hand.policy.admission.ratio == pytest.approx((30 + 40) / 71)
    hand.plan()
    assert hand.policy.admission.ratio == pytest.approx(70 / 71)


def test_the_retracted_go_to_the_end_of_the_line() -> None:
    hand, (_, _, c, d) = full_memory()
    waiting = hand.arrive(60, declared=60)
    hand.step()
    assert [hand.policy.queue.peek(place) for place in range(3)] == [waiting, d, c]


def test_the_last_one_is_never_retracted_though_20_steps_do_not_fit() -> None:
    hand = engine(tokens=40, init_new_token_ratio=0.01)
    a = hand.arrive(18, declared=21)
    for _ in range(16):
        hand.step()
    b = hand.arrive(4, declared=2)
    assert hand.step() == {b: 4}
    assert hand.step() == {a: 1, b: 1}
    assert hand.memory.stored_tokens == 39
    assert hand.step() == {a: 1}
    assert list(hand.last.preempted) == [b]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("fcfs", [0, 1, 2, 3]),
        ("lof", [2, 1, 3, 0]),
        ("shortest-prefill-first", [3, 1, 0, 2]),
        ("hrrn", [0, 1, 2, 3]),
    ],
)
def test_the_orders(order: str, expected: list[int]) -> None:
    hand = engine(tokens=10_000, schedule_policy=order)
    for prompt, declared in ((30, 10), (20, 50), (40, 90), (10, 50)):
        hand.arrive(prompt, declared=declared)
    assert [hand.policy.queue.peek(place).request_id for place in range(4)] == expected


def test_hrrn_lets_a_short_prompt_pass_once_tokens_have_been_prefilled_while_it_waited() -> None:
    hand = engine(tokens=1000, seats=2, schedule_policy="hrrn")
    a = hand.arrive(10, declared=5)
    hand.step()
    long, short = hand.arrive(500, declared=5), hand.arrive(2, declared=5)
    assert hand.policy.head() is long  # nobody has waited for a token yet
    assert hand.step() == {long: 500}
    longer = hand.arrive(100, declared=5)
    assert hand.policy.head() is short and hand.policy.queue.peek(1) is longer
    assert hand.step() == {a: 1, long: 1}


def test_the_random_order_is_that_of_its_own_stream_and_not_that_of_arrival() -> None:
    class Counted:
        def __init__(self) -> None:
            self.numbers = iter([0.9, 0.1, 0.5])

        def random(self, count: int) -> Any:
            return np.array([next(self.numbers) for _ in range(count)])

    hand = ByHand(Sglang, parameters=Sglang.Parameters(schedule_policy="random"), stream=Counted())
    for _ in range(3):
        hand.arrive(5)
    assert [hand.policy.queue.peek(place).request_id for place in range(3)] == [1, 2, 0]


@pytest.mark.parametrize("order", ["lpm", "dfs-weight"])
def test_orders_by_the_prefix_tree_are_refused_without_one_and_name_the_allocator_that_has_it(order: str) -> None:
    with pytest.raises(ScenarioError, match=f"'{order}' goes by what a prefix tree holds") as caught:
        engine(schedule_policy=order)
    assert caught.value.remedy == "set instance.memory.allocator: radix"


def test_a_golden_run() -> None:
    # 60 tokens. A comes in alone (0.25 s). With 6 stored and 9 to come, 54 - 6.3 are left: B (10 + 4) comes in and A
    # stalls; C needs 30 + 4, and beside B's 14 are left 33.7. So it waits till B ends, at its 4th token.
    # Then A has 4 tokens and stores 9: 51 - 6 x ratio are left, and C comes in.
    requests = (Asked(0.0, 6, 10, 10), Asked(0.1, 10, 4, 4), Asked(0.2, 30, 4, 4))
    case = Case(requests, FixedCost(0.25, 0.125), policy="sglang", block_size=1, num_blocks=61)
    records = Assembly(case).run()
    assert records.requests["scheduled_s"].tolist() == [0.0, 0.25, 0.875]
    assert token_times(records, 0).tolist() == [0.25, 0.625, 0.75, 0.875, *(1.25 + 0.125 * step for step in range(6))]
    assert token_times(records, 2).tolist() == [1.125, 1.25, 1.375, 1.5]
    assert records.requests["preemptions"].sum() == 0


def test_a_lower_ratio_admits_more_and_retracts_more() -> None:
    requests = tuple(Asked(0.5 * index, 20, 60, 60) for index in range(40))
    case = Case(requests, FixedCost(0.25, 0.125), block_size=1, num_blocks=401, max_num_seqs=40)

    def preemptions(**settings: Any) -> int:
        with registered(Sglang, **settings) as name:
            return int(Assembly(replace(case, policy=name)).run().requests["preemptions"].sum())

    careful = preemptions(init_new_token_ratio=1.0, min_new_token_ratio_factor=1.0)
    assert careful == 0 < preemptions(init_new_token_ratio=0.05)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"schedule_policy": "lof", "init_new_token_ratio": 0.05},
        {"schedule_policy": "hrrn", "init_new_token_ratio": 0.1, "retract_decode_steps": 2},
        {"schedule_policy": "random", "init_new_token_ratio": 0.01, "new_token_ratio_decay_steps": 10},
        {"schedule_policy": "shortest-prefill-first", "init_new_token_ratio": 0.01, "retract_decode_steps": 1},
    ],
)
def test_strides_are_exact_and_nothing_is_lost(settings: dict[str, Any]) -> None:
    with registered(Sglang, **settings) as policy:
        holds_however_cut(policy)
