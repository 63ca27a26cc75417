from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from servsim.scenario.arrival_spec import TimeDistribution
from servsim.workload.times import time_quantiles

U = np.array([0.0, 0.25, 0.5, 0.75])


@pytest.mark.parametrize(
    ("distribution", "expected_s"),
    [
        (1.5, [1.5, 1.5, 1.5, 1.5]),
        ({"distribution": "uniform", "min_s": 1.0, "max_s": 5.0}, [1.0, 2.0, 3.0, 4.0]),
        ({"distribution": "exponential", "mean_s": 2.0}, [0.0, 2 * np.log(4 / 3), 2 * np.log(2), 2 * np.log(4)]),
        (
            {"distribution": "lognormal", "median_s": 3.0, "sigma": 2.0},
            [0.0, 3 * np.exp(-2 * 0.6744897501960817), 3.0, 3 * np.exp(2 * 0.6744897501960817)],
        ),
    ],
)
def test_times_are_the_quantiles_of_their_distribution(distribution: Any, expected_s: list[float]) -> None:
    spec = TypeAdapter(TimeDistribution).validate_python(distribution)
    assert time_quantiles(spec)(U) == pytest.approx(expected_s, rel=1e-12)
