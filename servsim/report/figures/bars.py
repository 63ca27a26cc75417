"""A comparison as bars with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from servsim.report.comparison import Cell, ComparisonRow
from servsim.report.figures.style import PAGE_IN, line_style, new_figure, shared_legend, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_comparison"]

# Title, and what stands at each group of bars: metric and its name below.
_PANELS: tuple[tuple[str, float, dict[str, str]], ...] = (
    ("TTFT (ms)", 1e3, {"ttft_s.p50": "p50", "ttft_s.p90": "p90", "ttft_s.p99": "p99"}),
    ("TPOT (ms)", 1e3, {"tpot_s.p50": "p50", "tpot_s.p90": "p90", "tpot_s.p99": "p99"}),
    ("E2E latency (s)", 1.0, {"e2e_s.p50": "p50", "e2e_s.p90": "p90", "e2e_s.p99": "p99"}),
    ("requests/s", 1.0, {"throughput.requests_per_s": "finished", "goodput_per_s": "goodput"}),
    ("share (%)", 100.0, {"slo.attainment": "SLO met", "kv_memory.used_mean": "KV use"}),
)
_LATENCIES = ("TTFT", "TPOT", "E2E")
_MOST_LINEAR = 30.0
_HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++", "oooo")


def draw_comparison(rows: Sequence[ComparisonRow]) -> Figure:
    """Five panels of bars, a bar a variant; whiskers are 95 % intervals over seeds."""
    cells = {row.metric.path: row.cells for row in rows}
    with styled():
        figure = new_figure(PAGE_IN, 2.3)
        panels = figure.subplots(1, len(_PANELS), width_ratios=[3, 3, 3, 2.7, 2.7])
        for axes, (title, factor, metrics) in zip(panels, _PANELS, strict=True):
            latency = title.startswith(_LATENCIES)
            found = {name: cells[path] for path, name in metrics.items() if _known(cells.get(path, {}))}
            _draw_panel(axes, found, factor, latency)
            if title.startswith("share"):
                axes.set_ylim(0, 104)  # an interval may reach further, a share cannot
            axes.set_title(title)
        shared_legend(figure, max(panels, key=lambda axes: len(axes.get_legend_handles_labels()[1])))
    return figure


def _known(cells: Mapping[str, Cell]) -> bool:
    """Some variant has this metric; a group of absent bars would read as zero."""
    return any(cell.mean is not None for cell in cells.values())


def _draw_panel(axes: Axes, groups: Mapping[str, Mapping[str, Cell]], factor: float, logarithmic: bool) -> None:
    """Bars from zero, or on a logarithmic axis where latencies differ so much that the small ones would vanish."""
    if not groups:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "undefined", transform=axes.transAxes, ha="center", va="center", color="#777777")
        return
    variants = list(next(iter(groups.values())))
    width = 0.8 / len(variants)
    for place, variant in enumerate(variants):
        found = [cells[variant] for cells in groups.values()]
        x = [group + (place - (len(variants) - 1) / 2) * width for group in range(len(found))]
        axes.bar(
            x, [factor * (cell.mean or 0.0) for cell in found], 0.92 * width, label=variant,
            color=line_style(place)["color"], hatch=_HATCHES[place % len(_HATCHES)], edgecolor="white", linewidth=0,
        )  # fmt: skip
        whiskers = [(at, cell) for at, cell in zip(x, found, strict=True) if cell.half_width and cell.mean is not None]
        for at, cell in whiskers:
            _whisker(axes, at, factor * (cell.mean or 0.0), factor * (cell.half_width or 0.0))
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.tick_params(axis="x", length=0)
    axes.grid(False, axis="x")
    values = [factor * cell.mean for cells in groups.values() for cell in cells.values() if cell.mean]
    if logarithmic and values and max(values) > _MOST_LINEAR * min(values):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)


def _whisker(axes: Axes, x: float, mean: float, half_width: float) -> None:
    low = max(mean - half_width, 0.02 * mean)  # an interval that reaches below zero would leave a logarithmic axis
    reach = [[mean - low], [half_width]]
    axes.errorbar([x], [mean], yerr=reach, fmt="none", ecolor="#222222", elinewidth=0.8, capsize=1.5)
