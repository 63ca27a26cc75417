"""Engine presets: they ship whole, what is written wins, and a scenario remembers what it ran with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from servsim import load_scenario, simulate
from servsim.errors import ScenarioError
from servsim.scenario import catalogue
from servsim.scenario.engine_preset import load_preset
from servsim.simulation import Setup

ENGINES = catalogue.names("engines")


def scenario(**instance: Any) -> dict[str, Any]:
    return {
        "model": "llama-3.1-8b",
        "instance": {"hardware": "h100-sxm", "engine": "vllm-0.19", **instance},
        "workload": {
            "arrivals": {"process": "poisson", "rate_per_s": 20},
            "lengths": {"prompt_tokens": 300, "output_tokens": {"distribution": "uniform", "min": 1, "max": 60}},
            "num_requests": 60,
        },
    }


@pytest.mark.parametrize("name", ENGINES)
def test_every_preset_says_where_its_numbers_come_from_and_makes_a_scenario(name: str) -> None:
    preset = load_preset(name)
    assert preset.name == name
    assert preset.sources
    assert {"policy", "max_num_seqs", "max_num_batched_tokens"} <= set(preset.scheduler)
    built = load_scenario(scenario(engine=name))
    assert Setup.of(built).allocator().fits(1)
    # Written out and read back it is the same, whatever becomes of the preset's file.
    assert load_scenario(built.to_dict()) == built


def test_the_preset_fills_in_what_is_not_written_and_what_is_written_wins() -> None:
    preset = load_preset("vllm-0.19")
    plain = load_scenario(scenario()).instance
    assert plain.scheduler.policy == preset.scheduler["policy"] == "vllm_v1"
    assert plain.cost.model_dump()["gap_s"] == preset.cost.get("gap_s", 0.0)
    mine = load_scenario(scenario(scheduler={"max_num_seqs": 7}, cost={"gap_s": 0.5})).instance
    assert mine.scheduler.policy == "vllm_v1"
    assert (mine.scheduler.max_num_seqs, mine.cost.model_dump()["gap_s"]) == (7, 0.5)
    assert mine.scheduler.max_num_batched_tokens == preset.scheduler["max_num_batched_tokens"]
    assert mine.cost.model_dump()["capture_sizes"] == tuple(preset.cost["capture_sizes"])


def test_another_policy_or_law_takes_the_common_keys_alone() -> None:
    other = load_scenario(scenario(scheduler={"policy": "sjf"}, cost={"law": "fixed", "prefill_s": 1, "decode_s": 1}))
    assert other.instance.scheduler.max_num_batched_tokens == 2048
    assert other.instance.cost.law == "fixed"
    changed = load_scenario(scenario()).with_overrides(["instance.scheduler.policy=sarathi"])
    assert changed.instance.scheduler.policy == "sarathi"


def test_an_override_changes_the_engine_too() -> None:
    older = load_scenario(scenario()).with_overrides(["instance.engine=vllm-0.6"])
    assert older.instance.scheduler.policy == "vllm_v0"


def test_an_unknown_engine_is_placed_and_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"scenario: instance.engine: unknown engine 'vllm-0.91'\n  did you mean"):
        load_scenario(scenario(engine="vllm-0.91"))
    own = tmp_path / "own.yaml"
    own.write_text("name: own\nsources: {all: mine}\ncosts: {}\n")
    with pytest.raises(ScenarioError, match=r"own.yaml:3: costs: unknown key\n  did you mean 'cost'"):
        load_scenario(scenario(engine=str(own)))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cost: {eager_layr_s: 0.1}", r"cost.eager_layr_s: unknown key\n  did you mean 'eager_layer_s'"),
        ("memory: {alocator: paged}", r"memory.alocator: unknown key\n  did you mean 'allocator'"),
        ("scheduler: {policy: sjf, max_num_seqs: 0}", "scheduler.max_num_seqs: must be at least 1"),
    ],
)
def test_a_mistake_in_a_preset_is_found_in_its_file_whatever_the_scenario_says_itself(
    tmp_path: Path, line: str, message: str
) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(f"name: own\nsources: {{all: mine}}\n{line}\n")
    written = {"scheduler": {"policy": "fcfs", "max_num_seqs": 8}, "memory": {"allocator": "radix"}}
    with pytest.raises(ScenarioError, match=rf"own.yaml:3: {message}"):
        load_scenario(scenario(engine=str(own), **written))


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        ({"capture_sizes": [4, 2]}, "capture_sizes must rise"),
        ({"ragged_attention": 0.5}, "must be at least 1"),
        ({"gap_s": -1.0}, "must be at least 0"),
    ],
)
def test_impossible_costs_are_refused(cost: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        load_scenario(scenario(cost=cost))


@pytest.mark.parametrize("name", ENGINES)
def test_strided_and_single_stepping_are_equal_under_every_preset(name: str) -> None:
    runs = [
        simulate(scenario(engine=name, stepping=stepping, memory={"num_blocks": 120, "prefix_hit_fraction": 0.4}))
        for stepping in ("strided", "single")
    ]
    assert runs[0].requests.equals(runs[1].requests)
    assert runs[0].strides.equals(runs[1].strides)


def test_the_frontend_delays_a_request_and_its_ttft_counts_from_the_arrival() -> None:
    without = simulate(scenario(frontend={"request_s": 0.0})).requests
    late = simulate(scenario(frontend={"request_s": 0.05, "prompt_token_s": 1e-4})).requests
    assert (late.arrival_s == without.arrival_s).all()
    assert (late.scheduled_s - late.arrival_s >= 0.05 + 300e-4).all()
    assert late.ttft_s.mean() == pytest.approx(without.ttft_s.mean() + 0.08, rel=0.1)


def test_a_stated_hit_fraction_is_reported_in_whole_blocks_and_is_not_computed() -> None:
    cost = {"eager_layer_s": 0.0}  # else launching hides what is saved
    cold = simulate(scenario(cost=cost)).requests
    warm = simulate(scenario(cost=cost, memory={"prefix_hit_fraction": 0.5})).requests
    hot = simulate(scenario(cost=cost, memory={"prefix_hit_fraction": 1.0})).requests
    assert set(cold.cached_tokens) == {0}
    assert set(warm.cached_tokens) == {144}  # 150 of 300 tokens, nine whole blocks of 16
    assert set(hot.cached_tokens) == {288}  # never the last token
    assert hot.ttft_s.mean() < warm.ttft_s.mean() < cold.ttft_s.mean()
