"""compare, sweep and capacity, on a scenario that takes no time."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from servsim.cli.endings import INTERRUPTED

POLICIES = "instance.scheduler.policy=fcfs,sjf,past_future"
RATE = "workload.arrivals.rate_per_s"


def rows_of(path: str) -> list[dict[str, str]]:
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def test_compare_gives_a_table_with_differences_and_keeps_every_run(servsim, small):
    ended = servsim("compare", small, "--vary", POLICIES, "--seeds", 2, "--jobs", 1, "--no-figures")
    assert ended.status == 0
    assert "mean ± 95 % interval over 2 seeds" in ended.out and "difference to fcfs: seed by seed" in ended.out
    assert "SLO attainment" in ended.out and "past_future" in ended.out
    assert "6 of 6 runs" in ended.err
    folder = Path("results/small-compare")
    assert {path.parent.name for path in folder.glob("runs/*/seed-*")} == {"fcfs", "sjf", "past_future"}
    assert len(list(folder.glob("runs/*/seed-*/requests.csv"))) == 6
    metrics = {row["metric"] for row in rows_of("results/small-compare/comparison.csv")}
    assert {"ttft_s.p99", "slo.attainment", "goodput_per_s", "preemptions.total"} <= metrics


def test_every_variant_meets_the_identical_requests(servsim, small):
    servsim("compare", small, "--vary", POLICIES, "--seeds", 2, "--jobs", 1, "--no-figures")
    for seed in (0, 1):
        streams = {
            tuple((row["arrival_s"], row["prompt_tokens"], row["output_tokens"]) for row in rows_of(str(path)))
            for path in Path("results/small-compare/runs").glob(f"*/seed-{seed}/requests.csv")
        }
        assert len(streams) == 1


def test_processes_give_the_same_results_as_one(servsim, small):
    for jobs in (1, 2):
        ended = servsim("compare", small, "--vary", POLICIES, "--jobs", jobs, "--out", jobs, "--no-figures")
        assert ended.status == 0
    for path in Path("1").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == Path("2", path.relative_to("1")).read_bytes(), path


def test_compare_draws_figures(servsim, small):
    assert servsim("compare", small, "--vary", "seed=1,2", "--seeds", 1, "--jobs", 1).status == 0
    for name in ("comparison", "latency-cdf", "timeline"):
        for suffix in ("png", "svg"):
            assert Path(f"results/small-compare/{name}.{suffix}").stat().st_size > 10_000


def test_repeated_vary_gives_every_combination(servsim, small):
    ended = servsim(
        "compare", small, "--seeds", 1, "--jobs", 1, "--no-figures",
        "--vary", "instance.scheduler.policy=fcfs,sjf", "--vary", "instance.memory.num_blocks=150,300",
    )  # fmt: skip
    assert ended.status == 0
    assert {path.name for path in Path("results/small-compare/runs").iterdir()} == {
        "fcfs-num_blocks=150", "fcfs-num_blocks=300", "sjf-num_blocks=150", "sjf-num_blocks=300",
    }  # fmt: skip


def test_an_existing_comparison_is_refused_before_anything_is_simulated(servsim, small, monkeypatch):
    arguments = ("compare", small, "--vary", "seed=1,2", "--seeds", 1, "--jobs", 1, "--no-figures")
    servsim(*arguments)
    assert servsim(*arguments, "--overwrite").status == 0
    monkeypatch.setattr("servsim.sweep.execute", lambda *_: pytest.fail("simulated"))
    ended = servsim(*arguments)
    assert ended.status == 2
    assert "exists already" in ended.err


def test_ctrl_c_while_figures_are_drawn_keeps_the_runs(servsim, small, monkeypatch):
    def impatient(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("servsim.cli.drawing.draw_comparison_of", impatient)
    ended = servsim("compare", small, "--vary", "seed=1,2", "--seeds", 1, "--jobs", 1)
    assert ended.status == INTERRUPTED
    assert Path("results/small-compare/comparison.csv").is_file()


def test_a_figure_that_fails_does_not_take_the_runs_away(servsim, small, monkeypatch):
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a figure's bug")

    monkeypatch.setattr("servsim.cli.drawing.draw_comparison_of", broken)
    ended = servsim("compare", small, "--vary", "seed=1,2", "--seeds", 1, "--jobs", 1)
    assert ended.status == 1
    assert "a figure's bug" in ended.err and "the runs are in results/small-compare" in ended.err
    assert Path("results/small-compare/comparison.csv").is_file()


def test_sweep_writes_a_row_a_run_and_the_classic_figure(servsim, small):
    ended = servsim("sweep", small, "--vary", f"{RATE}=5,40", "--vary", POLICIES, "--seeds", 2, "--jobs", 1)
    assert ended.status == 0
    assert "rate_per_s" in ended.out and "mean over 2 seeds" in ended.out
    rows = rows_of("results/small-sweep/sweep.csv")
    assert len(rows) == 12
    assert {row[RATE] for row in rows} == {"5", "40"}
    slow, fast = (
        [float(row["slo.attainment"]) for row in rows if row[RATE] == rate and "fcfs" in row.values()]
        for rate in ("5", "40")
    )
    assert sum(slow) > sum(fast)
    assert Path("results/small-sweep/attainment.png").is_file()
    assert Path("results/small-sweep/attainment.svg").is_file()
    assert not list(Path("results/small-sweep").rglob("requests.csv"))


def test_the_rates_that_sweep_and_capacity_tell_are_those_of_requests_where_each_prompt_has_several_answers(
    servsim, small, monkeypatch
):
    drawn = []
    monkeypatch.setattr("servsim.cli.drawing.draw_rates", lambda curves, *_: drawn.extend(curves) or Figure())
    four = ("--set", "workload.samples=4", "--jobs", 1)
    assert servsim("sweep", small, "--vary", f"{RATE}=2,40", *four).status == 0
    (curve,) = drawn
    assert curve.rates_per_s == (8.0, 160.0)
    runs = rows_of("results/small-sweep/sweep.csv")
    assert [float(row["arrival_rate_per_s"]) for row in runs] == pytest.approx(curve.rates_per_s, rel=0.3)
    assert "80.00 requests/s (workload.arrivals.rate_per_s: 20)" in servsim("check", small, *four[:2]).out


def test_sweep_goes_over_any_numeric_axis(servsim, small):
    ended = servsim("sweep", small, "--vary", "instance.memory.num_blocks=100,400", "--jobs", 1)
    assert ended.status == 0
    assert "instance.memory.num_blocks" in Path("results/small-sweep/sweep.csv").read_text().splitlines()[0]


def test_sweep_over_the_size_of_a_prefix_cache_draws_its_miss_ratio(servsim, small):
    size, cached = "instance.memory.num_blocks", ("--set", "instance.memory.allocator=prefix_blocks")
    shared = ("--set", "workload.prefixes={count: 20, tokens: 512}")
    ended = servsim("sweep", small, "--vary", f"{size}=200,400,2000", *cached, *shared, "--metric", "ttft_s.p99")
    assert ended.status == 0, ended.err
    folder = Path("results/small-sweep")
    assert (folder / "prefix-cache-miss-ratio.png").is_file() and (folder / "ttft-s-p99.svg").is_file()
    found = {int(row[size]): float(row["prefix_cache.hit_ratio"]) for row in rows_of(folder / "sweep.csv")}
    assert 0 < found[200] < found[400] < found[2000] < 1


@pytest.mark.parametrize(
    ("metric", "remedy"),
    [
        ("ttft_s.p98", "did you mean 'ttft_s.p9"),
        ("ttft_s", "write one of its own, ttft_s.mean or ttft_s.p99"),
        ("kv_memory", "kv_memory.used_max, kv_memory.used_mean"),
        ("memry", "such as ttft_s.p99"),  # and not memory, which is no figure
        ("memory", "add one of its keys, memory.KEY"),
        ("calibration", "such as ttft_s.p99"),
        ("zzz", "such as ttft_s.p99"),
    ],
)
def test_sweep_refuses_a_figure_that_no_summary_has_before_anything_is_simulated(
    servsim, small, monkeypatch, metric, remedy
):
    monkeypatch.setattr("servsim.sweep.execute", lambda *_: pytest.fail("simulated"))
    ended = servsim("sweep", small, "--vary", f"{RATE}=5,40", "--metric", "ttft_s.p99", "--metric", metric)
    assert ended.status == 2
    assert f"--metric: no run has a figure '{metric}'" in ended.err and remedy in ended.err
    assert not Path("results").exists()


def test_sweep_refuses_attainment_where_no_variant_has_an_slo(servsim, small):
    sweep = ("sweep", small, "--set", "slo=null", "--metric", "slo.attainment", "--jobs", 1)
    ended = servsim(*sweep, "--vary", f"{RATE}=5,40")
    assert ended.status == 2 and "no run has a figure 'slo.attainment'" in ended.err
    assert servsim(*sweep, "--vary", "slo.ttft_s=0.1,0.2").status == 0


def test_sweep_draws_what_only_a_run_names(servsim, small):
    paths = ("scheduler.max_num_seqs", "slo.by_class.default.attainment")
    metrics = [word for path in paths for word in ("--metric", path)]
    assert servsim("sweep", small, "--vary", f"{RATE}=5,40", "--jobs", 1, *metrics).status == 0
    assert Path("results/small-sweep/slo-by-class-default-attainment.png").is_file()


def test_sweep_without_an_slo_says_what_it_leaves_out(servsim, small):
    ended = servsim("sweep", small, "--vary", f"{RATE}=5,40", "--jobs", 1, "--set", "slo=null")
    assert ended.status == 0
    assert "no slo" in ended.err
    assert not Path("results/small-sweep/attainment.png").exists()


def test_capacity_prints_every_probe_its_bracket_and_what_it_assumed(servsim, small):
    ended = servsim("capacity", small, "--vary", "instance.scheduler.policy=fcfs,sjf", "--tolerance", 0.1)
    assert ended.status == 0
    assert "fcfs: keeps 90 % at" in ended.out and "sjf: keeps 90 % at" in ended.out
    assert ended.out.count("yes") >= 2 and ended.out.count("  no") >= 2
    assert "assumed to fall" in ended.err and RATE in ended.err
    assert not Path("results").exists()


def test_capacity_stays_within_given_limits(servsim, small):
    kept = servsim("capacity", small, "--high", 1)
    assert "is kept at every rate tried, the highest 1.000 requests/s" in kept.out
    missed = servsim("capacity", small, "--low", 500)
    assert "is not kept at any rate tried, the lowest 500.0 requests/s" in missed.out


def test_capacity_of_a_trace_scales_its_time(servsim, small):
    lines = "".join(f"2023-11-16 18:15:{second:02d}.0000000,300,20\n" for second in range(50))
    Path("trace.csv").write_text(f"TIMESTAMP,ContextTokens,GeneratedTokens\n{lines}")
    text = small.read_text()
    head, slo = text.partition("workload:")[0], text[text.index("slo:") :]
    small.write_text(f"{head}workload: {{trace: trace.csv, format: azure}}\n{slo}")
    ended = servsim("capacity", small, "--tolerance", 0.2)
    assert ended.status == 0
    assert "workload.time_scale" in ended.err
    ended = servsim("sweep", small, "--vary", "workload.time_scale=1,0.1", "--jobs", 1)
    assert ended.status == 0


def test_a_closed_loop_has_no_capacity_in_requests_per_second(servsim, small):
    ended = servsim("capacity", small, "--set", "workload.arrivals={process: closed_loop, concurrency: 4}")
    assert ended.status == 2
    assert "closed loop" in ended.err and "concurrency" in ended.err


def test_plot_redraws_a_comparison_and_a_sweep_from_their_folders(servsim, small):
    servsim("compare", small, "--vary", "seed=1,2", "--seeds", 1, "--jobs", 1, "--no-figures", "--out", "c")
    servsim("sweep", small, "--vary", f"{RATE}=5,40", "--jobs", 1, "--out", "s")
    first = Path("s/attainment.png").read_bytes()
    assert "c/comparison.png" in servsim("plot", "c").out
    assert servsim("plot", "s").status == 0
    assert Path("s/attainment.png").read_bytes() == first
    assert servsim("plot", "c", "s", "--out", "both").status == 0
    assert Path("both/c/timeline.png").is_file() and Path("both/s/attainment.svg").is_file()


def test_a_partial_grid_is_still_one(servsim, small):
    servsim("compare", small, "--vary", "seed=1,2", "--seeds", 1, "--jobs", 1, "--no-figures", "--out", "c")
    grid = json.loads(Path("c/grid.json").read_text())
    assert (grid["partial"], grid["planned_runs"], len(grid["runs"])) == (False, 2, 2)
    Path("c/grid.json").write_text("{}")
    ended = servsim("plot", "c")
    assert ended.status == 2
    assert "grid.json" in ended.err
