"""S3: reservations of predicted length, evictions at their edge, doubling."""

from __future__ import annotations

from typing import Any

import pytest
from by_hand import ByHand
from exactly import holds, registered
from test_policies_differ import run

from servsim.request import Sequence
from servsim.scheduler.engines.fcfs import Fcfs
from servsim.scheduler.lengths.s3 import S3


def engine_with(policy: type = S3, **settings: Any) -> ByHand:
    """Buckets of 64 tokens."""
    return ByHand(policy, parameters=S3.Parameters(buckets=10, longest_tokens=640), **settings)


def test_an_edge_of_64_and_150_tokens_are_evicted_at_64_and_128() -> None:
    engine = engine_with()
    sequence = engine.arrive(10, predicted=60)
    edges, evicted_at, recomputed = [engine.policy.edge_tokens(sequence)], [], []
    while True:
        given = engine.step()
        if engine.last.preempted:
            evicted_at.append(sequence.generated_tokens)
            edges.append(engine.policy.edge_tokens(sequence))
        elif engine.last.prefills and evicted_at:
            recomputed.append(given[sequence])
        if sequence.decoding and engine.running.generated_tokens(sequence) == 150:
            break
    assert edges == [64, 128, 256]
    assert evicted_at == [64, 128]
    assert recomputed == [10 + 64, 10 + 128]
    engine.finish(sequence)
    assert engine.policy._free_blocks == engine.memory.total_blocks


def test_one_that_ends_at_its_edge_is_not_evicted() -> None:
    engine = engine_with()
    sequence = engine.arrive(10, predicted=64)
    for _ in range(64):
        assert engine.step() and not engine.last.preempted
    assert engine.running.generated_tokens(sequence) == 64
    engine.finish(sequence)


@pytest.mark.parametrize(("predicted", "edge"), [(0, 64), (1, 64), (64, 64), (64.5, 128), (640, 640), (5000, 640)])
def test_the_edge_is_the_upper_one_of_the_bucket(predicted: float, edge: int) -> None:
    engine = engine_with()
    assert engine.policy.edge_tokens(engine.arrive(10, predicted=predicted)) == edge


def test_no_edge_exceeds_the_declared_maximum_and_there_nothing_is_evicted() -> None:
    engine = engine_with()
    sequence = engine.arrive(10, predicted=60, declared=100)
    for _ in range(66):
        engine.step()
    assert engine.policy.edge_tokens(sequence) == 100
    for _ in range(34):
        assert engine.step() == {sequence: 1}


def admitted(policy: type) -> list[int]:
    """40 blocks of 16; prompt and edge of 10, 26, 18, 12 and 6 blocks."""
    engine = engine_with(policy, usable_blocks=40)
    for prompt, predicted in ((96, 64), (96, 320), (96, 192), (64, 128), (32, 64)):
        engine.arrive(prompt, predicted=predicted)
    return [one.request_id for one in engine.step()]


def test_the_largest_that_fits_is_taken_and_smaller_ones_fill_what_it_leaves() -> None:
    assert admitted(S3) == [1, 3]  # 26, not 18, 12, and neither 10 nor 6 in the 2 that are left
    assert admitted(Fcfs) == [0, 1, 2, 3, 4]


def test_equal_sizes_are_taken_in_order_of_arrival() -> None:
    engine = engine_with(max_num_seqs=3)
    for at_s in (2.0, 0.5, 0.5, 1.0):
        engine.arrive(8, predicted=5, at_s=at_s)
    assert [one.request_id for one in engine.step()] == [1, 2, 3]


def test_a_lone_one_is_let_in_though_it_reserves_more_than_there_is() -> None:
    engine = engine_with(usable_blocks=10)
    lone = engine.arrive(16, predicted=600)
    engine.arrive(16, predicted=620)
    assert engine.step() == {lone: 16}
    small = engine.arrive(16, predicted=1)
    assert small not in engine.step()


def test_those_who_go_on_decode_in_the_step_that_evicts_another() -> None:
    engine = engine_with()
    wrong = engine.arrive(10, predicted=60)
    right = engine.arrive(10, predicted=600)
    for _ in range(64):
        engine.step()
    assert engine.step() == {right: 1}
    assert list(engine.last.preempted) == [wrong]
    assert engine.step() == {right: 1, wrong: 74}


def test_the_plan_is_promised_until_the_first_edge() -> None:
    engine = engine_with()
    engine.arrive(10, predicted=60)
    for _ in range(4):
        engine.step()
    assert engine.plan().plain
    assert engine.policy.stable_steps() == 60


def test_with_a_perfect_prediction_nothing_is_ever_evicted_where_fcfs_preempts() -> None:
    s3, fcfs = run("s3", 500, longest_tokens=2000), run("fcfs", 500)
    assert fcfs.requests["preemptions"].sum() > 50
    assert s3.requests["preemptions"].sum() == 0
    assert run("s3", 500, sigma=0.8).requests["preemptions"].sum() > 0


def test_more_run_at_once_than_with_a_reservation_of_the_declared_maximum() -> None:
    def mean_running(policy: str, **parameters: Any) -> float:
        rows = run(policy, 1500, **parameters).strides
        return float((rows["decode_seqs"] * rows["steps"]).sum() / rows["steps"].sum())

    assert mean_running("s3", longest_tokens=2000) > 1.5 * mean_running("s3", longest_tokens=2000, buckets=1)


def test_strides_are_exact_and_nothing_is_lost() -> None:
    with registered(S3, buckets=4, longest_tokens=20) as name:
        holds(name, 15)
    holds("s3", 5)


def test_a_sequence_is_in_one_place_of_the_line_only() -> None:
    engine = engine_with(max_num_seqs=1)
    waiting: list[Sequence] = [engine.arrive(8, predicted=tokens) for tokens in (5, 70, 70, 300)]
    engine.policy.queue.take([waiting[2], waiting[0]])
    assert [engine.policy.queue.peek(index) for index in range(2)] == [waiting[3], waiting[1]]
