import math

import numpy as np
import pytest
import scipy.stats

from servsim.metrics import describe, mean_interval, rate_at
from servsim.metrics.statistics import student_t


def test_percentiles_interpolate_linearly_and_nan_are_left_out():
    found = describe(np.array([4.0, 1.0, math.nan, 3.0, 2.0]))
    assert found["count"] == 4
    assert (found["mean"], found["min"], found["max"], found["p50"]) == (2.5, 1.0, 4.0, 2.5)
    assert found["p90"] == pytest.approx(3.7) and found["p99"] == pytest.approx(3.97)
    assert found["std"] == pytest.approx(math.sqrt(1.25))


def test_a_sample_without_values_has_a_count_of_zero_and_no_statistics():
    found = describe(np.array([math.nan]))
    assert found.pop("count") == 0
    assert set(found.values()) == {None}


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 10, 29, 100])
def test_the_quantile_of_students_t_is_scipys(freedom):
    assert student_t(freedom) == pytest.approx(scipy.stats.t.ppf(0.975, freedom), rel=1e-9)


def test_an_interval_over_seeds_is_students():
    mean, half_width = mean_interval([1.0, 2.0, 4.0])
    assert mean == pytest.approx(7 / 3)
    assert half_width == pytest.approx(4.302652729911275 * np.std([1, 2, 4], ddof=1) / math.sqrt(3))


def test_a_single_seed_has_a_mean_and_no_interval():
    assert mean_interval([3.0]) == (3.0, None)


def test_the_rate_at_a_target_is_interpolated_where_attainment_first_falls_below_it():
    assert rate_at([1, 2, 4, 5], [1.0, 0.95, 0.85, 0.99], 0.9) == pytest.approx(3.0)


@pytest.mark.parametrize("attained", [[1.0, 0.95], [0.8, 0.95]])
def test_nothing_is_extrapolated_where_a_curve_does_not_bracket_the_target(attained):
    assert rate_at([1, 2], attained, 0.9) is None


def test_rates_that_do_not_rise_are_refused():
    with pytest.raises(ValueError, match="rise"):
        rate_at([2, 1], [1.0, 0.5], 0.9)
