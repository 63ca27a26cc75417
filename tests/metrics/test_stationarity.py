import math

import numpy as np
import pytest

from servsim.metrics import steady_state
from servsim.records import Recorder


def queue(load, requests, seed, servers=1, deterministic=False, arrivals_s=None):
    """Records of first come, first served with unit mean service and Poisson arrivals (M/M/c), or D/D/c."""
    rng = np.random.default_rng(seed)
    rate = load * servers
    if arrivals_s is None:
        gaps = np.full(requests, 1 / rate) if deterministic else rng.exponential(1 / rate, requests)
        arrivals_s = np.cumsum(gaps)
    services = np.ones(requests) if deterministic else rng.exponential(1.0, requests)
    free = np.zeros(servers)
    recorder = Recorder()
    for i, (arrival, service) in enumerate(zip(arrivals_s, services, strict=True)):
        server = int(free.argmin())
        start = max(arrival, free[server])
        free[server] = start + service
        recorder.requests.append((i, arrival, 1, 2, 0, 0, 0, 0, start, start, free[server], 0.0, 0, 0))
    return recorder.records(("a",), ("b",))


@pytest.mark.parametrize("load", [0.3, 0.7, 0.9])
@pytest.mark.parametrize("servers", [1, 50])
def test_a_stable_queue_is_called_steady(load, servers):
    found = [steady_state(queue(load, 3000, seed, servers))["verdict"] for seed in range(10)]
    assert found == ["steady"] * 10


@pytest.mark.parametrize("load", [1.15, 1.5, 3.0])
@pytest.mark.parametrize("servers", [1, 50])
def test_an_overloaded_queue_is_called_growing(load, servers):
    found = [steady_state(queue(load, 3000, seed, servers))["verdict"] for seed in range(10)]
    assert found == ["growing"] * 10


def test_the_slightest_overload_shows_where_nothing_is_left_to_chance():
    assert steady_state(queue(1.02, 1000, 0, deterministic=True))["verdict"] == "growing"
    assert steady_state(queue(0.98, 1000, 0, deterministic=True))["verdict"] == "steady"


def test_constant_overload_shows_as_one_to_three_to_five():
    first, middle, last = steady_state(queue(2.0, 3000, 0, deterministic=True))["waiting_by_third"]
    assert middle / first == pytest.approx(3, rel=0.01) and last / first == pytest.approx(5, rel=0.01)


def test_requests_that_outlive_the_arrivals_pile_up_without_waiting():
    """As many servers as requests: nobody waits, and nobody has left when the last one arrives."""
    records = queue(1.0, 200, 0, servers=200, arrivals_s=np.linspace(0.0, 0.1, 200), deterministic=True)
    found = steady_state(records)
    assert found["verdict"] == "growing" and found["waiting_by_third"] == [0.0, 0.0, 0.0]


def test_a_rate_that_rises_during_the_run_is_not_taken_for_growth():
    gaps = np.concatenate([np.full(500, 1 / 10), np.full(1000, 1 / 20), np.full(1500, 1 / 30)])
    records = queue(1.0, 3000, 1, servers=60, arrivals_s=np.cumsum(gaps))
    assert steady_state(records)["verdict"] == "steady"


def test_few_requests_or_all_at_once_tell_nothing():
    assert steady_state(queue(3.0, 59, 0))["verdict"] == "unknown"
    assert steady_state(queue(3.0, 500, 0, arrivals_s=np.zeros(500)))["verdict"] == "unknown"


def test_rejected_requests_count_for_nothing():
    recorder = Recorder()
    for i in range(200):
        recorder.requests.append((i, float(i), 1, 1, 0, 0, 0, -1, math.nan, math.nan, math.nan, 0.0, 0, 1))
    assert steady_state(recorder.records(("a",), ("b",)))["verdict"] == "unknown"
