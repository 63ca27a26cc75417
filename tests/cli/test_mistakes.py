"""What users get wrong: one clear message with place and remedy, status 2, no traceback, nothing written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from servsim import registry
from servsim.scheduler.engines.fcfs import Fcfs


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("instance.scheduler.max_num_batched_token=512", "did you mean 'max_num_batched_tokens'"),
        ("instance.scheduler.max_num_seqs=many", "instance.scheduler.max_num_seqs"),
        ("workload.arrivals.rate_per_s=-1", "workload.arrivals.rate_per_s"),
        ("workload.arrivals.rate_per_s=.nan", "finite"),
        ("slo.ttft_s=.inf", "finite"),
        ("instance.memory.num_blocks=0", "instance.memory.num_blocks"),
        ("instance.tensor_parallel_size=3", "instance.tensor_parallel_size"),
        ("instance.tensor_parallel_size=16", "largest group is 8"),
        ("model=llama-3.1-405b", "does not fit h100-sxm"),
        ("model=llama-4", "unknown model 'llama-4'"),
        ("model=./nowhere.yaml", "no such file"),
        ("instance.hardware=h100", "did you mean 'h100-sxm'"),
        ("instance.scheduler.policy=fifo", "fcfs"),
        ("instance.scheduler.reserve=0.1", "past_future"),
        ("instance.scheduler={policy: sglang, schedule_policy: lpm}", "set instance.memory.allocator: radix"),
        ("workload.lengths=azure-conv", "azure-conv-2023"),
        ("router=best", "round_robin"),
        ("instance.memory.tiers={cpu: 3}", "instance.memory.tiers.cpu"),
        (
            "instance.memory={allocator: prefix_blocks, tiers: {cpu: {capacity: 1, link: wire}}}",
            "instance.memory.tiers.cpu.link: unknown link 'wire'\n  known are: cxl-2.0-x8, nvlink-c2c, pcie-gen3-x16",
        ),
        (
            "slo.ttft_s=500ms",
            "must be a number, found '500ms'\n  write the number alone: units stand in the names of keys",
        ),
        ("workload.arrivals.concurrency=3", "unknown key\n  known are: process, rate_per_s"),
        ("instance.model=llama-2-7b", "unknown key\n  write it in its place: model"),
        ("scheduler.policy=sjf", "unknown key\n  write it in its place: instance.scheduler"),
        ("policy=sjf", "unknown key\n  write it in its place: instance.scheduler.policy or router.policy"),
        ("rate_per_s=3", "unknown key\n  write it in its place: workload.arrivals.rate_per_s"),
        (
            "instance.hardware=zzz",
            "unknown device 'zzz'\n  known are: a10, a100-80gb-sxm, b200, h100-sxm, h200-sxm",
        ),
        ("seed", "write path=value"),
        ("instance.scheduler.max_num_batched_tokens=4", "max_num_seqs"),
        ("instance.max_model_len=1000000", "131072"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "check"])
def test_a_wrong_value_is_refused_with_its_place(servsim, small, verb, wrong, message):
    ended = servsim(verb, small, "--set", wrong)
    assert ended.status == 2
    assert message in ended.err
    assert wrong.partition("=")[0].split(".")[-1] in ended.err
    assert ended.out == ""
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ("max_num_seqs: 8", "max_num_seq: 8", 5),
        ("rate_per_s: 20", "rate_per_s: -20", 8),
        ("num_requests: 60", "num_requests: sixty", 12),
        ("ttft_s: 0.5", "ttft_s: .nan", 13),
    ],
)
def test_a_mistake_in_the_file_is_placed_at_its_line(servsim, small, before, after, line):
    small.write_text(small.read_text().replace(before, after))
    ended = servsim("run", small)
    assert ended.status == 2
    assert ended.err.startswith(f"small.yaml:{line}: ")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "hardware: h100-sxm",
            "hardware: rdma-400g",
            "small.yaml:4: instance.hardware: rdma-400g is a link, which carries data and does not compute",
        ),
        (
            "  hardware: h100-sxm",
            "  hardware: h100-sxm\n  pipeline_parallel_size: 2\n  pipeline_link: h100-sxm",
            "small.yaml:6: instance.pipeline_link: h100-sxm is a GPU, not a link",
        ),
        (
            "memory: {num_blocks: 200}",
            "memory:\n    allocator: prefix_blocks\n    tiers:\n      cpu: {capacity: 1 GiB, link: samsung-pm9a3}",
            "small.yaml:9: instance.memory.tiers.cpu.link: samsung-pm9a3 is an SSD, not a link",
        ),
    ],
)
def test_hardware_of_another_kind_is_a_mistake_where_it_is_named(servsim, small, before, after, message):
    """And not in the file of the catalogue, which is right."""
    small.write_text(small.read_text().replace(before, after))
    ended = servsim("check", small)
    assert ended.status == 2
    assert ended.err.startswith(f"{message}\n  name a ")


def test_a_scenario_that_is_no_yaml_is_refused(servsim, small):
    small.write_text("name: [unclosed\n")
    ended = servsim("run", small)
    assert ended.status == 2
    assert "small.yaml" in ended.err


def test_a_scenario_cannot_execute_code(servsim, small):
    small.write_text("name: !!python/object/apply:os.system ['touch owned']\n")
    assert servsim("run", small).status == 2
    assert not Path("owned").exists()


def test_an_unknown_scenario_lists_the_known_ones(servsim, small):
    ended = servsim("run", "smal")
    assert ended.status == 2
    assert "azure-conv-22rps" in ended.err
    assert servsim("run", "missing.yaml").status == 2
    assert "did you mean 'small.yaml'?" in servsim("run", "small").err
    assert "did you mean 'chat-on-one-h100'?" in servsim("run", "chat-on-one-h10").err
    assert "this is a folder, not a file\n  give the scenario.yaml in it" in servsim("run", ".").err


TRACE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (TRACE + "2023-11-16 18:15:50.9951690,many,109\n", "trace.csv:3"),
        (TRACE + "2023-11-16 18:15:50.9951690,396,-109\n", "trace.csv:3"),
        (TRACE + "2023-11-16 18:15:50.9951690,396,nan\n", "trace.csv:3"),
        (TRACE.splitlines()[0] + "\n", "trace.csv"),
        ("", "trace.csv"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "check"])
def test_a_wrong_trace_is_refused_with_file_and_line(servsim, small, verb, content, place):
    Path("trace.csv").write_text(content)
    head = small.read_text().partition("workload:")[0]
    small.write_text(head + "workload: {trace: trace.csv, format: azure}\n")
    ended = servsim(verb, small)
    assert ended.status == 2
    assert place in ended.err
    assert not Path("results").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["run", "small.yaml", "--sets", "seed=1"],
        ["fly"],
        ["list", "policies"],
        ["compare", "small.yaml"],
        ["compare", "small.yaml", "--vary", "seed"],
        ["compare", "small.yaml", "--vary", "seed=1,1"],
        ["compare", "small.yaml", "--vary", "seed=1,2", "--vary", "seed=3"],
        ["compare", "small.yaml", "--vary", "instance.scheduler.policy=fcfs,fifo"],
        ["compare", "small.yaml", "--vary", "seed=1,2", "--seeds", "0"],
        ["sweep", "small.yaml", "--vary", "instance.scheduler.policy=fcfs,sjf"],
        ["sweep", "small.yaml", "--vary", "seed=1,2", "--target", "90"],
        ["capacity", "small.yaml", "--set", "slo=null"],
        ["capacity", "small.yaml", "--low", "5", "--high", "2"],
        ["capacity", "small.yaml", "--tolerance", "0"],
        ["capacity", "small.yaml", "--vary", "workload.arrivals.rate_per_s=1,2"],
        ["plot", "nowhere"],
        ["plot", "small.yaml"],
        ["plot", "."],
        ["new", "small"],
        ["new", "a:b"],
        ["new", "nowhere/mine"],
        ["new", "mine", "--from", "nothing"],
    ],
)
def test_wrong_arguments_end_with_status_2_and_write_nothing(servsim, small, arguments):
    ended = servsim(*arguments)
    assert ended.status == 2
    assert ended.err
    assert [path.name for path in Path().iterdir()] == ["small.yaml"]


def test_a_place_that_cannot_be_written_is_the_users_to_mend(servsim, small):
    Path("file").touch()
    ended = servsim("run", small, "--out", "file/below")
    assert ended.status == 2
    assert "file" in ended.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["run", "small.yaml", "--out", "new", "--bench", "nowhere/bench.json"],
            "there is no folder 'nowhere'\n  make the folder first",
        ),
        (
            ["run", "small.yaml", "--out", "new", "--bench", "run"],
            "is a folder, not a file\n  choose another file with --bench",
        ),
        (
            ["run", "small.yaml", "--out", "new", "--bench", "small.yaml"],
            "exists already\n  choose another file with --bench, or give",
        ),
        (["new", "small"], "exists already\n  choose another name, or delete it yourself"),
        (["new", "nowhere/mine"], "there is no folder 'nowhere'\n  make the folder first, or choose another name"),
        (["new", "folder/mine"], "folder is read-only\n  choose another name"),
        (["plot", "run", "--out", "small.yaml"], "small.yaml is not a folder\n  choose another with --out"),
        (["plot", "run", "--out", "folder/figures"], "folder is read-only\n  choose another with --out"),
        (["plot", "rum"], "there is no such file or folder\n  give folders that servsim run, compare or sweep wrote"),
        (["plot", "smal"], "there is no such file or folder\n  did you mean 'results/small'?"),
        (["plot", "small.yaml"], "give a result folder of servsim, or the JSON of vllm bench serve"),
    ],
)
def test_a_wrong_path_is_refused_with_a_remedy_before_anything_is_done(servsim, small, monkeypatch, arguments, message):
    Path("folder").mkdir()
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "folder" and allowed(path, mode))
    servsim("run", small)
    servsim("run", small, "--out", "run")
    monkeypatch.setattr("servsim.simulation.Simulation", lambda *_: pytest.fail("simulated"))
    ended = servsim(*arguments)
    assert ended.status == 2
    assert message in ended.err


def test_what_only_the_attempt_shows_to_be_unwritable_is_told_with_a_remedy(servsim, small):
    servsim("run", small)
    Path("taken").mkdir()
    Path("taken/latency-cdf.png").mkdir()
    ended = servsim("plot", "results/small", "--out", "taken")
    assert ended.status == 2
    assert "taken: cannot be written: Is a directory\n  choose another with --out" in ended.err


class Broken(Fcfs):
    """A policy with a bug."""

    def plan(self, now_s):
        raise ZeroDivisionError("broken on purpose")


@pytest.fixture
def broken(small, monkeypatch):
    monkeypatch.setitem(registry._registered["schedulers"], "broken", Broken)
    return small


def test_a_bug_ends_with_status_1_and_says_how_to_see_more(servsim, broken):
    ended = servsim("run", broken, "--set", "instance.scheduler.policy=broken")
    assert ended.status == 1
    assert "internal error: ZeroDivisionError: broken on purpose" in ended.err
    assert "bug of servsim" in ended.err and "servsim --debug" in ended.err
    assert not Path("results").exists()


def test_debug_shows_the_traceback(servsim, broken):
    ended = servsim("--debug", "run", broken, "--set", "instance.scheduler.policy=broken")
    assert ended.status == 1
    assert "Traceback" in ended.err


def test_one_failing_run_is_named_and_the_others_are_kept(servsim, broken):
    ended = servsim(
        "compare", broken, "--vary", "instance.scheduler.policy=fcfs,broken", "--seeds", 2, "--jobs", 1, "--no-figures"
    )
    assert ended.status == 1
    assert "broken, seed 0: ZeroDivisionError" in ended.err and "broken, seed 1" in ended.err
    assert "partial: 2 of 4 runs" in ended.out
    assert Path("results/small-compare/runs/fcfs/seed-1/requests.csv").is_file()
