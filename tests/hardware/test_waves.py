"""Products take whole waves of whole tiles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servsim.hardware.waves import wave_factor


def test_one_row_more_opens_another_wave() -> None:
    # 1,024 x 4,096 on 142 processors: 128 tiles of 128 x 256 (one wave); 1,025 rows: 144 tiles (two waves).
    one = 142 * 128 * 256 / (1024 * 4096)
    two = min(2.0, 2 * 142 * 128 * 256 / (1025 * 4096))
    assert wave_factor(1025, 4096, 142) / wave_factor(1024, 4096, 142) > 1.15
    assert (one, two) == pytest.approx((1.109, 2.0), abs=1e-3)


def test_tiles_that_fill_their_waves_cost_nothing() -> None:
    assert wave_factor(128 * 16, 256 * 16, 128) == pytest.approx(1.0)


@given(st.integers(1, 20000), st.integers(1, 100000), st.integers(1, 200))
def test_a_factor_lies_between_one_and_two(rows: int, columns: int, processors: int) -> None:
    assert 1.0 - 1e-12 <= wave_factor(rows, columns, processors) <= 2.0 + 1e-12
