from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from scipy import stats
from scipy.special import ndtri

from servsim.errors import TraceError
from servsim.scenario.length_spec import ExplicitLengths, TokenDistribution
from servsim.workload.lengths import length_pairs, quantiles
from servsim.workload.normal import normal_cdf, normal_quantile

GRID = (np.arange(200_000) + 0.5) / 200_000


def drawn(**distribution: Any) -> np.ndarray:
    return quantiles(TypeAdapter(TokenDistribution).validate_python(distribution))(GRID)


def pairs(lengths: dict[str, Any], u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return length_pairs(TypeAdapter(ExplicitLengths).validate_python(lengths))(u, v)


def test_normal_quantiles_agree_with_scipy() -> None:
    grid = np.concatenate([GRID, np.logspace(-300, -1, 3000), 1 - np.logspace(-16, -1, 500)])
    assert normal_quantile(grid) == pytest.approx(ndtri(grid), rel=1e-13, abs=1e-15)
    assert normal_quantile(np.array([0.0, 0.5, 1.0])).tolist() == [-np.inf, 0.0, np.inf]
    assert normal_cdf(1.3) == pytest.approx(float(stats.norm.cdf(1.3)), rel=1e-14)


def test_fixed_lengths_are_all_the_same() -> None:
    assert set(drawn(distribution="fixed", value=7).tolist()) == {7}


def test_uniform_lengths_include_both_bounds_equally_often() -> None:
    values, counts = np.unique(drawn(distribution="uniform", min=3, max=6), return_counts=True)
    assert values.tolist() == [3, 4, 5, 6]
    assert counts.tolist() == [50_000] * 4


def test_lognormal_lengths_have_their_median_and_spread() -> None:
    found = drawn(distribution="lognormal", median=500.0, sigma=0.8)
    assert np.median(found) == 500
    assert np.std(np.log(found)) == pytest.approx(0.8, rel=0.01)


def test_a_bounded_lognormal_is_cut_off_and_not_piled_up() -> None:
    found = drawn(distribution="lognormal", median=500.0, sigma=1.0, min=100, max=1000)
    assert found.min() == 100 and found.max() == 1000
    free = stats.lognorm(s=1.0, scale=500)
    inside = free.cdf(1000.5) - free.cdf(99.5)
    for length in (150, 400, 900):
        expected = (free.cdf(length + 0.5) - free.cdf(99.5)) / inside
        assert np.mean(found <= length) == pytest.approx(expected, abs=1e-4)
    assert np.mean(found == 1000) < 0.001


def test_zipf_probabilities_fall_with_the_power() -> None:
    found = drawn(distribution="zipf", exponent=1.5, max=50)
    shares = np.bincount(found, minlength=51)[1:] / len(found)
    expected = np.arange(1, 51) ** -1.5
    assert shares == pytest.approx(expected / expected.sum(), abs=2e-5)


def test_geometric_lengths_have_no_memory() -> None:
    found = drawn(distribution="geometric", mean=20.0)
    assert found.mean() == pytest.approx(20, rel=0.001)
    assert found.min() == 1
    assert found.var() == pytest.approx(20 * 19, rel=0.01)
    assert set(drawn(distribution="geometric", mean=1).tolist()) == {1}


def test_quantile_tables_are_linear_in_between() -> None:
    found = drawn(distribution="quantiles", table=[[0, 10], [0.5, 10], [0.75, 30], [1, 1000]])
    assert np.mean(found == 10) == pytest.approx(0.506, abs=0.001)
    assert np.quantile(found, [0.625, 0.75, 1]).tolist() == [20, 30, 1000]


@given(
    st.sampled_from(
        [
            {"distribution": "uniform", "min": 1, "max": 9},
            {"distribution": "lognormal", "median": 3.0, "sigma": 2.0},
            {"distribution": "lognormal", "median": 3.0, "sigma": 2.0, "min": 2, "max": 11},
            {"distribution": "zipf", "exponent": 0.5, "min": 3, "max": 99},
            {"distribution": "geometric", "mean": 4.0},
            {"distribution": "quantiles", "table": [[0, 1], [0.2, 1], [1, 8]]},
        ]
    ),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=1),
)
def test_lengths_are_at_least_1_and_rise_with_the_uniform(distribution: dict[str, Any], numbers: list[float]) -> None:
    u = np.sort(np.array(numbers))
    found = quantiles(TypeAdapter(TokenDistribution).validate_python(distribution))(u)
    assert found.dtype == np.int64
    assert found.min() >= distribution.get("min", 1)
    assert found.max() <= distribution.get("max", 1 << 40)
    assert np.all(np.diff(found) >= 0)


def test_outputs_given_the_prompt_come_from_its_range() -> None:
    lengths = {
        "prompt_tokens": {"distribution": "uniform", "min": 1, "max": 3},
        "output_tokens": {
            "distribution": "given_prompt",
            "bins": [
                {"up_to": 1, "table": [[0, 10], [1, 10]]},
                {"up_to": 2, "table": [[0, 20], [1, 20]]},
                {"table": [[0, 30], [1, 32]]},
            ],
        },
    }
    prompts, outputs = pairs(lengths, np.array([0.1, 0.5, 0.9, 0.9]), np.array([0.5, 0.5, 0.0, 0.999]))
    assert prompts.tolist() == [1, 2, 3, 3]
    assert outputs.tolist() == [10, 20, 30, 32]


def test_a_joint_table_keeps_its_pairs_together(tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text("id,in,out\na,5,50\nb,7,70\n")
    lengths = {"table": str(table), "prompt_column": "in", "output_column": "out"}
    prompts, outputs = pairs(lengths, np.array([0.0, 0.49, 0.5, 0.99]), np.zeros(4))
    assert prompts.tolist() == [5, 5, 7, 7]
    assert outputs.tolist() == [50, 50, 70, 70]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt_tokens,output_tokens\n", "pairs.csv: the table has no rows"),
        ("prompt_tokens,output_tokens\n5,1\n0,1\n", "pairs.csv:3: prompt_tokens is 0"),
        ("prompt_tokens,output_tokens\n5,1\n5,x\n", "pairs.csv:3: output_tokens is 'x'"),
        ("prompts,output_tokens\n5,1\n", "pairs.csv:1: there is no column 'prompt_tokens'"),
    ],
)
def test_a_wrong_joint_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text(text)
    with pytest.raises(TraceError) as caught:
        pairs({"table": str(table)}, np.zeros(1), np.zeros(1))
    assert message in str(caught.value)
