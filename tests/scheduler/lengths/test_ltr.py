"""LTR: by predicted rank, and a boost for those who were left out for many steps."""

from __future__ import annotations

from by_hand import ByHand
from exactly import holds, registered
from test_policies_differ import run, ttft_s

from servsim.scheduler.lengths.ltr import Ltr
from servsim.scheduler.lengths.srpt import Srpt


def engine_with(starvation_steps: int, boost_steps: int, places: int = 1) -> ByHand:
    parameters = Ltr.Parameters(starvation_steps=starvation_steps, boost_steps=boost_steps)
    return ByHand(Ltr, max_num_seqs=places, parameters=parameters)


def test_golden_three_steps_left_out_give_two_steps_in_front() -> None:
    engine = engine_with(3, 2)
    engine.arrive(8, predicted=100)
    engine.arrive(8, predicted=10)
    # Left out in the steps 1, 2, 3; then a prefill and a token; then the rank counts again, and 3 steps more.
    assert [next(iter(engine.step())).request_id for _ in range(10)] == [1, 1, 1, 0, 0, 1, 1, 1, 0, 0]


def test_the_count_of_steps_left_out_starts_anew_when_it_is_scheduled() -> None:
    engine = engine_with(4, 1000)
    engine.arrive(8, predicted=10)
    engine.step()
    long = engine.arrive(8, predicted=100)
    for _ in range(4):
        engine.step()
        assert long not in engine.running.sequences
    engine.step()
    assert long in engine.running.sequences


def test_a_running_one_gives_way_to_a_better_rank_whatever_is_left_of_it() -> None:
    def runs_on(policy: type) -> bool:
        engine = ByHand(policy, max_num_seqs=1)
        long = engine.arrive(8, predicted=20)
        for _ in range(18):
            engine.step()
        engine.arrive(8, predicted=15)
        return list(engine.step()) == [long]

    assert runs_on(Srpt)
    assert not runs_on(Ltr)


def test_a_boosted_one_gives_way_to_nobody_and_of_the_others_the_last_rank_does() -> None:
    engine = engine_with(2, 50, places=2)
    for tokens in (10, 20, 900):
        engine.arrive(8, predicted=tokens)
    engine.step()
    engine.step()
    engine.step()
    assert [one.request_id for one in engine.last.preempted] == [1]  # 900 takes the place of 20
    engine.arrive(8, predicted=1)
    engine.step()
    assert [one.request_id for one in engine.last.preempted] == [0]


def test_a_prefill_is_not_broken_off() -> None:
    engine = ByHand(Ltr, max_num_seqs=1, budget=4)
    long = engine.arrive(12, predicted=100)
    engine.step()
    engine.arrive(2, predicted=1)
    assert engine.step() == {long: 4}
    assert engine.step() == {long: 4}
    engine.step()
    assert list(engine.last.preempted) == [long]


def test_the_plan_is_promised_until_somebody_starves_or_a_boost_is_over() -> None:
    engine = engine_with(10, 4)
    engine.arrive(8, predicted=100)
    engine.arrive(8, predicted=10)
    engine.step()
    assert engine.plan().plain
    assert engine.policy.stable_steps() == 9
    for _ in range(10):
        engine.step()
    assert engine.plan().plain
    assert engine.policy.stable_steps() == 3


def test_the_boost_shortens_the_longest_wait_that_ranks_alone_would_cause() -> None:
    boosted = ttft_s(run("ltr", None, starvation_steps=150, boost_steps=100))
    alone = ttft_s(run("ltr", None, starvation_steps=1 << 30))
    fcfs = ttft_s(run("fcfs", None))
    assert boosted.max() < alone.max()
    assert boosted.mean() < fcfs.mean()


def test_strides_are_exact_and_nothing_is_lost() -> None:
    holds("ltr", 5)
    with registered(Ltr, starvation_steps=12, boost_steps=4) as name:
        holds(name)
