"""plot of runs, check, list, new, schema, --version, --help."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from servsim.scenario import catalogue, load_scenario
from servsim.version import VERSION


def test_plot_draws_a_run_into_its_folder(servsim, small):
    servsim("run", small)
    ended = servsim("plot", "results/small")
    assert ended.status == 0
    assert ended.out.split() == [
        f"results/small/{name}.{suffix}" for name in ("latency-cdf", "timeline") for suffix in ("png", "svg")
    ]
    assert all(Path(path).is_file() for path in ended.out.split())


def test_plot_draws_runs_at_several_rates_and_a_measured_one_together(servsim, small):
    servsim("run", small, "--out", "slow")
    servsim("run", small, "--out", "fast", "--set", "workload.arrivals.rate_per_s=60")
    measured = {"input_lens": [10] * 9, "output_lens": [3] * 9, "ttfts": [0.02] * 9, "itls": [[0.01, 0.02]] * 9}
    Path("bench.json").write_text(json.dumps(measured))
    ended = servsim("plot", "slow", "fast", "bench.json", "--out", "figures")
    assert ended.status == 0
    assert {path.name for path in Path("figures").glob("*.png")} == {
        "attainment.png", "comparison.png", "latency-cdf.png", "timeline.png", "measured-bench.png",
    }  # fmt: skip


def test_check_tells_what_was_understood_and_runs_nothing(servsim, small):
    ended = servsim("check", "azure-conv-22rps")
    assert ended.status == 0
    for word in (
        "8.03 billion", "3.35 TB/s", "KV a token", "131,072 bytes, all layers", "null block", "floor", "ceiling",
        "full prefill", "22.00 requests/s", "TTFT ≤ 1 s", "131,072 tokens",
    ):  # fmt: skip
        assert word in ended.out, word
    assert not Path("results").exists()


def test_check_names_the_preset_of_an_engine_and_what_goes_before_it(servsim, small):
    assert "\n engine " not in servsim("check", small).out
    out = servsim("check", "chat-on-one-h100", "--set", "instance.engine=vllm-0.6").out
    assert _line(out, " engine ").split()[1:4] == ["vllm-0.6", "a", "preset;"]
    assert _line(out, " policy ").split()[1] == "fcfs"  # the scenario's own, not the preset's vllm_v0


def test_check_tells_how_many_outputs_or_beams_a_request_has(servsim, small):
    policy = ("--set", "instance.scheduler.policy=vllm_v0")
    several = servsim("check", "chat-on-one-h100", *policy, "--set", "workload.samples={count: 4, forked: true}").out
    assert "4 a request, of which the longest is told above" in _line(several, " outputs ")
    beams = servsim("check", "chat-on-one-h100", *policy, "--set", "workload.beam_search={width: 3}").out
    assert "3 a request, as long as its output" in _line(beams, " beams ")
    refused = servsim("check", "chat-on-one-h100", "--set", "workload.beam_search={width: 3}")
    assert refused.status == 2 and "use the policy vllm_v0" in refused.err


def test_check_shows_how_blocks_were_derived(servsim, small):
    out = servsim("check", "chat-on-one-h100").out
    left, block = (
        int(part.split()[-1].replace(",", "")) for part in _line(out, " blocks ").split(" bytes")[0].split("//")
    )
    blocks = int(_line(out, " blocks ").split()[1].replace(",", ""))
    assert blocks == left // block
    assert "as the scenario says" in _line(servsim("check", small).out, " blocks ")


def _line(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


def test_the_floor_of_the_step_time_is_below_its_ceiling(servsim, small):
    out = servsim("check", small).out
    floor, ceiling = (
        float(_line(out, f" {name}").removeprefix(f" {name}").split()[0]) for name in ("floor", "ceiling of decode")
    )
    assert 0 < floor < ceiling


@pytest.mark.parametrize(
    ("kind", "name", "more"),
    [
        ("schedulers", "past_future", "version: original"),
        ("allocators", "paged", "watermark: 0.0"),
        ("predictors", "lognormal_noise", "latency_s: 0.0"),
        ("routers", "round_robin", "in turn"),
        ("trace_readers", "mooncake", "kvcache-ai"),
        ("hardware", "h100-sxm", "NVIDIA"),
        ("devices", "h100-sxm", "NVIDIA"),
        ("drives", "samsung-pm9a3", "NVMe"),
        ("links", "pcie-gen5-x16", "PCI Express"),
        ("models", "llama-3.1-8b", "8.03 billion"),
        ("workloads", "azure-conv-2023", ""),
        ("scenarios", "azure-conv-22rps", "main job"),
        ("claims", "paged-attention-sharing", "Outputs of one prompt save"),
    ],
)
def test_list_names_what_there_is_in_a_line_each(servsim, kind, name, more):
    ended = servsim("list", kind)
    assert ended.status == 0
    assert any(line.startswith(f" {name} ") and more in line for line in ended.out.splitlines())


def test_new_copies_a_shipped_scenario_under_its_new_name(servsim, small):
    assert servsim("new", "mine", "--from", "four-instances").status == 0
    scenario = load_scenario("mine.yaml")
    assert scenario.name == "mine"
    assert scenario.instances == 4
    assert Path("mine.yaml").read_text().startswith("# Four engines")


def test_schema_prints_a_json_schema(servsim):
    ended = servsim("schema")
    assert ended.status == 0
    assert "workload" in json.loads(ended.out)["properties"]


def test_version_and_help(servsim):
    assert servsim("--version").out == f"servsim {VERSION}\n"
    ended = servsim("--help")
    assert ended.status == 0
    for verb in (
        "run", "compare", "sweep", "capacity", "reproduce", "validate", "calibrate", "plot", "check", "list", "new",
        "schema",
    ):  # fmt: skip
        assert verb in ended.out


@pytest.mark.parametrize("name", [name for name in catalogue.names("scenarios") if "/" not in name])
def test_every_shipped_scenario_is_checked_and_runs_cut_to_200_requests(servsim, small, name):
    assert servsim("check", name).status == 0
    ended = servsim("run", name, "--set", "workload.num_requests=200", "--out", "out")
    assert ended.status == 0
    counts = json.loads(Path("out/summary.json").read_text())["counts"]
    assert counts["submitted"] == counts["finished"] == 200


def test_check_tells_the_blocks_that_an_allocator_cuts_itself(servsim, small):
    out = servsim("check", "chat-on-one-h100", "--set", "instance.memory.allocator=vattention").out
    own, capacity = _line(out, " blocks of its own"), _line(out, " KV capacity")
    assert "1,024 tokens each" in own
    assert int(own.split()[4].replace(",", "")) * 1024 == int(capacity.split()[2].replace(",", ""))
    assert "null block" not in servsim("check", "chat-on-one-h100", "--set", "instance.memory.allocator=radix").out
