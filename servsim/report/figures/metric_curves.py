"""Any figure of the summaries along an axis of a sweep, a curve a variant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from servsim.report.figures.style import line_style, new_figure, styled
from servsim.report.sweeping import MetricCurve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_metric"]

_WIDTH_IN, _HEIGHT_IN = 3.4, 2.5
_DECADES = 20.0  # of the axis' ends, from which it is logarithmic
_SHARES = ("_ratio", "_mean", "attainment")  # of 1, where they are drawn from 0


def draw_metric(curves: Sequence[MetricCurve], x_label: str, y_label: str) -> Figure:
    """The curves with their points; shaded bands are 95 % intervals over seeds.

    The axis is logarithmic where its ends are a factor of 20 or more apart; the figure starts at 0 upwards.
    """
    with styled():
        figure = new_figure(_WIDTH_IN, _HEIGHT_IN)
        axes = figure.subplots()
        top = 0.0
        for place, curve in enumerate(curves):
            x, y = np.array(curve.x), np.array(curve.y)
            width = np.array([half or 0.0 for half in curve.half_width])
            if width.any():
                axes.fill_between(x, y - width, y + width, color=line_style(place)["color"], alpha=0.15, linewidth=0)
            axes.plot(x, y, label=curve.label, **line_style(place, markers=True))
            top = max(top, float((y + width).max()))
        ends = [end for curve in curves for end in (min(curve.x), max(curve.x))]
        if ends and min(ends) > 0 and max(ends) >= _DECADES * min(ends):
            axes.set_xscale("log")
        share = y_label.endswith(_SHARES) and top <= 1
        axes.set_ylim(0, 1.04 if share else 1.08 * top or 1.0)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if len(curves) > 1:
            axes.legend(frameon=False)
    return figure
