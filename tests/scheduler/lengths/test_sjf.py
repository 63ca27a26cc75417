"""Shortest predicted output first on vLLM v1's batching: its priority mode."""

from __future__ import annotations

import pytest
from by_hand import ByHand

from servsim.request import Request
from servsim.scheduler.engines.fcfs import Fcfs
from servsim.scheduler.lengths.sjf import Sjf
from servsim.scheduler.predictors import LognormalNoise, Oracle
from servsim.streams import Streams


def test_the_shortest_prediction_is_admitted_first_where_fcfs_takes_the_oldest() -> None:
    def admitted(policy: type) -> list[int]:
        engine = ByHand(policy, max_num_seqs=2)
        for tokens in (300, 20, 100, 10):
            engine.arrive(8, predicted=tokens)
        return [one.request_id for one in engine.step()]

    assert admitted(Fcfs) == [0, 1]
    assert admitted(Sjf) == [3, 1]


def test_equal_predictions_are_served_in_order_of_arrival() -> None:
    engine = ByHand(Sjf, max_num_seqs=3)
    for at_s in (2.0, 0.5, 0.5, 1.0):
        engine.arrive(8, predicted=7, at_s=at_s)
    assert [one.request_id for one in engine.step()] == [1, 2, 3]


def test_a_shorter_newcomer_displaces_nobody_who_runs() -> None:
    engine = ByHand(Sjf, max_num_seqs=1)
    long = engine.arrive(8, predicted=500)
    engine.step()
    engine.arrive(8, predicted=1)
    assert engine.step() == {long: 1}


def test_without_memory_the_longest_prediction_is_preempted_wherever_it_stands() -> None:
    def victims(policy: type) -> list[int]:
        engine = ByHand(policy, usable_blocks=6, block_size=4)
        for tokens in (900, 10, 20):
            engine.arrive(8, predicted=tokens)
        engine.step()
        engine.step()
        return [one.request_id for one in engine.last.preempted]

    assert victims(Fcfs) == [2]
    assert victims(Sjf) == [0]


def test_one_that_is_its_own_victim_ends_the_walk_and_those_behind_it_miss_the_step() -> None:
    engine = ByHand(Sjf, usable_blocks=6, block_size=4)
    before = engine.arrive(3, predicted=1)
    engine.step()
    long = engine.arrive(6, predicted=900)
    engine.step()
    behind = engine.arrive(5, predicted=5)
    assert engine.step() == {before: 1, long: 1, behind: 5}
    assert engine.step() == {before: 1, long: 1, behind: 1}
    assert [engine.running.kv_tokens(one) for one in (before, long, behind)] == [6, 8, 6]  # two blocks each
    assert engine.step() == {before: 1}  # long needs a third block, and nobody has a larger key
    assert list(engine.last.preempted) == [long]
    assert list(engine.last.left_out) == [behind]
    assert engine.step() == {before: 1, behind: 1}


def test_a_preempted_one_waits_where_its_prediction_puts_it() -> None:
    engine = ByHand(Sjf, usable_blocks=6, block_size=4)
    for tokens in (900, 10, 20):
        engine.arrive(8, predicted=tokens)
    engine.step()
    small = engine.arrive(8, predicted=30)
    engine.step()
    assert engine.policy.head() is small  # in front of the preempted one, which came first


def test_the_oracle_knows_and_noise_of_zero_is_the_oracle() -> None:
    stream = Streams(0).get("predictor")
    request = Request(7, 0.0, 10, 123, 1024)
    assert Oracle(None, stream).predict(request) == 123
    assert LognormalNoise(LognormalNoise.Parameters(sigma=0.0), stream).predict(request) == 123


def test_noise_belongs_to_the_request_and_not_to_the_order_of_asking() -> None:
    def predictor() -> LognormalNoise:
        return LognormalNoise(LognormalNoise.Parameters(sigma=0.7), Streams(3).get("predictor"))

    requests = [Request(index, 0.0, 10, 100, 1024) for index in (0, 5, 9000)]
    forwards, backwards = predictor(), predictor()
    guessed = [forwards.predict(one) for one in requests]
    assert guessed == [backwards.predict(one) for one in reversed(requests)][::-1]
    assert len(set(guessed)) == 3


def test_noise_has_the_stated_spread_in_the_logarithm() -> None:
    import numpy as np

    noisy = LognormalNoise(LognormalNoise.Parameters(sigma=0.5), Streams(0).get("predictor"))
    logs = np.log([noisy.predict(Request(index, 0.0, 1, 100, 1024)) / 100 for index in range(20_000)])
    assert logs.mean() == pytest.approx(0, abs=4 * 0.5 / 20_000**0.5)
    assert logs.std() == pytest.approx(0.5, rel=0.03)
