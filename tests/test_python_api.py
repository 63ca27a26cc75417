"""servsim from Python: simulate, look at the tables, bring a policy of one's own."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import servsim
from servsim import registry

SCENARIO: dict[str, Any] = {
    "name": "small",
    "seed": 1,
    "model": "llama-3.1-8b",
    "instance": {"hardware": "h100-sxm", "scheduler": {"policy": "fcfs", "max_num_seqs": 8}},
    "workload": {
        "arrivals": {"process": "poisson", "rate_per_s": 20},
        "lengths": {"prompt_tokens": 200, "output_tokens": {"distribution": "uniform", "min": 1, "max": 200}},
        "num_requests": 200,
    },
    "slo": {"ttft_s": 0.5, "tpot_s": 0.02},
}
REQUEST_COLUMNS = """
    request_id arrival_s prompt_tokens output_tokens cached_tokens tenant slo_class instance scheduled_s first_token_s
    finish_s queue_s transfer_wait_s ttft_s tpot_s e2e_s preemptions status slo_met
"""
STRIDE_COLUMNS = """
    instance start_s end_s steps first_step_s last_step_s prefill_tokens decode_seqs waiting kv_blocks_used
    kv_blocks_total kv_tokens_stored kv_tokens_reserved kv_external_fragmentation
