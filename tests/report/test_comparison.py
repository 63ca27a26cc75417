import csv
import math

import pytest
from made_up_summaries import CONSOLE_WIDTH, printed, summary

from servsim.metrics import mean_interval
from servsim.report.comparison import METRICS, compare_rows, metric_value, write_comparison
from servsim.report.sweeping import SweepRun, rate_curves, sweep_rows, write_sweep
from servsim.report.tables import comparison_table, format_figure, run_table, sweep_table

VARIANTS = {
    "fcfs": [summary(seed) for seed in range(3)],
    "sjf": [summary(seed, max_seqs=10) for seed in (2, 1, 0)],
    "past_future": [summary(seed, preemption=0.0) for seed in range(3)],
}
SWEEP = [
    SweepRun({"workload.arrivals.rate_per_s": rate, "instance.scheduler.policy": policy}, summary(seed, rate, max_seqs))
    for rate in (30.0, 8.0, 15.0)
    for policy, max_seqs in (("fcfs", 6), ("sjf", 12))
    for seed in (0, 1)
]


def row(rows, path):
    return next(row for row in rows if row.metric.path == path)


def test_every_metric_is_compared_over_all_seeds():
    rows = compare_rows(VARIANTS)
    assert [row.metric for row in rows] == list(METRICS)
    cell = row(rows, "ttft_s.p90").cells["fcfs"]
    values = [found["ttft_s"]["p90"] for found in VARIANTS["fcfs"]]
    assert (cell.seeds, cell.mean, cell.half_width) == (3, *mean_interval(values))
    assert cell.difference is None


def test_differences_are_taken_seed_by_seed_whatever_the_order():
    cell = row(compare_rows(VARIANTS), "e2e_s.p50").cells["sjf"]
    first = {found["seed"]: found["e2e_s"]["p50"] for found in VARIANTS["fcfs"]}
    expected = mean_interval([found["e2e_s"]["p50"] - first[found["seed"]] for found in VARIANTS["sjf"]])
    assert (cell.difference, cell.difference_half_width) == pytest.approx(expected)


def test_a_seed_that_only_one_variant_has_is_left_out_of_differences():
    rows = compare_rows({"a": VARIANTS["fcfs"], "b": VARIANTS["sjf"][:1]})
    cell = row(rows, "ttft_s.p50").cells["b"]
    assert cell.difference == VARIANTS["sjf"][0]["ttft_s"]["p50"] - VARIANTS["fcfs"][2]["ttft_s"]["p50"]
    assert cell.difference_half_width is None


def test_the_measured_window_counts_where_there_is_one():
    cut = summary(0, warmup_s=2.0)
    cell = row(compare_rows({"cut": [cut]}), "ttft_s.p50").cells["cut"]
    assert cell.mean == cut["measured_window"]["ttft_s"]["p50"] != cut["ttft_s"]["p50"]


def test_what_is_undefined_stays_undefined():
    without = summary(0, slo=None)
    cell = row(compare_rows({"a": [without], "b": [without]}), "slo.attainment").cells["b"]
    assert (cell.mean, cell.difference) == (None, None)
    assert metric_value(without, "no.such.thing") is None


