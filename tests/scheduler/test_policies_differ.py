"""Each policy against first come, first served in whole runs: that it differs where it should, and how."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from servsim.records import Records
from servsim.scenario import load_scenario
from servsim.simulation import Simulation

OUTPUTS = {"distribution": "lognormal", "median": 150, "sigma": 1.0, "min": 1, "max": 2000}


@cache
def run(policy: str, num_blocks: int | None, seed: int = 0, sigma: float | None = None, **scheduler: Any) -> Records:
    """600 requests that come faster than 32 sequences serve them; memory is plenty without ``num_blocks``."""
    memory = {} if num_blocks is None else {"num_blocks": num_blocks}
    if sigma is not None:
        scheduler["predictor"] = {"name": "lognormal_noise", "sigma": sigma}
    scenario = {
        "seed": seed,
        "model": "llama-3.1-8b",
        "instance": {
            "hardware": "h100-sxm",
            "scheduler": {"policy": policy, "max_num_seqs": 32, **scheduler},
            "memory": memory,
            "max_model_len": 8192,
        },
        "workload": {
            "arrivals": {"process": "poisson", "rate_per_s": 25},
            "lengths": {"prompt_tokens": 256, "output_tokens": OUTPUTS},
            "num_requests": 600,
            "max_tokens": 2000,
        },
    }
    return Simulation(load_scenario(scenario)).run()


def ttft_s(records: Records) -> np.ndarray:
    return np.asarray(records.requests["first_token_s"] - records.requests["arrival_s"])


@pytest.mark.parametrize("seed", [0, 1])
def test_sjf_lowers_the_mean_ttft_of_a_queue_and_makes_the_longest_outputs_wait(seed: int) -> None:
    fcfs, sjf = run("fcfs", None, seed), run("sjf", None, seed)
    assert ttft_s(sjf).mean() < 0.5 * ttft_s(fcfs).mean()
    longest = np.argsort(fcfs.requests["output_tokens"])[-30:]
    assert ttft_s(sjf)[longest].mean() > ttft_s(fcfs)[longest].mean()
    assert fcfs.requests["output_tokens"].tolist() == sjf.requests["output_tokens"].tolist()


def test_a_noisy_prediction_loses_a_part_of_what_the_oracle_gains() -> None:
    fcfs, oracle = ttft_s(run("fcfs", None)).mean(), ttft_s(run("sjf", None)).mean()
    noisy = ttft_s(run("sjf", None, sigma=1.5)).mean()
    assert oracle < noisy < fcfs


@pytest.mark.parametrize("seed", [0, 1])
def test_past_future_preempts_less_than_fcfs_in_tight_memory(seed: int) -> None:
    fcfs, past_future = run("fcfs", 500, seed), run("past_future", 500, seed)
    assert fcfs.requests["preemptions"].sum() > 50
    assert past_future.requests["preemptions"].sum() < 0.5 * fcfs.requests["preemptions"].sum()


def test_past_future_keeps_the_order_of_arrival() -> None:
    scheduled = run("past_future", 500).requests["scheduled_s"]
    assert (np.diff(scheduled) >= 0).all()


def test_past_future_is_fcfs_where_memory_is_plenty() -> None:
    fcfs, past_future = run("fcfs", None), run("past_future", None)
    assert fcfs.requests["finish_s"].tobytes() == past_future.requests["finish_s"].tobytes()


def test_a_larger_reserve_preempts_less() -> None:
    careless = run("past_future", 500, reserve=0.0).requests["preemptions"].sum()
    careful = run("past_future", 500, reserve=0.3).requests["preemptions"].sum()
    assert careful < careless