"""


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {kind: {} for kind in registry.KINDS})
    monkeypatch.setattr(registry, "_entry_points", {})


@pytest.fixture(scope="module")
def result() -> servsim.Result:
    return servsim.simulate(SCENARIO)


def test_a_dict_is_simulated_and_left_alone() -> None:
    before = copy.deepcopy(SCENARIO)
    one = servsim.simulate(SCENARIO)
    assert before == SCENARIO
    assert one.summary["counts"]["finished"] == 200
    assert one.scenario.name == "small"


def test_requests_have_the_columns_of_requests_csv(result: servsim.Result) -> None:
    requests = result.requests
    assert list(requests.columns) == REQUEST_COLUMNS.split()
    assert requests["request_id"].tolist() == list(range(200))
    assert set(requests["status"]) == {"finished"}
    assert set(requests["tenant"]) == set(requests["slo_class"]) == {"default"}
    np.testing.assert_array_equal(requests["ttft_s"], requests["first_token_s"] - requests["arrival_s"])
    np.testing.assert_array_equal(requests["queue_s"], requests["scheduled_s"] - requests["arrival_s"])
    np.testing.assert_array_equal(requests["e2e_s"], requests["finish_s"] - requests["arrival_s"])
    several = requests["output_tokens"] > 1
    tpot_s = (requests["finish_s"] - requests["first_token_s"]) / (requests["output_tokens"] - 1)
    np.testing.assert_allclose(requests["tpot_s"][several], tpot_s[several], rtol=1e-12)
    assert requests["tpot_s"][~several].isna().all()
    met = (requests["ttft_s"] <= 0.5) & ~(requests["tpot_s"] > 0.02)
    assert requests["slo_met"].tolist() == met.tolist()


def test_strides_have_the_columns_of_strides_csv(result: servsim.Result) -> None:
    strides = result.strides
    assert list(strides.columns) == STRIDE_COLUMNS.split()
    assert (strides["steps"] >= 1).all() and (strides["end_s"] > strides["start_s"]).all()
    assert (strides["steps"][strides["prefill_tokens"] > 0] == 1).all()
    assert strides["prefill_tokens"].sum() == 200 * 200
    assert strides["decode_seqs"].max() <= 8


def test_the_summary_agrees_with_the_tables(result: servsim.Result) -> None:
    summary, requests = result.summary, result.requests
    assert summary["ttft_s"]["mean"] == pytest.approx(requests["ttft_s"].mean(), rel=1e-12)
    assert summary["e2e_s"]["p99"] == pytest.approx(np.percentile(requests["e2e_s"], 99), rel=1e-12)
    assert summary["ttft_s"]["count"] == 200 and summary["seed"] == 1 and summary["name"] == "small"
    assert summary["servsim_version"] == servsim.__version__


def test_overrides_are_those_of_the_command_line() -> None:
    one = servsim.simulate(SCENARIO, ["instance.scheduler.policy=sjf", "workload.num_requests=7"])
    assert len(one.requests) == 7
    assert one.scenario.instance.scheduler.policy == "sjf"


def test_a_loaded_scenario_is_simulated_too_and_gives_the_same(result: servsim.Result) -> None:
    again = servsim.simulate(servsim.load_scenario(SCENARIO))
    assert again.summary == result.summary
    assert again.requests.equals(result.requests) and again.strides.equals(result.strides)


def test_nothing_is_written_without_out_and_a_folder_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    servsim.simulate(SCENARIO)
    assert not list(tmp_path.iterdir())
    servsim.simulate(SCENARIO, out="run")
    assert {"scenario.yaml", "summary.json", "requests.csv", "strides.csv"} <= {p.name for p in Path("run").iterdir()}
    with pytest.raises(servsim.ServsimError, match="run"):
        servsim.simulate(SCENARIO, out="run")
    servsim.simulate(SCENARIO, out="run", overwrite=True)


def test_what_was_written_can_be_simulated_again_and_gives_the_same(tmp_path: Path, result: servsim.Result) -> None:
    servsim.simulate(SCENARIO, out=tmp_path / "run")
    again = servsim.simulate(tmp_path / "run" / "scenario.yaml")
    assert again.requests.equals(result.requests)


def test_a_mistake_is_one_servsim_error() -> None:
    with pytest.raises(servsim.ServsimError, match="did you mean 'max_num_seqs'"):
        servsim.simulate(SCENARIO, ["instance.scheduler.max_num_seq=4"])


def test_the_public_names_are_there_and_no_others_are_promised() -> None:
    assert sorted(servsim.__all__) == servsim.__all__
    for name in servsim.__all__:
        assert getattr(servsim, name) is not None
    assert set(servsim.__all__) <= set(dir(servsim))
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        servsim.simulat  # noqa: B018


class ShortestPromptFirst(servsim.VllmV1Batching):
    """Shortest prompt first: a policy of one's own, on vLLM's batching."""

    def order_key(self, sequence: servsim.Sequence) -> float:
        return sequence.prompt_tokens


class OneAtATime(servsim.VllmV1Batching):
    """Admit only where nothing runs and nothing else is admitted."""

    def admits(self, sequence: servsim.Sequence, admitted: int) -> bool:
        return not len(self.running) + admitted


def test_a_policy_of_ones_own_takes_a_few_lines() -> None:
    servsim.register("schedulers", "shortest_prompt", ShortestPromptFirst)
    prompts = {"prompt_tokens": {"distribution": "uniform", "min": 10, "max": 4000}, "output_tokens": 100}
    scenario = {**SCENARIO, "workload": {**SCENARIO["workload"], "lengths": prompts}}
    fcfs = servsim.simulate(scenario).requests
    mine = servsim.simulate(scenario, ["instance.scheduler.policy=shortest_prompt"]).requests
    assert mine["ttft_s"].mean() < 0.9 * fcfs["ttft_s"].mean()
    short, long = mine["prompt_tokens"] < 1000, mine["prompt_tokens"] > 3000
    assert mine["queue_s"][short].mean() < 0.5 * mine["queue_s"][long].mean()


@pytest.mark.parametrize("stepping", ["strided", "single"])
def test_an_admission_rule_of_ones_own_is_obeyed(stepping: str) -> None:
    servsim.register("schedulers", "one", OneAtATime)
    mine = servsim.simulate(SCENARIO, ["instance.scheduler.policy=one", f"instance.stepping={stepping}"])
    fcfs = servsim.simulate(SCENARIO, ["instance.scheduler.max_num_seqs=1", f"instance.stepping={stepping}"])
    assert mine.requests.equals(fcfs.requests)


PACKAGE = """
import servsim

class Newest(servsim.VllmV1Batching):
    def order_key(self, sequence):
        return -sequence.arrival_s
"""


def test_an_installed_package_replaces_a_policy(tmp_path: Path) -> None:
    (tmp_path / "newest_first.py").write_text(PACKAGE)
    information = tmp_path / "newest_first-0.1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: newest-first\nVersion: 0.1\n")
    (information / "entry_points.txt").write_text("[servsim.schedulers]\nfcfs = newest_first:Newest\n")
    program = (
        "import json, sys, servsim\n"
        "requests = servsim.simulate(json.loads(sys.argv[1])).requests\n"
        "print(requests['scheduled_s'].is_monotonic_increasing)"
    )

    def in_order(*path: Path) -> str:
        environment = {"PYTHONPATH": ":".join(map(str, (Path(servsim.__file__).parents[1], *path)))}
        command = [sys.executable, "-c", program, json.dumps(SCENARIO)]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()

    assert in_order() == "True"
    assert in_order(tmp_path) == "False"
