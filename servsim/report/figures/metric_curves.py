"""Any figure of the summaries along an axis of a sweep, a curve a variant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from servsim.report.comparison import METRICS, Metric
from servsim.report.figures.style import line_style, new_figure, styled
from servsim.report.sweeping import MetricCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_metric"]

_WIDTH_IN, _HEIGHT_IN = 3.4, 2.5
_DECADES = 20.0  # of the axis' ends, from which it is logarithmic
_KNOWN = {
    metric.path: metric
    for metric in (*METRICS, Metric("prefix_cache.miss_ratio", "prompt tokens not found cached", "%", 100.0))
}
_AXES = {
    "instance.memory.block_size": "tokens in a KV block (block_size)",
    "instance.memory.num_blocks": "KV blocks (num_blocks)",
    "instance.scheduler.max_num_batched_tokens": "token budget of a step (max_num_batched_tokens)",
    "instance.scheduler.max_num_seqs": "running sequences at most (max_num_seqs)",
    "workload.arrivals.rate_per_s": "arrivals/s (rate_per_s)",
}


def draw_metric(curves: Sequence[MetricCurve], x_path: str, metric_path: str) -> Figure:
    """The curves with their points; shaded bands are 95 % intervals over seeds.

    What is varied and what is drawn are worded, with their units, where servsim knows words for the paths; shares are
    drawn in percent. The axis is logarithmic, and has a tick at each point, where its ends are a factor of 20 or more
    apart; so is the figure's own axis, which else starts at 0.
    """
    metric = _KNOWN.get(metric_path, Metric(metric_path, metric_path, ""))
    with styled():
        figure = new_figure(_WIDTH_IN, _HEIGHT_IN)
        axes = figure.subplots()
        top, bottom = 0.0, np.inf
        for place, curve in enumerate(curves):
            x, y = np.array(curve.x), metric.factor * np.array(curve.y)
            width = metric.factor * np.array([half or 0.0 for half in curve.half_width])
            if width.any():
                axes.fill_between(x, y - width, y + width, color=line_style(place)["color"], alpha=0.15, linewidth=0)
            axes.plot(x, y, label=curve.label, **line_style(place, markers=True))
            top, bottom = max(top, float((y + width).max())), min(bottom, float((y - width).min()))
        _log_axis(axes, sorted({value for curve in curves for value in curve.x}))
        if metric.unit == "%" and top <= 100:
            axes.set_ylim(0, 104)
        elif 0 < _DECADES * bottom <= top:
            axes.set_yscale("log")
        else:
            axes.set_ylim(0, 1.08 * top or 1.0)
        axes.set_xlabel(_AXES.get(x_path, x_path))
        axes.set_ylabel(f"{metric.label} ({metric.unit})" if metric.unit else metric.label)
        if len(curves) > 1:
            axes.legend(frameon=False)
    return figure


def _log_axis(axes: Axes, values: Sequence[float]) -> None:
    """Logarithmic where the ends lie far apart; its ticks are the points, those left out that lie too close."""
    if not values or values[0] <= 0 or values[-1] < _DECADES * values[0]:
        return
    axes.set_xscale("log")
    closest = (values[-1] / values[0]) ** (1 / 8)  # room for eight numbers
    ticks = [values[0]]
    for value in values[1:]:
        if value >= closest * ticks[-1]:
            ticks.append(value)
    axes.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
    axes.set_xticks([], minor=True)
