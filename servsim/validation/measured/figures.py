"""Predicted against measured: a point a run, a point a request, and the engine's curves over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from servsim.report.figures import save
from servsim.report.figures.style import PAGE_IN, line_style, new_figure, shared_legend, styled
from servsim.validation.measured.comparing import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_all", "draw_curves", "draw_requests", "draw_runs"]

_SHOWN = {
    "tpot_mean": ("mean TPOT (ms)", 1e3),
    "ttft_mean": ("mean TTFT (ms)", 1e3),
    "e2e_mean": ("mean E2E (s)", 1.0),
    "output_tokens_per_s": ("output tokens/s", 1.0),
}
_BAND = 0.1


def draw_all(dataset: str, ours: Sequence[Comparison], folder: Path) -> list[Path]:
    """Every figure of a dataset, as PNG and SVG; returns the files."""
    paths: list[Path] = []
    if len(ours) > 2:
        paths += save(draw_runs(ours), folder / f"{dataset}.runs")
    for one in ours:
        stem = one.run.scenario["name"]
        if one.requests is not None:
            paths += save(draw_requests(one), folder / f"{stem}.requests")
        if one.curves is not None:
            paths += save(draw_curves(one), folder / f"{stem}.curves")
    return paths


def draw_runs(ours: Sequence[Comparison]) -> Figure:
    """A panel a metric, on logarithmic axes: a point a run, by group; hollow where it was fitted; a band of 10 %."""
    metrics = [metric for metric in _SHOWN if any(metric in one.run.measured for one in ours)]
    groups = sorted({one.run.group for one in ours})
    with styled():
        figure = new_figure(PAGE_IN, 3.0)
        panels = np.atleast_1d(figure.subplots(1, len(metrics)))
        for axes, metric in zip(panels, metrics, strict=True):
            for place, group in enumerate(groups):
                _scatter(axes, [one for one in ours if one.run.group == group], metric, place, group)
            axes.set_xscale("log")
            axes.set_yscale("log")
            _diagonal(axes)
            _label_decades(axes)
            axes.set_xlabel(f"measured {_SHOWN[metric][0]}")
            axes.set_ylabel("predicted")
        shared_legend(figure, panels[0])
    return figure


def draw_requests(one: Comparison) -> Figure:
    """TTFT, TPOT and E2E of every request."""
    assert one.requests is not None
    with styled():
        figure = new_figure(PAGE_IN, 2.5)
        panels = figure.subplots(1, 3)
        for axes, (name, unit, scale) in zip(
            panels, (("ttft", "s", 1.0), ("tpot", "ms", 1e3), ("e2e", "s", 1.0)), strict=True
        ):
            measured, predicted = (scale * one.requests[f"{which}_{name}_s"] for which in ("measured", "predicted"))
            axes.plot(measured, predicted, linestyle="none", marker="o", markersize=2.2, alpha=0.6, color="#0072B2")
            _diagonal(axes)
            axes.set_xlabel(f"measured {name.upper()} ({unit})")
            axes.set_ylabel("predicted")
        figure.suptitle(f"{one.run.name}: each request (the band is 10 %)")
    return figure


def draw_curves(one: Comparison) -> Figure:
    """Running, waiting and KV use over time."""
    assert one.curves is not None
    table = one.curves.table
    with styled():
        figure = new_figure(PAGE_IN, 2.4)
        panels = figure.subplots(1, 3)
        for axes, (name, label, scale) in zip(
            panels, (("running", "running", 1), ("waiting", "waiting", 1), ("kv", "KV in use (%)", 100)), strict=True
        ):
            if name == "kv" and not table.measured_kv.any():
                axes.text(0.5, 0.5, "not logged", ha="center", transform=axes.transAxes, color="#777777")
            else:
                axes.plot(table.time_s, scale * table[f"measured_{name}"], label="measured", **line_style(0))
                axes.plot(table.time_s, scale * table[f"predicted_{name}"], label="predicted", **line_style(1))
            axes.set_ylim(bottom=0)
            axes.set_xlabel("time (s)")
            axes.set_ylabel(label)
        shared_legend(figure, panels[0])
    return figure


def _scatter(axes: Axes, ours: Sequence[Comparison], metric: str, place: int, label: str) -> None:
    style = line_style(place, markers=True)
    scale = _SHOWN[metric][1]
    for role, face in (("test", style["color"]), ("fit", "white")):
        rows = [one for one in ours if one.run.role == role and one.error(metric) is not None]
        axes.plot(
            [scale * one.run.measured[metric] for one in rows],
            [scale * one.predicted[metric] for one in rows],
            linestyle="none", marker=style["marker"], color=style["color"], markerfacecolor=face,
            markersize=3, markeredgewidth=0.6, alpha=0.8, label=label if role == "test" else None,
        )  # fmt: skip


def _label_decades(axes: Axes) -> None:
    """1, 2 and 5 of each decade where there are few, plain numbers, so that labels keep apart."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_xlim()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def _diagonal(axes: Axes) -> None:
    """Where predictions are right, with a band of 10 % around it."""
    low = min(axes.get_xlim()[0], axes.get_ylim()[0])
    high = max(axes.get_xlim()[1], axes.get_ylim()[1])
    low = max(low, 0.0) if axes.get_xscale() == "linear" else low
    ends = np.array([low, high])
    axes.plot(ends, ends, color="#777777", linewidth=0.7, zorder=1)
    axes.fill_between(ends, (1 - _BAND) * ends, (1 + _BAND) * ends, color="#777777", alpha=0.15, linewidth=0, zorder=0)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
