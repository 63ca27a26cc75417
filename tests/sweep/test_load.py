from __future__ import annotations

import numpy as np
import pytest

from servsim.errors import ScenarioError
from servsim.scenario import load_scenario
from servsim.streams import Streams
from servsim.sweep import load_knob
from servsim.workload import open_stream

MMPP = {
    "process": "mmpp",
    "states": [{"rate_per_s": 8, "mean_dwell_s": 1}, {"rate_per_s": 0, "mean_dwell_s": 3}],
    "rate_scale": 2.0,
}


def scenario_with(arrivals):
    lengths = {"prompt_tokens": 10, "output_tokens": 5}
    return load_scenario(
        {
            "name": "x",
            "model": "llama-3.1-8b",
            "instance": {"hardware": "h100-sxm"},
            "workload": {"arrivals": arrivals, "lengths": lengths, "num_requests": 20_000},
        }
    )


@pytest.mark.parametrize(
    ("arrivals", "path", "rate"),
    [
        ({"process": "poisson", "rate_per_s": 7}, "workload.arrivals.rate_per_s", 7),
        ({"process": "gamma", "rate_per_s": 3, "cv": 2}, "workload.arrivals.rate_per_s", 3),
        (MMPP, "workload.arrivals.rate_scale", 4),
        ({"process": "piecewise", "rates": [{"start_s": 0, "rate_per_s": 5}]}, "workload.arrivals.rate_scale", 5),
    ],
)
def test_the_knob_sets_the_rate_that_it_says(arrivals, path, rate):
    scenario = scenario_with(arrivals)
    knob = load_knob(scenario)
    assert knob.path == path
    assert knob.rate_per_s == pytest.approx(rate)
    doubled = scenario.with_overrides([f"{path}={knob.value_at(2 * rate)!r}"])
    assert load_knob(doubled).rate_per_s == pytest.approx(2 * rate)
    (block,) = open_stream(doubled.workload, Streams(0)).blocks()
    assert len(block) / block.arrival_s[-1] == pytest.approx(2 * rate, rel=0.1)


def test_an_arrival_of_a_session_is_as_many_requests_as_it_has_turns():
    scenario = scenario_with({"process": "poisson", "rate_per_s": 7}).with_overrides(
        ["workload.sessions={turns: {distribution: geometric, mean: 4}, think_time_s: 10}"]
    )
    knob = load_knob(scenario)
    assert knob.rate_per_s == pytest.approx(4 * 7, rel=0.05)
    assert load_knob(scenario.with_overrides(["workload.arrivals.rate_per_s=14"])).rate_per_s == 2 * knob.rate_per_s
    blocks = list(open_stream(scenario.workload, Streams(0)).blocks())
    last_start_s = max(np.nanmax(block.arrival_s) for block in blocks)
    assert sum(map(len, blocks)) / last_start_s == pytest.approx(knob.rate_per_s, rel=0.05)


def test_another_rate_is_the_same_requests_closer_together():
    scenario = scenario_with({"process": "poisson", "rate_per_s": 7})
    slow, fast = (
        next(
            open_stream(scenario.with_overrides([f"workload.arrivals.rate_per_s={rate}"]).workload, Streams(0)).blocks()
        )
        for rate in (7, 14)
    )
    np.testing.assert_allclose(slow.arrival_s, 2 * fast.arrival_s)


def test_a_trace_is_stretched(tmp_path):
    rows = "".join(f"{second},10,5\n" for second in range(11))
    (tmp_path / "trace.csv").write_text(f"arrival_s,prompt_tokens,output_tokens\n{rows}")
    scenario = load_scenario(
        {
            "name": "x",
            "model": "llama-3.1-8b",
            "instance": {"hardware": "h100-sxm"},
            "workload": {"trace": str(tmp_path / "trace.csv"), "format": "table", "time_scale": 0.5},
        }
    )
    knob = load_knob(scenario)
    assert (knob.path, knob.value, knob.rate_per_s) == ("workload.time_scale", 0.5, 2.0)
    assert knob.value_at(4.0) == 0.25


@pytest.mark.parametrize(
    ("samples", "requests"),
    [("4", 4), ("{count: 3}", 3), ("{count: 4, forked: true}", 1)],
)
@pytest.mark.parametrize("arrivals", [{"process": "poisson", "rate_per_s": 2}, MMPP], ids=["poisson", "mmpp"])
def test_several_answers_that_are_requests_are_counted_as_such(arrivals, samples, requests):
    plain = scenario_with(arrivals)
    forking = ["instance.scheduler.policy=vllm_v0"] if "forked" in samples else []
    scenario = plain.with_overrides([f"workload.samples={samples}", *forking])
    knob = load_knob(scenario)
    assert knob.rate_per_s == pytest.approx(requests * load_knob(plain).rate_per_s)
    doubled = scenario.with_overrides([f"{knob.path}={knob.value_at(2 * knob.rate_per_s)!r}"])
    blocks = list(open_stream(doubled.workload, Streams(0)).blocks())
    assert sum(map(len, blocks)) / blocks[-1].arrival_s[-1] == pytest.approx(2 * knob.rate_per_s, rel=0.1)


def test_several_answers_to_the_requests_of_a_trace_are_counted_too(tmp_path):
    (tmp_path / "trace.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,10,5\n1,10,5\n2,10,5\n")
    scenario = load_scenario(
        {
            "name": "x",
            "model": "llama-3.1-8b",
            "instance": {"hardware": "h100-sxm"},
            "workload": {"trace": str(tmp_path / "trace.csv"), "format": "table", "samples": 4, "time_scale": 0.5},
        }
    )
    assert load_knob(scenario).rate_per_s == 8.0


def test_a_closed_loop_has_no_knob():
    with pytest.raises(ScenarioError, match="closed loop"):
        load_knob(scenario_with({"process": "closed_loop", "concurrency": 3}))
