"""Little's law, exact on every run: areas under counts that the engine wrote against times that requests wrote."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from servsim.metrics import summarise
from servsim.records import PAUSE_REASONS, Records
from servsim.scenario import load_scenario
from servsim.simulation import Simulation

OUTPUTS = {"distribution": "lognormal", "median": 100, "sigma": 1.0, "min": 1, "max": 2000}
SCENARIOS: dict[str, dict[str, Any]] = {
    "roomy": {},
    "tight memory": {"instance.memory": {"num_blocks": 250}},
    "tight memory, shortest first": {"instance.memory": {"num_blocks": 250}, "instance.scheduler.policy": "sjf"},
    "past_future": {"instance.memory": {"num_blocks": 250}, "instance.scheduler.policy": "past_future"},
    "contiguous": {"instance.memory": {"num_blocks": 2000, "allocator": "contiguous"}},
    "three instances": {"instances": 3, "router": "random"},
    "closed loop": {"workload.arrivals": {"process": "closed_loop", "concurrency": 20}},
    "one at a time": {"instance.scheduler.max_num_seqs": 1},
}


def simulate(changes: dict[str, Any]) -> tuple[Any, Records]:
    data: dict[str, Any] = {
        "model": "llama-3.1-8b",
        "instance": {
            "hardware": "h100-sxm",
            "scheduler": {"policy": "fcfs", "max_num_seqs": 24},
            "max_model_len": 3000,
        },
        "workload": {
            "arrivals": {"process": "poisson", "rate_per_s": 20},
            "lengths": {"prompt_tokens": {"distribution": "uniform", "min": 10, "max": 900}, "output_tokens": OUTPUTS},
            "num_requests": 400,
            "max_tokens": 2000,
        },
    }
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = data
        for parent in parents:
            place = place[parent]
        place[last] = value
    scenario = load_scenario(data)
    return scenario, Simulation(scenario).run()


@pytest.fixture(scope="module", params=SCENARIOS, ids=str)
def ran(request: pytest.FixtureRequest) -> tuple[Any, Records]:
    return simulate(SCENARIOS[request.param])


def test_decoders_times_time_is_the_time_that_requests_decoded(ran: tuple[Any, Records]) -> None:
    """The engine counts decoders a stride, requests note their first and last token, pauses what lay between."""
    _, records = ran
    strides, requests, pauses = records.strides, records.requests, records.pauses
    area = float((strides["decode_seqs"] * (strides["end_s"] - strides["start_s"])).sum())
    decoded = float((requests["finish_s"] - requests["first_token_s"]).sum())
    for start_s, end_s, reason in zip(pauses["start_s"], pauses["end_s"], pauses["reason"], strict=True):
        # One that was preempted emits again at the end of its prefill; one that sat a step out, at the end of a
        # step in which it decodes.
        decoded -= (end_s if PAUSE_REASONS[reason] == "preempted" else start_of_last_step(records, end_s)) - start_s
    assert area == pytest.approx(decoded, rel=1e-9)


def start_of_last_step(records: Records, end_s: float) -> float:
    """When the first step after a left-out one began: it is a row that ends at ``end_s``, or is the first of one."""
    strides = records.strides
    row = int(np.flatnonzero((strides["start_s"] < end_s) & (end_s <= strides["end_s"]))[0])
    return float(strides["start_s"][row])


def test_every_output_token_was_emitted_in_some_stride(ran: tuple[Any, Records]) -> None:
    """Tokens a stride times strides is tokens a request times requests; a prefill that ends emits one."""
    _, records = ran
    emitted = int((records.strides["decode_seqs"] * records.strides["steps"]).sum())
    prefills = len(records.requests["request_id"]) + int((records.requests["preemptions"]).sum())
    finished = records.requests["output_tokens"].sum()
    # A preempted running prefill ends only once, so prefills may be counted too often, never too seldom.
    assert finished - prefills <= emitted <= finished - len(records.requests["request_id"])


def test_mean_number_present_is_rate_times_mean_time(ran: tuple[Any, Records]) -> None:
    """From the number of requests present, moved up by arrivals and down by ends: L = rate x W."""
    _, records = ran
    arrivals, ends = np.sort(records.requests["arrival_s"]), np.sort(records.requests["finish_s"])
    times = np.concatenate([arrivals, ends])
    order = np.argsort(times, kind="stable")
    present = np.cumsum(np.concatenate([np.ones_like(arrivals), -np.ones_like(ends)])[order])
    assert present.min() >= 0 and present[-1] == 0
    area = float((present[:-1] * np.diff(times[order])).sum())
    sojourn = float((records.requests["finish_s"] - records.requests["arrival_s"]).sum())
    assert area == pytest.approx(sojourn, rel=1e-9)


def test_the_summary_s_own_figures_keep_the_law(ran: tuple[Any, Records]) -> None:
    scenario, records = ran
    summary = summarise(records, scenario, calibration="calibrated", version="0")
    found = summary["littles_law"]
    assert found["mean_in_system"] == pytest.approx(found["rate_times_mean_time"], rel=1e-9)


def test_a_server_of_one_place_is_busy_as_long_as_it_serves() -> None:
    _, records = simulate(SCENARIOS["one at a time"])
    busy = float((records.strides["end_s"] - records.strides["start_s"]).sum())
    served = float((records.requests["finish_s"] - records.requests["scheduled_s"]).sum())
    assert busy == pytest.approx(served, rel=1e-9)
