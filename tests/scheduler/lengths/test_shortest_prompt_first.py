"""Shortest prompt first on vLLM v1's batching."""

from __future__ import annotations

from by_hand import ByHand
from exactly import holds

from servsim.scheduler.engines.fcfs import Fcfs
from servsim.scheduler.lengths.shortest_prompt_first import ShortestPromptFirst
from servsim.scheduler.lengths.sjf import Sjf


def admitted(policy: type) -> list[int]:
    engine = ByHand(policy, max_num_seqs=2)
    for prompt, output in ((300, 10), (20, 400), (100, 300), (10, 500)):
        engine.arrive(prompt, predicted=output)
    return [one.request_id for one in engine.step()]


def test_the_shortest_prompt_goes_first_whatever_its_output() -> None:
    assert admitted(ShortestPromptFirst) == [3, 1]
    assert admitted(Fcfs) == [0, 1]
    assert admitted(Sjf) == [0, 2]


def test_equal_prompts_are_served_in_order_of_arrival() -> None:
    engine = ByHand(ShortestPromptFirst, max_num_seqs=3)
    for at_s in (2.0, 0.5, 0.5, 1.0):
        engine.arrive(8, at_s=at_s)
    assert [one.request_id for one in engine.step()] == [1, 2, 3]


def test_without_memory_the_longest_prompt_is_preempted() -> None:
    engine = ByHand(ShortestPromptFirst, usable_blocks=5, block_size=4)
    for prompt in (4, 12, 4):
        engine.arrive(prompt)
    engine.step()  # 1 + 3 + 1 blocks
    engine.step()
    assert [one.request_id for one in engine.last.preempted] == [1]


def test_strides_are_exact_and_nothing_is_lost() -> None:
    holds("shortest_prompt_first")
