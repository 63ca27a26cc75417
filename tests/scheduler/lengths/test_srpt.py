"""Shortest predicted rest first, displacing longer ones that run."""

from __future__ import annotations

import numpy as np
import pytest
from assembly import Assembly
from by_hand import ByHand
from case import Asked, Case
from exactly import holds, registered
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from test_policies_differ import run

from servsim.cost.fixed import FixedCost
from servsim.metrics.token_times import token_times
from servsim.scheduler.displacing import DisplacingBatching
from servsim.scheduler.engines.past_future import PastFutureAdmission, PastFutureParameters
from servsim.scheduler.lengths.sjf import Sjf
from servsim.scheduler.lengths.srpt import RemainingOrder, Srpt
from servsim.scheduler.policy import Surroundings


def test_golden_a_shorter_newcomer_takes_the_only_place_at_the_next_boundary() -> None:
    requests = (Asked(0.0, 4, 6, 6), Asked(0.3, 4, 2, 2))
    case = Case(requests, FixedCost(0.25, 0.125), policy="srpt", max_num_seqs=1)
    records = Assembly(case).run()
    # At 0.375 the first has emitted 2 and lacks 4; the second lacks 2, and goes. Then 6 tokens are prefilled again.
    assert token_times(records, 0).tolist() == [0.25, 0.375, 1.0, 1.125, 1.25, 1.375]
    assert token_times(records, 1).tolist() == [0.625, 0.75]
    assert records.requests["preemptions"].tolist() == [1, 0]


def test_fcfs_and_sjf_let_the_long_one_finish() -> None:
    requests = (Asked(0.0, 4, 6, 6), Asked(0.3, 4, 2, 2))
    for policy in ("fcfs", "sjf"):
        records = Assembly(Case(requests, FixedCost(0.25, 0.125), policy=policy, max_num_seqs=1)).run()
        assert records.requests["finish_s"].tolist() == [0.875, 1.25]


def test_what_counts_is_the_rest_and_not_the_whole() -> None:
    engine = ByHand(Srpt, max_num_seqs=1)
    long = engine.arrive(8, predicted=20)
    for _ in range(15):
        engine.step()  # 15 emitted, 5 left
    engine.arrive(8, predicted=6)
    assert engine.step() == {long: 1}
    shorter = engine.arrive(8, predicted=3)
    assert engine.step() == {shorter: 8}  # 4 left against 3
    assert list(engine.last.preempted) == [long]
    assert engine.policy.head() is long  # with 4 left, in front of the 6


@pytest.mark.parametrize(("margin", "displaced"), [(0, True), (9, True), (10, False)])
def test_one_gives_way_only_by_more_than_the_margin(margin: float, displaced: bool) -> None:
    engine = ByHand(Srpt, max_num_seqs=1, parameters=Srpt.Parameters(margin_tokens=margin))
    engine.arrive(8, predicted=21)
    engine.step()  # 20 left
    engine.arrive(8, predicted=10)
    engine.step()
    assert bool(engine.last.preempted) == displaced


def test_the_largest_rest_gives_way_and_several_do_in_one_step() -> None:
    engine = ByHand(Srpt, max_num_seqs=3)
    for tokens in (50, 90, 70):
        engine.arrive(8, predicted=tokens)
    engine.step()
    for tokens in (10, 60):
        engine.arrive(8, predicted=tokens)
    engine.step()
    assert [one.request_id for one in engine.last.preempted] == [1, 2]
    assert [one.request_id for one, _ in engine.last.prefills] == [3, 4]
    assert engine.last.decode


def test_one_without_memory_takes_that_of_a_longer_one_if_it_fits_then() -> None:
    engine = ByHand(Srpt, usable_blocks=6, block_size=4)
    engine.arrive(7, predicted=90)
    engine.arrive(7, predicted=40)
    engine.step()  # two blocks each, two free
    too_long = engine.arrive(20, predicted=5)
    engine.step()
    assert not engine.last.preempted  # five blocks would be needed, four would be free
    engine.policy.queue.remove(too_long)
    engine.arrive(11, predicted=6)
    engine.step()
    assert [one.request_id for one in engine.last.preempted] == [0]


