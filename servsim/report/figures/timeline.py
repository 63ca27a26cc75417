"""KV use, batch size and waiting requests over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from servsim.report.figures.style import PAGE_IN, line_style, new_figure, shared_legend, styled
from servsim.report.folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Course", "binned", "draw_timeline", "present", "simulated_course"]

_BINS = 300


@dataclass(frozen=True, slots=True)
class Course:
    """What a run did over time: its columns of ``strides``, and from when until when each request waited.

    ``strides`` has the number waiting as of the end of a row only, which an arrival often is: over time that
    would be too many.
    """

    strides: Mapping[str, NDArray[Any]]
    waiting_from_s: NDArray[np.float64]
    waiting_until_s: NDArray[np.float64]

    @property
    def end_s(self) -> float:
        """When the last step ended."""
        return float(self.strides["end_s"].max(initial=0.0))


def simulated_course(run: RunFolder) -> Course:
    """A run's course; a request waits until it is first scheduled, and from its preemption to its next token."""
    end_s = float(run.strides["end_s"].max(initial=0.0))
    served = run.requests["status"] != "rejected"
    preempted = run.pauses["reason"] == "preempted"
    scheduled_s = np.nan_to_num(run.requests["scheduled_s"][served], nan=end_s)
    from_s = np.concatenate([run.requests["arrival_s"][served], run.pauses["start_s"][preempted]])
    until_s = np.concatenate([scheduled_s, run.pauses["end_s"][preempted]])
    return Course(run.strides, np.minimum(from_s, end_s), np.minimum(until_s, end_s))


def draw_timeline(runs: Mapping[str, Course], window_s: tuple[float, float] | None = None) -> Figure:
    """Three panels over one time axis, a curve a run.

    KV use is that of all instances' blocks; batch size (sequences that decode) and waiting requests are
    added up over instances; each point is the mean over a bin of time. ``window_s`` shades what
    lies outside the measured window.
    """
    with styled():
        figure = new_figure(PAGE_IN, 3.6)
        panels = figure.subplots(3, 1, sharex=True)
        end_s = max((run.end_s for run in runs.values()), default=0.0)
        unit, divisor = ("h", 3600.0) if end_s > 3 * 3600 else ("min", 60.0) if end_s > 600 else ("s", 1.0)
        for place, (label, run) in enumerate(runs.items()):
            for axes, (times_s, means) in zip(panels, _curves(run, end_s), strict=True):
                axes.plot(times_s / divisor, means, label=label, linewidth=1.0, **line_style(place))
        for axes, name in zip(panels, ("KV use (%)", "batch size\n(sequences)", "waiting\n(requests)"), strict=True):
            axes.set_ylabel(name)
            axes.set_ylim(bottom=0)
            axes.set_xlim(0, end_s / divisor or 1.0)
            _shade(axes, window_s, end_s, divisor)
        panels[0].set_ylim(0, 105)
        panels[-1].set_xlabel(f"time ({unit})")
        figure.align_ylabels(panels)
        shared_legend(figure, panels[0])
    return figure


def binned(
    strides: Mapping[str, NDArray[Any]], values: NDArray[np.float64], end_s: float, bins: int = _BINS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middles of equal bins of time from 0 to ``end_s`` and the time-weighted mean of ``values`` (one a row) in each.

    Instances are added up, and one that computes nothing counts as 0. Exact: the integral over time is
    piecewise linear, and is read off at the edges of the bins.
    """
    edges = np.linspace(0.0, end_s, bins + 1)
    integral = np.zeros(bins + 1)
    for instance in np.unique(strides["instance"]):
        mine = strides["instance"] == instance
        start_s, stop_s = strides["start_s"][mine], strides["end_s"][mine]
        total = np.cumsum(values[mine] * (stop_s - start_s))
        times_s = np.column_stack([start_s, stop_s]).ravel()
        integral += np.interp(edges, times_s, np.column_stack([np.append(0.0, total[:-1]), total]).ravel(), left=0.0)
    width = edges[1] - edges[0] if end_s else 1.0
    return (edges[:-1] + edges[1:]) / 2, np.diff(integral) / width


def present(
    from_s: NDArray[np.float64], until_s: NDArray[np.float64], end_s: float, bins: int = _BINS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middles of equal bins of time from 0 to ``end_s`` and how many were there in each, as a mean over time."""
    edges = np.linspace(0.0, end_s, bins + 1)
    integral = _since(from_s, edges) - _since(until_s, edges)
    width = edges[1] - edges[0] if end_s else 1.0
    return (edges[:-1] + edges[1:]) / 2, np.diff(integral) / width


def _since(events_s: NDArray[np.float64], times_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """At each time, how long ago the events before it were, added up."""
    ordered = np.sort(events_s)
    before = np.searchsorted(ordered, times_s)
    since: NDArray[np.float64] = before * times_s - np.append(0.0, np.cumsum(ordered))[before]
    return since


def _curves(run: Course, end_s: float) -> Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    strides = run.strides
    _, first = np.unique(strides["instance"], return_index=True)
    blocks = max(float(strides["kv_blocks_total"][first].sum()), 1.0)
    return (
        binned(strides, 100.0 * strides["kv_blocks_used"] / blocks, end_s),
        binned(strides, strides["decode_seqs"].astype(np.float64), end_s),
        present(run.waiting_from_s, run.waiting_until_s, end_s),
    )


def _shade(axes: Any, window_s: tuple[float, float] | None, end_s: float, divisor: float) -> None:
    if window_s is not None:
        for low_s, high_s in ((0.0, window_s[0]), (window_s[1], end_s)):
            axes.axvspan(low_s / divisor, high_s / divisor, color="#EEEEEE", zorder=0, linewidth=0)
