"""Runs that are queues with known formulas, and means with their errors by the method of batch means."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from servsim.records import Records
from servsim.scenario import load_scenario
from servsim.simulation import Simulation

Floats = NDArray[np.float64]
BATCHES = 10  # a run


def run(
    output_tokens: Any,
    rate_per_s: float,
    *,
    seed: int = 0,
    num_requests: int = 20_000,
    policy: str = "fcfs",
    max_num_seqs: int = 1,
    prefill_s: float = 1.0,
    decode_s: float = 1.0,
    **top: Any,
) -> Records:
    """Poisson arrivals of one-step prompts at an engine with constant step times; memory never binds."""
    scenario = {
        "seed": seed,
        "model": "llama-3.1-8b",
        "instance": {
            "hardware": "h100-sxm",
            "scheduler": {"policy": policy, "max_num_seqs": max_num_seqs},
            "cost": {"law": "fixed", "prefill_s": prefill_s, "decode_s": decode_s},
        },
        "workload": {
            "arrivals": {"process": "poisson", "rate_per_s": rate_per_s},
            "lengths": {"prompt_tokens": 16, "output_tokens": output_tokens},
            "num_requests": num_requests,
        },
        **top,
    }
    return Simulation(load_scenario(scenario)).run()


def waits_s(records: Records) -> Floats:
    """From arrival to the first scheduling."""
    return np.asarray(records.requests["scheduled_s"] - records.requests["arrival_s"])


def services_s(records: Records) -> Floats:
    """From the first scheduling to the end: the service time where one sequence runs at a time."""
    return np.asarray(records.requests["finish_s"] - records.requests["scheduled_s"])


def rate_per_s(records: Records) -> float:
    arrivals = records.requests["arrival_s"]
    return float((len(arrivals) - 1) / (arrivals[-1] - arrivals[0]))


def mean_and_error(runs: list[Floats]) -> tuple[float, float]:
    """The mean over all runs, and its standard error from the means of batches long enough to be independent."""
    batches = np.concatenate([[part.mean() for part in np.array_split(one, BATCHES)] for one in runs])
    return float(batches.mean()), float(batches.std(ddof=1) / np.sqrt(len(batches)))


def pollaczek_khinchine_s(rate: float, services: Floats) -> float:
    """Mean wait of M/G/1, first come first served: ``rate E[S^2] / (2 (1 - rate E[S]))``."""
    return float(rate * (services**2).mean() / (2 * (1 - rate * services.mean())))


def assert_close(found: list[Floats], expected: float, *, relative: float) -> None:
    """Within four standard errors of the runs themselves, and within a stated share of the formula's value."""
    mean, error = mean_and_error(found)
    report = f"{mean:.5g} +- {error:.2g}, expected {expected:.5g} ({mean / expected - 1:+.2%})"
    print(report)
    assert abs(mean - expected) < 4 * error, report
    assert abs(mean / expected - 1) < relative, report
