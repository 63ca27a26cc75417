from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from servsim.scenario.arrival_spec import ArrivalSpec
from servsim.streams import Streams
from servsim.workload.arrivals import arrival_times

SPEC = TypeAdapter(ArrivalSpec)
STATES = [{"rate_per_s": 40.0, "mean_dwell_s": 3.0}, {"rate_per_s": 0.0, "mean_dwell_s": 6.0}]
DAY = [
    {"start_s": 0.0, "rate_per_s": 0.0},
    {"start_s": 2.0, "rate_per_s": 10.0},
    {"start_s": 5.0, "rate_per_s": 1.0},
    {"start_s": 9.0, "rate_per_s": 0.0},
]
PROCESSES: dict[str, dict[str, Any]] = {
    "constant": {"process": "constant", "rate_per_s": 7.0},
    "poisson": {"process": "poisson", "rate_per_s": 7.0},
    "gamma": {"process": "gamma", "rate_per_s": 7.0, "burstiness": 0.3},
    "mmpp": {"process": "mmpp", "states": STATES},
    "piecewise": {"process": "piecewise", "rates": DAY, "period_s": 10.0},
}


def times(process: dict[str, Any], count: int, *, seed: int = 0, blocks: int = 1) -> np.ndarray:
    draw = arrival_times(SPEC.validate_python(process), Streams(seed))
    return np.concatenate([draw(count // blocks) for _ in range(blocks)])


@pytest.mark.parametrize("name", PROCESSES)
def test_arrivals_do_not_fall_and_are_the_same_whatever_the_block(name: str) -> None:
    whole = times(PROCESSES[name], 6000)
    assert np.all(np.diff(whole) >= 0)
    assert whole[0] >= 0
    assert np.array_equal(whole, times(PROCESSES[name], 6000, blocks=600))
    assert np.array_equal(whole[:60], times(PROCESSES[name], 60))


@pytest.mark.parametrize("name", ["poisson", "gamma", "mmpp"])
def test_another_seed_gives_other_arrivals(name: str) -> None:
    assert not np.array_equal(times(PROCESSES[name], 10), times(PROCESSES[name], 10, seed=1))


@pytest.mark.parametrize("name", ["constant", "poisson", "gamma"])
def test_another_rate_only_rescales_the_times(name: str) -> None:
    faster = times(PROCESSES[name] | {"rate_per_s": 28.0}, 1000)
    assert faster * 4 == pytest.approx(times(PROCESSES[name], 1000), rel=1e-12)


def test_constant_arrivals_begin_at_0_and_do_not_drift() -> None:
    assert times(PROCESSES["constant"], 15)[[0, 7, 14]].tolist() == [0.0, 1.0, 2.0]


def test_poisson_gaps_have_mean_and_variation_of_an_exponential() -> None:
    gaps = np.diff(times(PROCESSES["poisson"], 200_000))
    assert gaps.mean() == pytest.approx(1 / 7, rel=0.01)
    assert gaps.std() / gaps.mean() == pytest.approx(1, rel=0.01)
    assert np.mean(gaps > 2 / 7) == pytest.approx(np.exp(-2), rel=0.02)


@pytest.mark.parametrize("burstiness", [0.25, 4.0])
def test_the_variation_of_gamma_gaps_follows_burstiness_as_in_vllm(burstiness: float) -> None:
    gaps = np.diff(times({"process": "gamma", "rate_per_s": 5.0, "burstiness": burstiness}, 400_000))
    assert gaps.mean() == pytest.approx(0.2, rel=0.02)
    assert gaps.std() / gaps.mean() == pytest.approx(burstiness**-0.5, rel=0.02)


def test_gamma_with_burstiness_1_has_poisson_s_moments() -> None:
    gaps = np.diff(times({"process": "gamma", "rate_per_s": 5.0, "cv": 1.0}, 200_000))
    assert gaps.std() / gaps.mean() == pytest.approx(1, rel=0.01)


def test_piecewise_arrivals_follow_the_rates_in_every_period() -> None:
    found = times(PROCESSES["piecewise"], 100_000)
    hours = np.histogram(found % 10.0, bins=[0, 2, 5, 9, 10])[0]
    assert hours[0] == 0 and hours[3] == 0
    assert hours[1] / hours[2] == pytest.approx(30 / 4, rel=0.05)
    assert found[-1] / 10 == pytest.approx(100_000 / 34, rel=0.02)


def test_piecewise_arrivals_are_poisson_within_a_piece() -> None:
    found = times(PROCESSES["piecewise"], 100_000)
    counts = np.histogram(found, bins=np.arange(0, found[-1] - 10, 10.0))[0]  # whole periods
    assert counts.var() / counts.mean() == pytest.approx(1, abs=0.06)
    within = np.sort(found % 10.0)
    within = within[(within >= 2) & (within < 5)]
    assert np.abs((within - 2) / 3 - np.arange(len(within)) / len(within)).max() < 0.01  # uniform


def test_without_a_period_the_last_rate_stays() -> None:
    process = {
        "process": "piecewise",
        "rates": [{"start_s": 0.0, "rate_per_s": 1.0}, {"start_s": 100.0, "rate_per_s": 50.0}],
    }
    found = times(process, 50_000)
    assert np.count_nonzero(found < 100) == pytest.approx(100, abs=40)
    assert (found[-1] - 100) * 50 == pytest.approx(49_900, rel=0.02)


def test_a_process_whose_rate_falls_to_0_for_good_ends() -> None:
    draw = arrival_times(SPEC.validate_python({"process": "piecewise", "rates": DAY}), Streams(3))
    first = draw(1000)
    assert 10 < len(first) < 80
    assert first.max() <= 9
    assert len(draw(1000)) == 0


def test_rate_scale_keeps_the_unit_draws() -> None:
    alone = {"process": "piecewise", "rates": [{"start_s": 0.0, "rate_per_s": 2.0}]}
    assert times(alone | {"rate_scale": 4.0}, 100) * 4 == pytest.approx(times(alone, 100), rel=1e-12)


def test_a_piecewise_process_of_one_rate_is_the_poisson_process_of_that_rate() -> None:
    alone = {"process": "piecewise", "rates": [{"start_s": 0.0, "rate_per_s": 7.0}]}
    assert times(alone, 1000) == pytest.approx(times(PROCESSES["poisson"], 1000), rel=1e-12)


def test_mmpp_has_the_rate_and_the_dispersion_of_theory() -> None:
    found = times(PROCESSES["mmpp"], 2_000_000)
    assert len(found) / found[-1] == pytest.approx(40 / 3, rel=0.02)
    # On/off with rates out of 1/3 and 1/6 per s, r their sum: the dispersion of counts in a window t is
    # 1 + 2 * rate * share_off / r * (1 - (1 - exp(-r t)) / (r t)) (Fischer and Meier-Hellstern 1993).
    for window_s in (1.0, 10.0, 60.0):
        counts = np.histogram(found, bins=np.arange(0, found[-1], window_s))[0]
        x = 0.5 * window_s
        expected = 1 + 2 * 40 * (2 / 3) / 0.5 * (1 - (1 - np.exp(-x)) / x)
        assert counts.var() / counts.mean() == pytest.approx(expected, rel=0.1)


def test_mmpp_starts_in_a_state_by_its_share_of_time() -> None:
    process = {
        "process": "mmpp",
        "states": [{"rate_per_s": 1e4, "mean_dwell_s": 1.0}, {"rate_per_s": 1e-3, "mean_dwell_s": 3.0}],
    }
    started_busy = [times(process, 1, seed=seed)[0] < 0.01 for seed in range(400)]
    assert np.mean(started_busy) == pytest.approx(0.25, abs=0.06)


def test_states_and_arrivals_of_an_mmpp_come_from_different_streams() -> None:
    equal = [{"rate_per_s": 7.0, "mean_dwell_s": 1.0}, {"rate_per_s": 7.0, "mean_dwell_s": 5.0}]
    found = times({"process": "mmpp", "states": equal}, 1000)
    assert found == pytest.approx(times(PROCESSES["poisson"], 1000), rel=1e-9)