def test_comparison_csv_is_in_base_units_and_reads_back_equal(tmp_path):
    rows = compare_rows(VARIANTS)
    write_comparison(tmp_path / "comparison.csv", rows)
    with (tmp_path / "comparison.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(METRICS) * 3
    line = next(one for one in lines if (one["metric"], one["variant"]) == ("tpot_s.p99", "sjf"))
    cell = row(rows, "tpot_s.p99").cells["sjf"]
    assert float(line["mean"]) == cell.mean and float(line["difference_to_first"]) == cell.difference


def test_zero_is_shown_and_a_dash_means_undefined():
    text = printed(comparison_table(compare_rows(VARIANTS)))
    preemptions = next(line for line in text.splitlines() if "preemptions" in line)
    assert "0 ± 0" in preemptions
    text = printed(run_table(summary(0, preemption=0.0)))
    assert next(line for line in text.splitlines() if "preemptions" in line).endswith(" 0 │")
    assert format_figure(0.0) == "0" and format_figure(None) == "–"


def test_a_comparison_of_three_fits_a_terminal_of_eighty_columns():
    text = printed(comparison_table(compare_rows(VARIANTS)))
    assert max(map(len, text.splitlines())) <= CONSOLE_WIDTH
    assert "…" not in text
    assert "difference to fcfs: seed by seed, mean ± 95 % interval over 3 seeds" in text


def test_a_comparison_of_one_seed_has_no_intervals():
    text = printed(comparison_table(compare_rows({name: found[:1] for name, found in VARIANTS.items()})))
    assert "±" not in text and "one seed" in text


def test_a_run_with_a_cut_shows_both_figures_and_its_warnings():
    found = summary(0, warmup_s=2.0, rejected=0.1)
    text = printed(run_table(found))
    assert "measured window" in text and "whole run" in text
    assert "could never fit" in text


def test_a_run_says_how_often_its_costs_were_taken_from_outside_what_was_measured():
    inside = summary(0)
    assert "outside the range measured" not in printed(run_table(inside))
    text = printed(run_table({**inside, "outside_measured_range": {"gemm": 1234, "attention_decode": 2}}))
    assert "outside the range measured on the device: attention_decode 2 times, gemm 1,234 times; docs" in " ".join(
        text.split()
    )
    text = printed(run_table({**inside, "outside_measured_range": {"lm_head": 16}}))
    assert "lm_head 16 times (expected: vocabularies are wider than the products that were measured); docs" in " ".join(
        text.split()
    )


def test_figures_have_four_significant_digits_and_intervals_the_decimals_of_their_mean():
    shown = [format_figure(value) for value in (12345.6, 123.45, 12.345, 1.2345, 0.012345, 1e-7)]
    assert shown == ["12,346", "123.5", "12.35", "1.234", "0.012", "1e-07"]
    assert format_figure(1.25, like=123.4) == "1.2"
    assert format_figure(0.05, 1e3) == "50.00"


def test_a_sweep_is_a_row_a_run_in_base_units(tmp_path):
    rows = sweep_rows(SWEEP)
    write_sweep(tmp_path / "sweep.csv", rows)
    with (tmp_path / "sweep.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 12
    assert lines[0]["workload.arrivals.rate_per_s"] == "30.0" and lines[0]["instance.scheduler.policy"] == "fcfs"
    assert float(lines[3]["ttft_s.p99"]) == SWEEP[3].summary["ttft_s"]["p99"]


def test_a_sweep_table_has_a_row_a_point():
    text = printed(sweep_table(SWEEP))
    assert sum(" fcfs " in line for line in text.splitlines()) == 3
    assert "…" not in text and "mean over 2 seeds" in text


def test_a_sweep_table_shows_prefix_hits_where_there_are_any():
    assert "hits" not in printed(sweep_table(SWEEP))
    found = [SweepRun(run.values, {**run.summary, "prefix_cache": {"hit_ratio": 0.25}}) for run in SWEEP[:2]]
    lines = printed(sweep_table([*found, *SWEEP[2:]])).splitlines()
    at = next(line for line in lines if "hits" in line).index("hits")
    points = [line[at - 2 :].strip() for line in lines if " fcfs " in line or " sjf " in line]
    assert sorted(set(points)) == ["0", "25.00"] and points.count("25.00") == 1


def test_curves_are_by_rising_rate_and_one_for_each_policy():
    curves = rate_curves(SWEEP, "workload.arrivals.rate_per_s")
    assert [curve.label for curve in curves] == ["fcfs", "sjf"]
    for curve in curves:
        assert curve.rates_per_s == (8.0, 15.0, 30.0)
        assert curve.attainment[0] > curve.attainment[-1]
    attained = [run.summary["slo"]["attainment"] for run in SWEEP[4:6]]
    assert (curves[0].attainment[0], curves[0].attainment_half_width[0]) == mean_interval(attained)


def test_points_that_differ_in_anything_but_the_seed_are_not_averaged():
    runs = [SweepRun({"rate": 1.0, "policy": "a", "block": block}, summary(0)) for block in (16, 32)]
    assert [curve.label for curve in rate_curves(runs, "rate")] == ["a, 16", "a, 32"]


def test_the_rate_can_be_the_one_at_which_requests_arrived():
    runs = [SweepRun({"workload.time_scale": scale}, summary(0, 10.0 / scale)) for scale in (1.0, 0.5)]
    (curve,) = rate_curves(runs, "workload.time_scale", measured=True)
    assert curve.label == "made-up"
    assert curve.rates_per_s == tuple(run.summary["arrival_rate_per_s"] for run in runs)


def test_runs_without_an_slo_make_no_curve():
    assert rate_curves([SweepRun({"rate": 1.0}, summary(0, slo=None))], "rate") == []


def test_intervals_of_a_metric_are_finite():
    for found in compare_rows(VARIANTS):
        assert all(cell.half_width is None or math.isfinite(cell.half_width) for cell in found.cells.values())
