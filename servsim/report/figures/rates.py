"""SLO attainment and goodput against the request rate, a curve a variant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from servsim.report.figures.style import PAGE_IN, line_style, new_figure, shared_legend, styled
from servsim.report.sweeping import RateCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_rates"]


def draw_rates(curves: Sequence[RateCurve], target: float = 0.9, x_label: str | None = None) -> Figure:
    """Two panels: attainment in percent with the rate at ``target`` marked, and goodput with the offered rate.

    Shaded bands are 95 % intervals over seeds. With ``x_label`` the curves run over something that is no rate:
    nothing is marked then, and there is no offered rate to compare goodput with.
    """
    with styled():
        figure = new_figure(PAGE_IN, 2.6)
        left, right = figure.subplots(1, 2)
        _draw_attainment(left, curves, target, marked=x_label is None)
        _draw_goodput(right, curves, offered=x_label is None)
        for axes in (left, right):
            axes.set_xlabel(x_label or "request rate (requests/s)")
            if x_label is None:
                axes.set_xlim(left=_left_edge(curves))
        shared_legend(figure, right)
    return figure


def _left_edge(curves: Sequence[RateCurve]) -> float:
    """0, or where the rates begin when that would leave half of the figure empty."""
    rates = [rate for curve in curves for rate in curve.rates_per_s] or [0.0]
    lowest, highest = min(rates), max(rates)
    return 0.0 if 2 * lowest <= highest else lowest - 0.06 * (highest - lowest)


def _draw_attainment(axes: Axes, curves: Sequence[RateCurve], target: float, *, marked: bool) -> None:
    axes.axhline(100 * target, color="#555555", linewidth=0.7, zorder=1)
    for place, curve in enumerate(curves):
        attained = 100 * np.array(curve.attainment)
        rates = np.array(curve.rates_per_s)
        _band(axes, rates, attained, [_percent(width) for width in curve.attainment_half_width], place, top=100.0)
        axes.plot(rates, attained, label=curve.label, clip_on=False, **line_style(place, markers=True))
        reached = curve.rate_at(target) if marked else None
        if reached is not None:
            colour = line_style(place)["color"]
            axes.plot([reached, reached], [0, 100 * target], color=colour, linewidth=0.8, linestyle=":")
            axes.plot([reached], [100 * target], "o", color=colour, markerfacecolor="white", markersize=4, zorder=4)
    if marked:
        _label_reached(axes, curves, target)
    axes.set_ylim(0, 104)
    axes.set_ylabel("SLO attainment (%)")


def _label_reached(axes: Axes, curves: Sequence[RateCurve], target: float) -> None:
    """The rates at the target as a small table in the corner, where labels cannot run into each other."""
    lines = [f"requests/s at {100 * target:.3g} %"]
    colours = ["#333333"]
    for place, curve in enumerate(curves):
        lines.append(f"{curve.label}: {curve.rate_in_words(target)}")
        colours.append(line_style(place)["color"])
    for row, (line, colour) in enumerate(zip(lines, colours, strict=True)):
        height = 0.03 + 0.085 * (len(lines) - 1 - row)
        axes.text(0.03, height, line, transform=axes.transAxes, color=colour, fontsize=6.5, zorder=5, bbox=_PLATE)


_PLATE = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85}


def _draw_goodput(axes: Axes, curves: Sequence[RateCurve], *, offered: bool) -> None:
    for place, curve in enumerate(curves):
        rates, goodput = np.array(curve.rates_per_s), np.array(curve.goodput_per_s)
        _band(axes, rates, goodput, curve.goodput_half_width, place)
        axes.plot(rates, goodput, label=curve.label, **line_style(place, markers=True))
    top = 1.12 * max((good for curve in curves for good in curve.goodput_per_s), default=1.0) or 1.0
    axes.set_ylim(0, top)
    axes.set_ylabel("goodput (requests/s)")
    if offered:
        highest = max((rate for curve in curves for rate in curve.rates_per_s), default=1.0)
        _draw_offered(axes, _left_edge(curves), highest, top)


def _draw_offered(axes: Axes, lowest: float, highest: float, top: float) -> None:
    """The line on which goodput would be if every request met its SLO."""
    axes.plot([0, highest], [0, highest], color="#999999", linewidth=0.7, zorder=1)
    at = lowest + 0.72 * (min(highest, top) - lowest)
    axes.annotate(
        "all requests", (at, at), xytext=(-4, 3), textcoords="offset points",
        ha="right", va="bottom", fontsize=6.5, color="#777777",
    )  # fmt: skip


def _band(
    axes: Axes, x: Any, middle: Any, half_widths: Sequence[float | None], place: int, top: float = np.inf
) -> None:
    if all(width is None for width in half_widths):
        return
    width = np.array([0.0 if one is None else one for one in half_widths])
    low, high = np.clip(middle - width, 0, top), np.clip(middle + width, 0, top)
    axes.fill_between(x, low, high, color=line_style(place)["color"], alpha=0.15, linewidth=0)


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
