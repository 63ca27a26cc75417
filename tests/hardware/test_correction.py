"""A grid of factors: given at its knots, straight in logarithms in between, held at its edges."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servsim.documents import Document, validate
from servsim.errors import ScenarioError
from servsim.hardware import Correction, Efficiency

AXES = [{"name": "m", "knots": [1, 4, 64]}, {"name": "n", "knots": [10, 1000]}, {"name": "k", "knots": [1, 2, 3]}]
FACTORS = [500 + 37 * (7 * index % 18) for index in range(18)]
GRID = Correction(axes=AXES, thousandths=" ".join(map(str, FACTORS))).grid
PLACE = st.floats(0.1, 1e5)


def test_factors_are_those_of_the_knots_with_the_last_axis_fastest() -> None:
    found = [GRID.factor(m, n, k) for m in (1, 4, 64) for n in (10, 1000) for k in (1, 2, 3)]
    assert found == pytest.approx([value / 1000 for value in FACTORS])


def test_between_knots_logarithms_are_straight_and_beyond_the_edges_nothing_changes() -> None:
    middle = GRID.factor(2, 10, 1)  # half way from 1 to 4
    assert middle == pytest.approx(math.sqrt(GRID.factor(1, 10, 1) * GRID.factor(4, 10, 1)))
    assert GRID.factor(0.01, 5, 1) == GRID.factor(1, 10, 1) and GRID.factor(1e9, 10, 99) == GRID.factor(64, 10, 3)


@given(PLACE, PLACE, PLACE)
def test_a_grid_held_at_its_last_axes_is_the_same_grid(m: float, n: float, k: float) -> None:
    assert GRID.at_last(n, k).factor_on_line(m) == pytest.approx(GRID.factor(m, n, k))
    assert GRID.at_last(k).factor_on_plane(m, n) == pytest.approx(GRID.factor(m, n, k))


def efficiency(**changes: object) -> Efficiency:
    entry = {"operator": "gemm", "compute": 0.8, "memory": 0.8, "overhead_s": 1e-6, "source": "a test"}
    return validate(Efficiency, entry | changes, document=Document(None, entry | changes))


@pytest.mark.parametrize(
    ("correction", "message"),
    [
        ({"axes": AXES, "thousandths": "1000 1000"}, "18 points together, found 2 factors"),
        ({"axes": AXES, "thousandths": "1000 " * 17 + "0"}, "must be greater than 0"),
        ({"axes": [{"name": "m", "knots": [4, 1]}], "thousandths": "1000 1000"}, "the knots must rise"),
        ({"axes": AXES[:1], "thousandths": "1000 " * 3}, "gemm is corrected by m, n, k"),
    ],
)
def test_a_grid_that_is_none_is_refused(correction: dict[str, object], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        efficiency(correction=correction)


def test_only_experts_have_tiles_and_elementwise_work_has_no_correction() -> None:
    with pytest.raises(ScenarioError, match="tile_rows is for experts"):
        efficiency(tile_rows=16)
    for name in ("regrouping_s", "several_heads_s"):
        with pytest.raises(ScenarioError, match=f"{name} is for attention_decode"):
            efficiency(**{name: 1e-6})
    whole = {"axes": AXES, "thousandths": "1000 " * 18}
    with pytest.raises(ScenarioError, match="elementwise has no correction"):
        efficiency(operator="elementwise", correction=whole)
