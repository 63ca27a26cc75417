from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from servsim.scenario.workload_spec import SyntheticWorkload
from servsim.streams import Streams
from servsim.workload import ClosedLoop, RequestStream, open_stream


def stream(think_time_s: Any, *, seed: int = 0, **changes: Any) -> RequestStream:
    arrivals = {"process": "closed_loop", "concurrency": 3, "think_time_s": think_time_s}
    lengths = {"prompt_tokens": 9, "output_tokens": {"distribution": "geometric", "mean": 9.0}}
    data = {"arrivals": arrivals, "lengths": lengths, "num_requests": 10} | changes
    return open_stream(SyntheticWorkload.model_validate(data), Streams(seed))


def loop(think_time_s: Any, seed: int = 0) -> ClosedLoop:
    found = stream(think_time_s, seed=seed).closed_loop
    assert found is not None
    return found


def test_every_user_asks_first_at_0_and_later_times_are_left_to_the_simulation() -> None:
    block = next(stream(0).blocks())
    assert block.arrival_s[:3].tolist() == [0, 0, 0]
    assert np.isnan(block.arrival_s[3:]).all()
    assert len(block) == 10


def test_an_open_stream_has_no_loop() -> None:
    assert stream(0, arrivals={"process": "poisson", "rate_per_s": 1.0}).closed_loop is None


def test_think_times_do_not_depend_on_the_order_in_which_they_are_asked_for() -> None:
    exponential = {"distribution": "exponential", "mean_s": 2.0}
    one, other = loop(exponential), loop(exponential)
    forwards = [one.think_time_s(request_id) for request_id in range(5000)]
    backwards = [other.think_time_s(request_id) for request_id in reversed(range(5000))]
    assert forwards == backwards[::-1]
    assert forwards != [loop(exponential, seed=1).think_time_s(request_id) for request_id in range(5000)]


@pytest.mark.parametrize(
    ("distribution", "mean_s"),
    [
        (1.5, 1.5),
        ({"distribution": "exponential", "mean_s": 2.0}, 2.0),
        ({"distribution": "uniform", "min_s": 1.0, "max_s": 5.0}, 3.0),
        ({"distribution": "lognormal", "median_s": 2.0, "sigma": 0.5}, 2.0 * np.exp(0.125)),
    ],
)
def test_think_times_have_the_mean_of_their_distribution(distribution: Any, mean_s: float) -> None:
    found = loop(distribution)
    assert np.mean([found.think_time_s(request_id) for request_id in range(20_000)]) == pytest.approx(mean_s, rel=0.03)


def test_a_duration_is_handed_on_to_the_simulation() -> None:
    limited = stream(0, num_requests=None, duration_s=5.0)
    assert limited.duration_s == 5
    assert limited.num_requests is None
    blocks = limited.blocks()
    assert len(next(blocks)) > 1000  # as many as the loop has time for
    assert np.isnan(next(blocks).arrival_s).all()


def test_think_times_shift_no_length() -> None:
    still, thinking = next(stream(0).blocks()), next(stream({"distribution": "exponential", "mean_s": 2.0}).blocks())
    assert np.array_equal(still.output_tokens, thinking.output_tokens)
