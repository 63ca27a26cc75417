"""The peak of future memory use, and lengths drawn from the history of finished ones."""

from __future__ import annotations

import bisect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servsim.scheduler.engines.past_future import scenario_count
from servsim.scheduler.engines.peak import LengthHistory, expected_growth, pack, peak_tokens

REQUESTS = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 200)), min_size=1, max_size=30)


def peak(requests: list[tuple[int, int]]) -> int:
    held, remaining = np.array(requests, dtype=np.int64).T
    return int(peak_tokens(pack(held, remaining)[None, :])[0])


def history(*lengths: int) -> LengthHistory:
    """A full window of exactly these lengths."""
    window = LengthHistory(len(lengths), 1)
    for _ in range(2):
        for length in lengths:
            window.append(length)
    return window


def drawn(window: LengthHistory, generated: int, bound: int, uniform: float) -> int:
    one = window.draw_running(np.array([generated]), np.array([bound]), np.array([[uniform]]))
    return int(one[0, 0])


def test_the_peak_of_three_requests_worked_by_hand() -> None:
    assert peak([(10, 3), (20, 8), (5, 1)]) == 38  # max(28, 36, 38)
    assert peak([(10, 3), (20, 8), (5, 1), (6, 4)]) == 45


@given(REQUESTS)
def test_the_peak_is_the_most_that_any_future_step_holds(requests: list[tuple[int, int]]) -> None:
    by_step = [sum(a + step for a, b in requests if b >= step) for step in range(max(b for _, b in requests) + 1)]
    assert peak(requests) == max(by_step)


@given(REQUESTS)
def test_a_decode_step_leaves_the_peak_as_it_was(requests: list[tuple[int, int]]) -> None:
    steps = min(b for _, b in requests)
    for step in range(steps + 1):
        assert peak([(a + step, b - step) for a, b in requests]) == peak(requests)


def test_every_scenario_has_its_own_peak() -> None:
    packed = np.stack([pack(np.array([10, 20]), np.array([3, 8])), pack(np.array([1, 1]), np.array([0, 0]))])
    assert peak_tokens(packed).tolist() == [36, 2]


@pytest.mark.parametrize(("uniform", "total"), [(0.25, 14), (0.5, 20), (0.75, 26)])
def test_a_running_request_is_drawn_between_what_it_has_the_history_above_it_and_its_bound(
    uniform: float, total: int
) -> None:
    # {4, 8, 8, 20}, 8 emitted, bound 32: the grid is [8, 20, 32], and uniform numbers span its two intervals.
    assert drawn(history(4, 8, 8, 20), 8, 32, uniform) == total


def test_a_bound_that_the_history_reaches_does_not_end_the_grid() -> None:
    assert drawn(history(4, 8, 8, 20), 8, 16, 0.5) == 14  # the grid is [8, 20]; the caller caps it at 16


@pytest.mark.parametrize(("position", "total"), [(0.5, 14), (1.0, 20), (1.5, 18)])
def test_the_later_version_ends_the_grid_with_the_bound_wherever_it_lies(position: float, total: int) -> None:
    # The grid is [8, 20, 16]; the caller caps what is above 16.
    one = history(4, 8, 8, 20).draw_running(
        np.array([8]), np.array([16]), np.array([[position / 2]]), always_bounded=True
    )
    assert int(one[0, 0]) == total


@pytest.mark.parametrize(("uniform", "total"), [(0.25, 14), (0.5, 20), (0.75, 26)])
def test_both_versions_draw_alike_where_no_history_reaches_the_bound(uniform: float, total: int) -> None:
    one = history(4, 8, 8, 20).draw_running(np.array([8]), np.array([32]), np.array([[uniform]]), always_bounded=True)
    assert int(one[0, 0]) == total


def test_six_tokens_and_the_steps_of_pending_chunks_are_added_to_what_is_to_come() -> None:
    # Prompt 100, declared 50: new and whole, new and chunked, a chunked decoder with 10 tokens.
    generated, chunk_steps = np.array([0, 0, 10]), np.array([0, 7, 7])
    assert expected_growth(generated, np.array([50, 50, 50]), chunk_steps).tolist() == [55, 62, 52]


def test_with_no_history_above_it_the_draw_is_uniform_up_to_the_bound() -> None:
    assert drawn(history(4, 8), 25, 33, 0.0) == 25
    assert drawn(history(4, 8), 25, 33, 0.5) == 29
    assert drawn(history(4, 8), 25, 33, 0.999999) == 33


@pytest.mark.parametrize("uniform", [0.0, 0.5, 0.999999])
def test_a_request_at_or_past_its_bound_is_drawn_as_what_it_has(uniform: float) -> None:
    assert drawn(history(4, 8, 8, 20), 32, 32, uniform) == 32
    assert drawn(history(4, 8, 8, 20), 40, 32, uniform) == 40


@given(
    lengths=st.lists(st.integers(1, 60), min_size=2, max_size=12),
    generated=st.integers(0, 70),
    bound=st.integers(1, 80),
    uniform=st.floats(0, 0.999999),
)
def test_draws_follow_the_grid_written_out(lengths: list[int], generated: int, bound: int, uniform: float) -> None:
    ordered = sorted(lengths)
    grid = [generated, *ordered[bisect.bisect_right(ordered, generated) :]]
    if ordered[-1] < bound:
        grid.append(bound)
    position = uniform * (len(grid) - 1)
    low = int(position)
    expected = grid[low]
    if low + 1 < len(grid):
        expected = round(grid[low] + (grid[low + 1] - grid[low]) * (position - low))
    assert drawn(history(*lengths), generated, bound, uniform) == max(expected, generated)


def test_a_waiting_request_is_drawn_from_the_whole_history_as_it_stands() -> None:
    window = history(4, 8, 8, 20)
    assert window.draw_waiting(np.array([0.0, 0.3, 0.6, 0.9])).tolist() == [4, 8, 8, 20]


def test_half_of_the_window_starts_as_the_default_and_is_washed_out_by_one_window_of_outputs() -> None:
    window = LengthHistory(200, 1024)
    assert window.lengths.tolist() == [1024] * 100
    for _ in range(100):
        window.append(7)
    assert window.lengths.tolist() == [7] * 100 + [1024] * 100
    for _ in range(100):
        window.append(7)
    assert window.lengths.tolist() == [7] * 200


def test_the_oldest_length_leaves_a_full_window() -> None:
    window = history(1, 2, 3, 4)
    window.append(9)
    assert window.lengths.tolist() == [2, 3, 4, 9]


def test_the_number_of_scenarios_falls_with_the_batch() -> None:
    counts = {1: 5, 50: 5, 66: 4, 67: 3, 100: 3, 199: 2, 200: 2, 201: 1, 1000: 1}
    assert {batch: scenario_count(batch) for batch in counts} == counts
    assert {scenario_count(batch) for batch in range(1, 51)} == {5}
    assert {scenario_count(batch) for batch in range(67, 101)} == {3}
    assert scenario_count(0) == 5