def test_beyond_its_prediction_a_sequence_is_a_token_from_its_end() -> None:
    engine = ByHand(Srpt, max_num_seqs=1)
    wrong = engine.arrive(8, predicted=3)
    for _ in range(9):
        engine.step()
    engine.arrive(8, predicted=1)
    assert engine.step() == {wrong: 1}


def test_or_is_believed_to_be_half_done_each_time_it_is_reached() -> None:
    engine = ByHand(Srpt, max_num_seqs=1, parameters=Srpt.Parameters(beyond="double"))
    wrong = engine.arrive(8, predicted=3)
    rests = []
    for _ in range(13):
        rests.append(engine.policy.queue.urgency(wrong)[0])
        engine.step()
    assert rests == [3, 2, 1, 3, 2, 1, 6, 5, 4, 3, 2, 1, 12]
    engine.arrive(8, predicted=12)
    assert engine.step() == {wrong: 1}
    other = engine.arrive(8, predicted=9)
    assert engine.step() == {other: 8}


def test_the_order_is_promised_until_a_belief_ends() -> None:
    engine = ByHand(Srpt, max_num_seqs=1, parameters=Srpt.Parameters(beyond="double"))
    engine.arrive(8, predicted=20)
    engine.step()
    engine.arrive(8, predicted=200)
    engine.step()  # 2 emitted
    assert engine.plan().plain
    assert engine.policy.stable_steps() == 18
    certain = ByHand(Srpt, max_num_seqs=1)
    certain.arrive(8, predicted=20)
    certain.step()
    certain.arrive(8, predicted=200)
    assert certain.policy.stable_steps() > 1 << 50


@examples(60)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9), st.integers(1, 12)), min_size=1, max_size=10))
def test_where_coming_back_costs_nothing_no_other_order_ends_them_sooner_on_the_mean(drawn: list) -> None:
    """One place, and a prefill, which emits the next token, takes as long as a decode step: Schrage's theorem."""
    requests = tuple(Asked(at / 8, prompt, output, output) for at, prompt, output in sorted(drawn))

    def total_s(policy: str) -> float:
        case = Case(requests, FixedCost(1 / 8, 1 / 8), policy=policy, max_num_seqs=1)
        return float(Assembly(case).run().requests["finish_s"].sum())

    assert total_s("srpt") <= min(total_s(other) for other in ("fcfs", "sjf", "shortest_prompt_first", "ltr"))


def test_in_a_long_line_the_mean_time_in_the_system_is_less_than_with_fcfs() -> None:
    def mean_s(name: str) -> float:
        rows = run(name, None).requests
        return float((rows["finish_s"] - rows["arrival_s"]).mean())

    assert mean_s("srpt") < 0.6 * mean_s("fcfs")


def test_predictions_that_are_all_alike_displace_nobody() -> None:
    engine, other = ByHand(Srpt, max_num_seqs=2), ByHand(Sjf, max_num_seqs=2)
    for one in (engine, other):
        for _ in range(5):
            one.arrive(8, predicted=5)
    for _ in range(4):
        assert [a.request_id for a in engine.step()] == [a.request_id for a in other.step()]
        assert not engine.last.preempted


def test_strides_are_exact_and_nothing_is_lost() -> None:
    holds("srpt")
    with registered(Srpt, beyond="double", margin_tokens=2) as name:
        holds(name)


def test_in_tight_memory_everything_ends() -> None:
    records = run("srpt", 500)
    assert np.isfinite(records.requests["finish_s"]).all()
    assert records.requests["preemptions"].sum() > 50


class Combined(DisplacingBatching):
    """The order of one policy with the admission of another."""

    Parameters = PastFutureParameters

    def __init__(self, surroundings: Surroundings) -> None:
        admission = PastFutureAdmission(surroundings, surroundings.parameters)
        super().__init__(surroundings, RemainingOrder(surroundings.running), admission)


def test_the_order_goes_with_another_policys_admission() -> None:
    with registered(Combined, default_output_tokens=8, window=3) as name:
        holds(name)


def test_what_the_displaced_one_would_grow_by_is_the_newcomers_as_well() -> None:
    engine = ByHand(Srpt, usable_blocks=3, block_size=4)
    engine.arrive(8, predicted=90)
    engine.step()  # two full blocks: its next token needs the third
    shorter = engine.arrive(12, predicted=5)
    assert engine.step() == {shorter: 12}
