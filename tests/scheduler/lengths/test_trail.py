"""TRAIL: refreshed estimates, and displacement only up to c of the first prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from by_hand import ByHand
from exactly import holds, registered
from test_policies_differ import run

from servsim.scheduler.lengths.srpt import Srpt
from servsim.scheduler.lengths.trail import Trail
from servsim.streams import Streams


def engine_with(places: int = 1, **parameters: Any) -> ByHand:
    return ByHand(Trail, max_num_seqs=places, parameters=Trail.Parameters(**parameters))


def estimates(predicted: float, upto: int, **parameters: Any) -> list[float]:
    """What a sequence alone is believed to lack after each token."""
    engine = engine_with(**parameters)
    sequence = engine.arrive(8, predicted=predicted)
    found = []
    for _ in range(upto):
        found.append(round(engine.policy.queue.urgency(sequence)[1], 9))
        engine.step()
    return found


def test_golden_an_estimate_counts_down_and_is_the_middle_of_a_bin_every_8_tokens() -> None:
    # Bins of 51.2 tokens. After 8 tokens 92 are left: the second bin, 76.8 in its middle; after 56, 44: the first.
    found = estimates(100, 60)
    assert found[:10] == [100, 99, 98, 97, 96, 95, 94, 93, 76.8, 75.8]
    assert found[15:18] == [69.8, 76.8, 75.8]
    assert found[55:58] == [69.8, 25.6, 24.6]


def test_more_than_512_left_looks_like_the_last_bin() -> None:
    assert estimates(2000, 9)[8] == 486.4


def test_beyond_the_prediction_it_is_the_first_bin_again_and_again() -> None:
    assert estimates(10, 25)[16:25] == [25.6, 24.6, 23.6, 22.6, 21.6, 20.6, 19.6, 18.6, 25.6]


@pytest.mark.parametrize(("emitted", "displaced"), [(80, True), (81, False)])
def test_one_gives_way_until_it_has_emitted_c_times_its_prediction(emitted: int, displaced: bool) -> None:
    engine = engine_with()
    engine.arrive(8, predicted=100)
    for _ in range(emitted):
        engine.step()
    engine.arrive(8, predicted=1)
    engine.step()
    assert bool(engine.last.preempted) == displaced


def test_srpt_would_displace_that_one_too() -> None:
    engine = ByHand(Srpt, max_num_seqs=1)
    engine.arrive(8, predicted=100)
    for _ in range(81):
        engine.step()
    engine.arrive(8, predicted=1)
    engine.step()
    assert engine.last.preempted


def test_c_of_0_displaces_nobody() -> None:
    engine = engine_with(c=0)
    engine.arrive(8, predicted=100)
    engine.step()
    engine.arrive(8, predicted=1)
    engine.step()
    assert not engine.last.preempted


def test_one_is_swapped_for_one_the_largest_estimate_first() -> None:
    engine = engine_with(places=3)
    for tokens in (200, 400, 300):
        engine.arrive(8, predicted=tokens)
    engine.step()
    engine.arrive(8, predicted=50)
    engine.step()
    assert [one.request_id for one in engine.last.preempted] == [1]


@pytest.mark.parametrize("patch", [False, True])
def test_one_past_its_cutoff_that_lost_its_memory_goes_first_or_in_the_patch_last(patch: bool) -> None:
    engine = ByHand(Trail, usable_blocks=7, block_size=4, parameters=Trail.Parameters(late_goes_last=patch))
    engine.arrive(4, predicted=4)
    engine.arrive(4, predicted=4)
    while not (engine.step() and engine.last.preempted):
        pass
    assert [one.request_id for one in engine.last.preempted] == [1]
    late = engine.policy.head()
    engine.arrive(4, predicted=3)
    assert (engine.policy.head() is late) == (not patch)


def test_running_ones_before_their_cutoff_lose_their_memory_first() -> None:
    engine = engine_with(places=2)
    past = engine.arrive(8, predicted=10)
    before = engine.arrive(8, predicted=12)
    for _ in range(9):
        engine.step()
    order = engine.policy.queue
    assert order.urgency(before) > order.urgency(past)


def test_errors_of_estimates_have_the_stated_mean_and_belong_to_request_and_refresh() -> None:
    stream = Streams(0).get("trail")
    engine = ByHand(Trail, parameters=Trail.Parameters(refresh_mae_tokens=46.1), stream=stream)
    errors = engine.policy.queue._noise
    assert np.abs(errors).mean() == pytest.approx(46.1, rel=0.03)
    assert errors.std() == pytest.approx(57.78, rel=0.03)
    order = engine.policy.queue
    one, other = engine.arrive(8, predicted=300), engine.arrive(8, predicted=300)
    first, second = ([order._rest(sequence, 8 * refresh) for refresh in range(1, 20)] for sequence in (one, other))
    assert first != second
    assert first == [order._rest(one, 8 * refresh) for refresh in range(1, 20)]


def test_estimates_as_arrays_are_those_one_by_one() -> None:
    stream = Streams(0).get("trail")
    engine = ByHand(Trail, parameters=Trail.Parameters(refresh_mae_tokens=20), stream=stream)
    for tokens in (3, 30, 300, 3000):
        engine.arrive(8, predicted=tokens)
    order = engine.policy.queue
    for _ in range(40):
        engine.step()
        generated = order._progress.generated()
        found = order._rests(generated, generated // 8).tolist()
        assert found == [order.urgency(one)[1] for one in order._progress.members]


def test_a_smaller_c_displaces_less() -> None:
    displaced = [run("trail", None, c=c).requests["preemptions"].sum() for c in (0, 0.2, 0.8)]
    assert displaced[0] == 0 < displaced[1] < displaced[2]
    assert displaced[2] < run("srpt", None).requests["preemptions"].sum() * 2


def test_in_a_long_line_the_mean_time_in_the_system_is_less_than_with_fcfs() -> None:
    def mean_s(name: str) -> float:
        rows = run(name, None).requests
        return float((rows["finish_s"] - rows["arrival_s"]).mean())

    assert mean_s("trail") < 0.75 * mean_s("fcfs")


def test_strides_are_exact_and_nothing_is_lost() -> None:
    holds("trail", 5)
    settings = {"refresh_steps": 3, "bins": 4, "longest_tokens": 40, "c": 0.6}
    with registered(Trail, refresh_mae_tokens=8, **settings) as name:
        holds(name)
    with registered(Trail, late_goes_last=True, **settings) as name:
        holds(name)
