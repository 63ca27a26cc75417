"""One sequence at a time: the engine is M/D/1, M/G/1 and M/M/1."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from queues import (
    assert_close,
    mean_and_error,
    pollaczek_khinchine_s,
    rate_per_s,
    run,
    services_s,
    waits_s,
)

from servsim.records import Records

SEEDS = range(4)
LOAD = 0.7


def test_fixed_lengths_make_an_m_d_1_queue() -> None:
    """Mean wait ``load S / (2 (1 - load))`` with S = 10 steps; to 5 %."""
    runs = [run(10, LOAD / 10, seed=seed) for seed in SEEDS]
    for one in runs:
        np.testing.assert_allclose(services_s(one), 10.0, rtol=1e-7)
    assert_close([waits_s(one) for one in runs], LOAD * 10 / (2 * (1 - LOAD)), relative=0.05)


@pytest.mark.parametrize(
    "lengths",
    [
        {"distribution": "uniform", "min": 1, "max": 19},
        {"distribution": "quantiles", "table": [[0, 1], [0.8, 3], [0.80001, 40], [1, 42]]},
    ],
    ids=["uniform", "two peaks"],
)
def test_drawn_lengths_make_an_m_g_1_queue(lengths: dict[str, object]) -> None:
    """Pollaczek-Khinchine on each run's own service times and rate, which takes most of the noise away; to 8 %."""
    mean_steps = services_s(run(lengths, 1e-6, num_requests=2000)).mean()
    waits, expected = [], []
    for seed in SEEDS:
        one = run(lengths, LOAD / mean_steps, seed=seed)
        waits.append(waits_s(one))
        expected.append(pollaczek_khinchine_s(rate_per_s(one), services_s(one)))
    assert_close(waits, float(np.mean(expected)), relative=0.08)


def test_the_step_times_of_a_real_model_make_an_m_g_1_queue_too() -> None:
    """The same on the roofline of a device: service times are whatever the cost model says; to 8 %."""
    lengths = {"distribution": "uniform", "min": 1, "max": 60}
    on_a_device = {
        "instance": {"hardware": "h100-sxm", "scheduler": {"max_num_seqs": 1}, "cost": {"law": "roofline"}},
    }
    mean_s = services_s(run(lengths, 1e-3, num_requests=2000, **on_a_device)).mean()
    waits, expected = [], []
    for seed in SEEDS:
        one = run(lengths, LOAD / mean_s, seed=seed, **on_a_device)
        waits.append(waits_s(one))
        expected.append(pollaczek_khinchine_s(rate_per_s(one), services_s(one)))
    assert_close(waits, float(np.mean(expected)), relative=0.08)


MEAN_TOKENS = 500
STEP_S = 1 / MEAN_TOKENS  # so that a service takes 1 s in the mean


@cache
def geometric(seed: int) -> Records:
    lengths = {"distribution": "geometric", "mean": MEAN_TOKENS}
    return run(lengths, LOAD, seed=seed, prefill_s=STEP_S, decode_s=STEP_S)


def test_geometric_lengths_make_an_m_m_1_queue() -> None:
    """A service of n steps, n geometric with mean m, has ``E[n^2] = 2 m^2 - m``: all but exponential for large m.

    Mean wait by Pollaczek-Khinchine with that second moment, ``rate d^2 (2 m^2 - m) / (2 (1 - load))``, which is the
    M/M/1 value ``load / (mu - rate)`` less 1 / (2 m) of it; to 8 %.
    """
    m, d = MEAN_TOKENS, STEP_S
    runs = [geometric(seed) for seed in SEEDS]
    expected = LOAD * d**2 * (2 * m**2 - m) / (2 * (1 - LOAD))
    assert expected == pytest.approx(LOAD / (1 - LOAD), rel=1 / m)
    assert_close([waits_s(one) for one in runs], expected, relative=0.08)


def test_times_in_an_m_m_1_queue_are_exponential() -> None:
    """``P(sojourn > t) = exp(-(mu - rate) t)``: the share past each of three quantiles, to 15 % and four errors."""
    sojourns = [waits_s(one) + services_s(one) for one in (geometric(seed) for seed in SEEDS)]
    for share in (0.5, 0.1, 0.02):
        beyond_s = -np.log(share) / (1 - LOAD)
        assert_close([(one > beyond_s).astype(float) for one in sojourns], share, relative=0.15)


def test_an_arrival_finds_an_m_m_1_server_idle_with_one_minus_load() -> None:
    """Poisson arrivals see time averages; to 3 %."""
    assert_close([(waits_s(geometric(seed)) == 0).astype(float) for seed in SEEDS], 1 - LOAD, relative=0.03)


def test_the_stated_errors_are_honest() -> None:
    """Of 20 short M/D/1 runs, 17 at least have the formula within three of their own standard errors."""
    expected = LOAD * 10 / (2 * (1 - LOAD))
    within = 0
    for seed in range(20):
        mean, error = mean_and_error([waits_s(run(10, LOAD / 10, seed=100 + seed, num_requests=2000))])
        within += abs(mean - expected) < 3 * error
    assert within >= 17
