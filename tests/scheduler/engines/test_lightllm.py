"""LightLLM's router by hand: what is assumed of each request, who is let in, who pauses."""

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
from pydantic import ValidationError

from servsim.cost.fixed import FixedCost
from servsim.metrics.token_times import token_times
from servsim.scheduler import Surroundings
from servsim.scheduler.engines.fcfs import Fcfs
from servsim.scheduler.engines.lightllm import LightLlm, LightLlmAdmission


def engine(
    policy: Any = LightLlm, *, tokens: int = 100, block_size: int = 1, seats: int = 256, **settings: Any
) -> ByHand:
    """So many tokens of memory, in blocks of one token unless said otherwise."""
    parameters = LightLlm.Parameters(**settings) if policy is LightLlm else None
    blocks = tokens // block_size
    return ByHand(policy, usable_blocks=blocks, block_size=block_size, max_num_seqs=seats, parameters=parameters)


def variant(**settings: Any) -> Callable[[Surroundings], LightLlm]:
    parameters = LightLlm.Parameters(**settings)
    return lambda surroundings: LightLlm(replace(surroundings, parameters=parameters))


def assumed(hand: ByHand) -> list[tuple[int, int]]:
    """(a, b) of each running request."""
    rule = hand.policy.admission
    return [(int(packed & 0xFFFFFFFF), int(packed >> 32)) for packed in rule._running()]


def held_and_to_come(
    rule: LightLlmAdmission, prompt: int, generated: int, declared: int, lacking: int
) -> tuple[int, int]:
    one = [np.array([number]) for number in (prompt + generated, generated, declared, lacking)]
    packed = int(rule._packed(*one)[0])
    return packed & 0xFFFFFFFF, packed >> 32


def test_what_is_assumed_of_a_new_request_and_of_a_decoder() -> None:
    whole = engine().policy.admission
    chunked = engine(enable_chunked_prefill=True, chunked_prefill_size=4096).policy.admission
    assert held_and_to_come(whole, 100, 0, 50, 100) == (101, 55)
    assert held_and_to_come(chunked, 100, 0, 50, 100) == (101, 62)
    assert held_and_to_come(chunked, 100, 10, 50, 1) == (111, 52)
    assert held_and_to_come(chunked, 4097, 0, 50, 4097) == (4098, 69)  # two chunks


def test_what_is_assumed_of_those_who_run() -> None:
    hand = engine(tokens=1000)
    hand.arrive(100, declared=50)
    for _ in range(10):
        hand.step()
    assert assumed(hand) == [(111, 45)]  # b = 50 - 10 - 1 + 6


@pytest.mark.parametrize(("generated", "cap"), [(1, 40), (36, 40), (37, 40), (38, 41), (50, 55), (99, 60)])
def test_the_aggressive_mode_assumes_a_tenth_more_than_it_has_seen_but_no_less_than_its_length(
    generated: int, cap: int
) -> None:
    rule = engine(mode="aggressive", router_max_new_token_len=40).policy.admission
    rule._busy = False
    held, growth = held_and_to_come(rule, 10, generated, 60, 1)
    assert (held, growth) == (10 + generated + 1, max(0, cap - generated - 1) + 6)


def test_a_peak_at_the_capacity_is_refused_and_one_below_it_let_in() -> None:
    # A: 1 emitted, (22, 24). B: (31, 15). By b: 22 + 24 = 46, 53 + 2 x 15 = 83.
    for tokens, admitted in ((83, False), (84, True)):
        hand = engine(tokens=tokens)
        a = hand.arrive(20, declared=20)
        assert hand.step() == {a: 20}
        assert assumed(hand) == [(22, 24)]
        b = hand.arrive(30, declared=10)
        assert hand.step() == ({b: 30} if admitted else {a: 1})


def test_fcfs_lets_in_what_the_peak_refuses() -> None:
    hand = engine(Fcfs, tokens=83)
    a = hand.arrive(20, declared=20)
    hand.step()
    b = hand.arrive(30, declared=10)
    assert hand.step() == {a: 1, b: 30}


def test_a_batch_of_whole_prompts_stalls_the_decoders() -> None:
    hand = engine(tokens=1000)
    a = hand.arrive(20, declared=20)
    hand.step()
    b, c = hand.arrive(30, declared=10), hand.arrive(40, declared=10)
    assert hand.step() == {b: 30, c: 40} and not hand.last.decode
    assert hand.step() == {a: 1, b: 1, c: 1}


def test_the_order_of_arrival_is_kept_when_the_head_does_not_fit() -> None:
    hand = engine(tokens=100)
    a = hand.arrive(50, declared=20)
    hand.step()
    hand.arrive(60, declared=20)
    hand.arrive(1, declared=1)
    assert hand.step() == {a: 1}


def test_a_batch_holds_at_most_batch_max_tokens_and_a_longer_prompt_goes_alone() -> None:
    hand = engine(tokens=10_000, batch_max_tokens=50)
    a, b, c, d = (hand.arrive(prompt, declared=10) for prompt in (30, 20, 1, 60))
    assert hand.step() == {a: 30, b: 20}
    assert hand.step() == {c: 1}
    assert hand.step() == {d: 60}


def test_batches_that_wait_come_every_so_many_decode_steps() -> None:
    hand = engine(tokens=10_000, disable_aggressive_schedule=True, router_max_wait_tokens=3)
    a = hand.arrive(5, declared=100)
    assert hand.step() == {a: 5}  # nothing ran: at once
    b = hand.arrive(6, declared=100)
    for steps in (3, 2, 1):
        hand.plan()
        assert hand.policy.stable_steps() == steps
        assert hand.step() == {a: 1}
    assert hand.step() == {b: 6}


