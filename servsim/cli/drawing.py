"""Figures of grids and of single runs, drawn from what their folders hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from servsim.errors import ScenarioError, ServsimError
from servsim.report.comparison import compare_rows
from servsim.report.figures import (
    Latency,
    draw_comparison,
    draw_distributions,
    draw_metric,
    draw_rates,
    draw_timeline,
    save,
    simulated_course,
    simulated_latency,
)
from servsim.report.folder import RunFolder, read_run
from servsim.report.sweeping import RateCurve, SweepRun, metric_curves, rate_curves
from servsim.sweep import Axis, GridFolder, load_knob
from servsim.sweep.axis import SCALES_RATE, SETS_RATE

__all__ = [
    "draw_comparison_of",
    "draw_metrics_of",
    "draw_runs",
    "draw_sweep_of",
    "pooled",
    "rates_reached",
    "sweep_runs",
]


def draw_comparison_of(grid: GridFolder, out: Path) -> list[Path]:
    """The comparison with intervals over seeds, all requests' latencies, and the first seed over time."""
    by_variant = grid.by_variant
    rows = compare_rows({name: [run.summary for run in runs] for name, runs in by_variant.items()})
    folders = {name: [read_run(run.folder) for run in runs] for name, runs in by_variant.items()}
    return [*save(draw_comparison(rows), out / "comparison"), *draw_runs(folders, out)]


def draw_runs(folders: Mapping[str, Sequence[RunFolder]], out: Path) -> list[Path]:
    """Latency distributions over all seeds of each variant, and KV, batch and queue of its first seed over time."""
    firsts = {name: runs[0] for name, runs in folders.items()}
    latencies = [pooled(name, runs) for name, runs in folders.items()]
    bounds = [run.summary["slo_bounds"] for run in firsts.values()]
    shared_bounds = bounds[0] if all(one == bounds[0] for one in bounds) else None
    courses = {name: simulated_course(run) for name, run in firsts.items()}
    timeline = draw_timeline(courses, _shared_window(list(firsts.values())))
    return [*save(draw_distributions(latencies, shared_bounds), out / "latency-cdf"), *save(timeline, out / "timeline")]


def draw_sweep_of(grid: GridFolder, x: Axis, out: Path, target: float) -> list[Path]:
    """Attainment and goodput along an axis."""
    is_rate = _is_rate(x)
    return save(draw_rates(_curves(grid, x), target, None if is_rate else x.path), out / "attainment")


MISS_RATIO = "prefix_cache.miss_ratio"


def draw_metrics_of(grid: GridFolder, x: Axis, out: Path, metrics: Sequence[str]) -> list[Path]:
    """Figures of the summaries along an axis, one each; the miss ratio too where a prefix cache was hit.

    Raises ScenarioError for a metric that is undefined in all runs.
    """
    runs = _labelled(grid, x)
    hit = any(run.summary["prefix_cache"]["cached_tokens"] for run in runs)
    paths: list[Path] = []
    for metric in dict.fromkeys([*metrics, *([MISS_RATIO] if hit else [])]):
        curves = metric_curves(runs, x.path, metric)
        if not curves:
            remedy = "draw another; the summaries of the runs, summary.json, say what there is"
            raise ScenarioError(f"'{metric}' is undefined in every run", place="--metric", remedy=remedy)
        paths += save(draw_metric(curves, x.path, metric), out / metric.replace(".", "-").replace("_", "-"))
    return paths


def rates_reached(grid: GridFolder, x: Axis, target: float) -> str | None:
    """The rates that the figure of a sweep marks, in words; None where it marks none."""
    curves = _curves(grid, x) if _is_rate(x) else []
    if not curves:
        return None
    found = ", ".join(f"{curve.label} {curve.rate_in_words(target)}" for curve in curves)
    return f"{100 * target:.3g} % are kept up to (requests/s, between the points): {found}"


def _is_rate(x: Axis) -> bool:
    return x.path == SETS_RATE or x.path in SCALES_RATE


def _curves(grid: GridFolder, x: Axis) -> list[RateCurve]:
    runs = _labelled(grid, x)
    if x.path != SETS_RATE:
        return rate_curves(runs, x.path, measured=x.path in SCALES_RATE)
    try:
        each = _requests_of_an_arrival(grid)
    except ServsimError:  # a plug-in, a model or a trace of then that is not here now
        return rate_curves(runs, x.path, measured=True)
    rates = [float(one.values[x.path]) * each[run.variant] for one, run in zip(runs, grid.runs, strict=True)]
    runs = [replace(one, values={**one.values, x.path: rate}) for one, rate in zip(runs, rates, strict=True)]
    return rate_curves(runs, x.path)


def _requests_of_an_arrival(grid: GridFolder) -> dict[str, float]:
    """By variant, how many requests come of one arrival: several where there are sessions or samples."""
    firsts = {name: read_run(runs[0].folder).scenario for name, runs in grid.by_variant.items()}
    return {name: load_knob(scenario).rate_at_one_per_s for name, scenario in firsts.items()}


def _labelled(grid: GridFolder, x: Axis) -> list[SweepRun]:
    """The runs by the axis and, in words, by all that was varied besides."""
    others = [axis for axis in grid.axes if axis.path != x.path and len(axis.values) > 1]
    return [
        SweepRun(
            {x.path: run.values[x.path], "curve": ", ".join(axis.label(run.values[axis.path]) for axis in others)},
            run.summary,
        )
        for run in grid.runs
    ]


def sweep_runs(grid: GridFolder) -> list[SweepRun]:
    """The runs of a grid as the report's tables take them."""
    return [SweepRun(run.values, run.summary) for run in grid.runs]


def pooled(label: str, runs: Sequence[RunFolder]) -> Latency:
    """The latencies of several runs together."""
    found = [simulated_latency(run, label) for run in runs]
    return Latency(label, {name: np.concatenate([one.values_s[name] for one in found]) for name in found[0].values_s})


def _shared_window(runs: Sequence[RunFolder]) -> tuple[float, float] | None:
    windows = [run.summary["measured_window"] for run in runs]
    if any(window is None or window["start_s"] != windows[0]["start_s"] for window in windows):
        return None
    return windows[0]["start_s"], max(window["end_s"] for window in windows)
