"""Distributions of TTFT, TPOT and E2E, of simulated and of measured runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from servsim.report.figures.style import PAGE_IN, line_style, new_figure, shared_legend, styled
from servsim.report.folder import RunFolder
from servsim.report.vllm_bench import BenchResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Latency", "draw_distributions", "draw_measured", "measured_latency", "simulated_latency"]

_PANELS = (("ttft_s", "TTFT (ms)", 1e3), ("tpot_s", "TPOT (ms)", 1e3), ("e2e_s", "E2E latency (s)", 1.0))
_MOST_POINTS = 2000
_FEW_DECADES = 2


@dataclass(frozen=True, slots=True)
class Latency:
    """The latencies of one run under a name: ``ttft_s``, ``tpot_s`` and ``e2e_s`` in seconds, NaN where undefined."""

    label: str
    values_s: Mapping[str, NDArray[np.float64]]


def simulated_latency(run: RunFolder, label: str | None = None) -> Latency:
    """The finished requests of a run; those of its measured window where it has one."""
    requests = run.requests
    counted = requests["status"] == "finished"
    window = run.summary["measured_window"]
    if window is not None:
        counted &= (requests["arrival_s"] >= window["start_s"]) & (requests["arrival_s"] <= window["end_s"])
    return Latency(label or run.name, {name: requests[name][counted] for name, _, _ in _PANELS})


def measured_latency(result: BenchResult, label: str | None = None) -> Latency:
    """The completed requests of a measured run."""
    return Latency(label or f"{result.label} (measured)", {name: getattr(result, name) for name, _, _ in _PANELS})


def draw_distributions(runs: Sequence[Latency], bounds: Mapping[str, Mapping[str, float]] | None = None) -> Figure:
    """Three panels of cumulative distributions, a curve a run.

    ``bounds`` are SLO bounds in seconds by class, as ``slo_bounds`` of a summary has them; each is a vertical line.
    """
    with styled():
        figure, panels = _panels()
        for axes, (name, _, factor) in zip(panels, _PANELS, strict=True):
            for place, run in enumerate(runs):
                _draw_cdf(axes, factor * run.values_s[name], run.label, line_style(place))
            _draw_bounds(axes, name, factor, bounds or {})
            _set_scale(axes)
        shared_legend(figure, panels[0])
    return figure


def draw_measured(measured: Latency, simulated: Sequence[Latency]) -> Figure:
    """A measured run as a broad grey curve, simulated ones on top, and how far their median and p99 are off."""
    with styled():
        figure, panels = _panels()
        for axes, (name, _, factor) in zip(panels, _PANELS, strict=True):
            truth = factor * measured.values_s[name]
            _draw_cdf(axes, truth, measured.label, {"color": "#888888", "linestyle": "-", "linewidth": 3.0})
            lines = []
            for place, run in enumerate(simulated):
                _draw_cdf(axes, factor * run.values_s[name], run.label, line_style(place))
                lines.append((_errors(truth, run.values_s[name] * factor), line_style(place)["color"]))
            _note(axes, lines)
            _set_scale(axes)
        shared_legend(figure, panels[0])
    return figure


def _panels() -> tuple[Figure, Any]:
    figure = new_figure(PAGE_IN, 2.3)
    panels = figure.subplots(1, 3, sharey=True)
    for axes, (_, label, _) in zip(panels, _PANELS, strict=True):
        axes.set_xlabel(label)
        axes.set_ylim(0, 1.02)
        axes.margins(x=0.08)
    panels[0].set_ylabel("share of requests")
    return figure, panels


def _draw_cdf(axes: Axes, values: NDArray[np.float64], label: str, style: Mapping[str, Any]) -> None:
    """A step for every request; of very many, some evenly spaced among the sorted."""
    known = np.sort(values[~np.isnan(values)])
    if not len(known):
        axes.plot([], [], label=label, **style)
        return
    places = np.unique(np.linspace(0, len(known) - 1, min(len(known), _MOST_POINTS)).round().astype(np.int64))
    shares = np.concatenate([[0.0], (places + 1) / len(known)])
    axes.plot(np.concatenate([known[:1], known[places]]), shares, label=label, drawstyle="steps-post", **style)


def _draw_bounds(axes: Axes, name: str, factor: float, bounds: Mapping[str, Mapping[str, float]]) -> None:
    limits = {kind: given[name] * factor for kind, given in bounds.items() if name in given}
    for limit in sorted(set(limits.values())):
        kinds = [kind for kind, bound in limits.items() if bound == limit]
        several = len(set(limits.values())) > 1
        axes.axvline(limit, color="#555555", linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
        axes.annotate(
            f"SLO {', '.join(kinds)}" if several else "SLO", (limit, 0.02), xycoords=("data", "axes fraction"),
            xytext=(-2, 0), textcoords="offset points", rotation=90, ha="right", va="bottom",
            fontsize=6.5, color="#555555", bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.7},
        )  # fmt: skip


def _set_scale(axes: Axes) -> None:
    """A logarithmic axis where the curves span more than a factor of ten."""
    drawn = [np.asarray(line.get_xdata(), dtype=np.float64) for line in axes.get_lines()]
    positive = np.concatenate([values[values > 0] for values in drawn] or [np.empty(0)])
    if len(positive) and positive.max() > 10 * positive.min():
        axes.set_xscale("log")
        _mark_decades(axes, float(positive.min()), float(positive.max()))
    elif len(positive):
        axes.set_xlim(left=0)


def _mark_decades(axes: Axes, lowest: float, highest: float) -> None:
    """Ticks of a logarithmic axis: plain numbers below two decades, as many as stand beside each other there."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # slow to load, as all of matplotlib

    axes.xaxis.set_minor_formatter(NullFormatter())
    decades = float(np.log10(highest / lowest))
    if decades >= _FEW_DECADES:
        return
    widest = max(len(_plain(10.0 ** np.floor(np.log10(value)))) for value in (lowest, highest))
    room = _PANEL_CHARACTERS / (widest + 1) / decades  # labels in a decade
    steps = next((steps for narrowest, steps in _STEPS if room * narrowest >= 1), (1.0,))
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))


_PANEL_CHARACTERS = 28  # of the ticks' size beside each other, margins left out
_STEPS = ((np.log10(2), (1.0, 2.0, 5.0)), (np.log10(3), (1.0, 3.0)))  # and the narrowest gap, in decades


def _plain(value: float) -> str:
    return f"{value:.10f}".rstrip("0").rstrip(".") if value < 1 else f"{value:.0f}"


def _errors(truth: NDArray[np.float64], found: NDArray[np.float64]) -> str:
    def off(percentile: float) -> str:
        right, ours = np.nanpercentile(truth, percentile), np.nanpercentile(found, percentile)
        return f"{100 * (ours / right - 1):+.0f} %".replace("-", "−")

    if np.isnan(truth).all() or np.isnan(found).all():
        return ""
    return f"p50 {off(50)}, p99 {off(99)}"


def _note(axes: Axes, lines: Sequence[tuple[str, str]]) -> None:
    for row, (text, colour) in enumerate(reversed(lines)):
        axes.text(
            0.98, 0.04 + 0.09 * row, text, transform=axes.transAxes, ha="right", fontsize=6.5, color=colour,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
        )  # fmt: skip
