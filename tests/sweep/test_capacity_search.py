from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servsim.sweep import Bracket, Search, search_capacity


def step_at(limit: float):
    """An attainment that is whole up to a rate, and nothing above."""
    return lambda rate: 1.0 if rate <= limit else 0.0


@given(limit=st.floats(0.01, 1000), start=st.floats(0.1, 100), tolerance=st.floats(0.001, 0.5))
def test_the_bracket_holds_the_limit_and_is_as_narrow_as_asked(limit, start, tolerance):
    search = Search(0.9)
    search_capacity(search, step_at(limit), start, tolerance=tolerance)
    keeps, fails = search.bracket.keeps_per_s, search.bracket.fails_per_s
    if keeps is None or fails is None:  # beyond a factor of 4,096
        assert not start / 4096 <= limit <= start * 2048
        return
    assert keeps <= limit <= fails
    assert fails - keeps <= tolerance * fails
    assert search.monotone


def test_given_ends_are_probed_first_and_never_passed():
    search = Search(0.9)
    search_capacity(search, step_at(50), 1, low_per_s=10, high_per_s=20)
    assert [probe.rate_per_s for probe in search.probes] == [10, 20]
    assert search.bracket == Bracket(20, None)
    search = Search(0.9)
    search_capacity(search, step_at(5), 1, low_per_s=10)
    assert search.bracket == Bracket(None, 10)


def test_only_one_given_end_leaves_the_other_to_be_found():
    search = Search(0.9)
    search_capacity(search, step_at(50), 1, low_per_s=10, tolerance=0.01)
    keeps, fails = search.bracket.keeps_per_s, search.bracket.fails_per_s
    assert keeps <= 50 <= fails


def test_what_nothing_keeps_ends_without_a_capacity():
    search = Search(0.9)
    search_capacity(search, lambda _: 0.5, 10)
    assert search.bracket.keeps_per_s is None
    assert len(search.probes) < 20


def test_probes_that_rise_again_are_told():
    search = Search(0.9)
    found = {10: 0.95, 20: 0.5, 15: 0.6, 12.5: 0.4}
    search_capacity(search, lambda rate: found.get(rate, 0.1), 10, tolerance=0.25)
    assert not search.monotone
    assert search.bracket == Bracket(10, 12.5)


def test_an_interrupt_leaves_the_probes_so_far():
    search = Search(0.9)

    def measure(rate: float) -> float:
        if len(search.probes) == 2:
            raise KeyboardInterrupt
        return 1.0

    with pytest.raises(KeyboardInterrupt):
        search_capacity(search, measure, 1.0)
    assert search.bracket == Bracket(2.0, None)