def test_chunks_go_on_beside_the_decoders_and_count_against_the_next_batch() -> None:
    hand = engine(tokens=10_000, enable_chunked_prefill=True, chunked_prefill_size=8, batch_max_tokens=12)
    a = hand.arrive(3, declared=100)
    hand.step()
    b, c = hand.arrive(20, declared=10), hand.arrive(3, declared=10)
    assert hand.step() == {a: 1, b: 8, c: 3}  # 1 + 8 + 3 = 12
    d = hand.arrive(2, declared=10)
    assert hand.step() == {a: 1, c: 1, b: 8, d: 2}  # 2 + 8 + 2 = 12
    assert hand.step() == {a: 1, c: 1, d: 1, b: 4}


def test_the_newest_pauses_when_the_next_step_does_not_fit_and_stands_first_in_line() -> None:
    hand = engine(tokens=40, mode="aggressive", router_max_new_token_len=1)
    a, b, c = (hand.arrive(6, declared=100) for _ in range(3))
    assert hand.step() == {a: 6, b: 6, c: 6}  # (7, 6) each: a peak of 39
    d = hand.arrive(1, declared=1)
    for _ in range(7):
        assert hand.step() == {a: 1, b: 1, c: 1}
    assert hand.memory.stored_tokens == 39
    assert hand.step() == {a: 1, b: 1}  # three more would be 42
    assert list(hand.last.preempted) == [c]
    assert [hand.policy.queue.peek(place) for place in range(2)] == [c, d]
    assert hand.step() == {a: 1, b: 1}  # (16, 6) twice and c (15, 6): not below 40
    hand.finish(a)
    assert hand.step() == {b: 1}  # (17, 6) and (15, 6): 32 + 12
    hand.finish(b)
    assert hand.step() == {c: 14, d: 1}  # all that it had: the prompt and 8 tokens


def test_paused_requests_keep_their_places() -> None:
    hand = engine(tokens=40, mode="aggressive", router_max_new_token_len=1, seats=3)
    a, b, c = (hand.arrive(6, declared=100) for _ in range(3))
    for _ in range(9):
        hand.step()
    assert list(hand.policy._paused) == [c]
    hand.finish(a)
    short = [hand.arrive(1, declared=1), hand.arrive(1, declared=1)]
    hand.policy.queue._line.rotate(-1)  # some other order: c goes last
    assert hand.step() == {short[0]: 1}  # with b and the paused one that makes three
    assert {b, short[0]} == set(hand.running.sequences)


def test_the_conservative_mode_never_pauses_in_blocks_of_one_token_and_the_aggressive_one_does() -> None:
    requests = tuple(Asked(0.01 * index, 20, 60, 60) for index in range(20))
    case = Case(requests, FixedCost(0.25, 0.125), block_size=1, num_blocks=401, max_num_seqs=20)

    def preemptions(**settings: Any) -> int:
        with registered(LightLlm, **settings) as name:
            return int(Assembly(replace(case, policy=name)).run().requests["preemptions"].sum())

    conservative = preemptions(batch_max_tokens=40)
    aggressive = preemptions(batch_max_tokens=40, mode="aggressive", router_max_new_token_len=10)
    careful = preemptions(batch_max_tokens=40, mode="aggressive", router_max_new_token_len=10, router_token_ratio=0.3)
    assert conservative == 0 < careful < aggressive


def test_a_golden_run() -> None:
    # Capacity 60. A comes in alone. B: A is (8, 14) at g = 1, B (11, 9): 22 and 19 + 2 x 9 = 37: in, A stalls.
    # C would be (31, 9): 50 + 3 x 9 = 77. When B has ended, at its 4th token, A is (11, 11): 22 and 42 + 2 x 9 = 60,
    # not below. The peak rises, 61 and 62, while A outlives C, then falls: A (14, 8): 40 and 45 + 2 x 8 = 61;
    # (15, 7): 60; (16, 6): 59. So C comes in with A's 9th token, and A's last waits for it.
    requests = (Asked(0.0, 6, 10, 10), Asked(0.1, 10, 4, 4), Asked(0.2, 30, 4, 4))
    case = Case(requests, FixedCost(0.25, 0.125), policy="lightllm", block_size=1, num_blocks=61)
    records = Assembly(case).run()
    assert token_times(records, 0).tolist() == [0.25, *(0.625 + 0.125 * step for step in range(8)), 1.875]
    assert token_times(records, 1).tolist() == [0.5, 0.625, 0.75, 0.875]
    assert records.requests["scheduled_s"].tolist() == [0.0, 0.25, 1.5]
    assert records.requests["preemptions"].sum() == 0


@pytest.mark.parametrize(
    "settings",
    [{"router_token_ratio": 0.5}, {"mode": "aggressive", "router_token_ratio": 0.0}],
)
def test_a_ratio_that_contradicts_the_mode_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="does not make the mode"):
        LightLlm.Parameters(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"enable_chunked_prefill": True},
        {"mode": "aggressive", "router_max_new_token_len": 5},
        {"mode": "aggressive", "router_max_new_token_len": 3, "router_token_ratio": 0.5},
        {
            "mode": "aggressive",
            "router_max_new_token_len": 5,
            "disable_aggressive_schedule": True,
            "router_max_wait_tokens": 3,
        },
        {
            "mode": "aggressive",
            "router_max_new_token_len": 5,
            "enable_chunked_prefill": True,
            "chunked_prefill_size": 4,
        },
    ],
)
def test_strides_are_exact_and_nothing_is_lost(settings: dict[str, Any]) -> None:
    with registered(LightLlm, **settings) as policy:
        holds_however_cut(policy)
