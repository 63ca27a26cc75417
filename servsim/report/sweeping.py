"""Many runs over a grid: one row a run, and curves over the rate made of them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servsim.errors import ScenarioError, suggestion
from servsim.metrics import mean_interval, rate_at, summarise
from servsim.records import Recorder
from servsim.report.comparison import METRICS, figures_of, metric_value

if TYPE_CHECKING:
    from servsim.scenario import Scenario

__all__ = [
    "MetricCurve",
    "RateCurve",
    "SweepRun",
    "check_metrics",
    "metric_curves",
    "rate_curves",
    "sweep_rows",
    "write_sweep",
]

_NAMED_LATER = ("by_class", "by_tenant", "memory", "outside_measured_range", "scheduler")
"""Parts of a summary whose keys depend on the requests, the allocator or the scheduler: a run tells them."""


@dataclass(frozen=True, slots=True)
class SweepRun:
    """One run of a sweep: what was varied (path to value) and its summary."""

    values: Mapping[str, Any]
    summary: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RateCurve:
    """SLO attainment (a share) and goodput (requests/s) of one variant against the request rate, by rising rate.

    ``*_half_width`` are those of the 95 % intervals over seeds, None for a single one.
    """

    label: str
    rates_per_s: tuple[float, ...]
    attainment: tuple[float, ...]
    attainment_half_width: tuple[float | None, ...]
    goodput_per_s: tuple[float, ...]
    goodput_half_width: tuple[float | None, ...]

    def rate_at(self, target: float) -> float | None:
        """The interpolated rate at which attainment falls below ``target``; None when it is not bracketed."""
        return rate_at(self.rates_per_s, self.attainment, target)

    def rate_in_words(self, target: float) -> str:
        """That rate with three digits (22.0 beside 21.7), or where it must lie when it is not bracketed."""
        reached = self.rate_at(target)
        if reached is not None:
            return f"{reached:,.0f}" if reached >= 100 else f"{reached:#.3g}"
        below = self.attainment[0] < target
        return f"below {self.rates_per_s[0]:.3g}" if below else f"above {self.rates_per_s[-1]:.3g}"


@dataclass(frozen=True, slots=True)
class MetricCurve:
    """One figure of the summaries along an axis, by rising value of that; the means over seeds and their intervals."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    half_width: tuple[float | None, ...]


def metric_curves(runs: Sequence[SweepRun], x: str, metric: str) -> list[MetricCurve]:
    """``metric`` (a path such as ``prefix_cache.miss_ratio``) along the varied path ``x``.

    A curve for each combination of all that was varied besides; points at which the metric is undefined are left out.
    """
    curves = []
    for label, points in _grouped(runs, x).items():
        found = []
        for seeds in points.values():
            values = [metric_value(figures_of(run.summary), metric) for run in seeds]
            known = [value for value in values if value is not None]
            if known:
                found.append((float(seeds[0].values[x]), *mean_interval(known)))
        if found:
            curves.append(MetricCurve(label, *(tuple(column) for column in zip(*sorted(found), strict=True))))
    return curves


def check_metrics(metrics: Iterable[str], scenarios: Sequence[Scenario]) -> None:
    """Raises ScenarioError for a path that leads to no figure in the summary of any of these scenarios, run or not."""
    metrics = tuple(metrics)
    if not metrics:
        return
    known: set[str] = set()
    for scenario in scenarios:
        classes = tuple(scenario.slo) if isinstance(scenario.slo, Mapping) else ("default",)
        nothing = summarise(Recorder().records((), classes), scenario, calibration="", version="")
        known.update(_figure_paths(figures_of(nothing)))
    parts = {path for path in known if path.rpartition(".")[2] in _NAMED_LATER}
    figures = known - parts
    for metric in metrics:
        keys = metric.split(".")
        within = {".".join(keys[:depth]) for depth in range(1, len(keys))}
        if metric not in figures and not within & parts:
            remedy = _leading_on(metric, figures, parts)
            raise ScenarioError(f"no run has a figure '{metric}'", place="--metric", remedy=remedy)


def _leading_on(metric: str, figures: set[str], parts: set[str]) -> str:
    """What would do in place of a path that leads to no figure."""
    if metric in parts:
        return f"add one of its keys, {metric}.KEY; the summary.json of a run has them"
    if inside := sorted(path for path in figures if path.startswith(f"{metric}.")):
        usual = [f"{metric}.{name}" for name in ("mean", "p99")]
        return f"write one of its own, {' or '.join(usual) if set(usual) <= figures else ', '.join(inside)}"
    close = suggestion(metric, figures)
    return close if close.startswith("did you mean") else _ANY_FIGURE


_ANY_FIGURE = "write a path in summary.json, such as ttft_s.p99 or prefix_cache.miss_ratio"


def _figure_paths(figures: Mapping[str, Any], within: str = "") -> Iterator[str]:
    """The paths of all numbers, and of those parts whose keys are not known before a run."""
    for key, value in figures.items():
        if key in _NAMED_LATER or value is None or isinstance(value, int | float):
            yield within + key
        elif isinstance(value, Mapping):
            yield from _figure_paths(value, f"{within}{key}.")


def sweep_rows(runs: Sequence[SweepRun]) -> list[dict[str, Any]]:
    """One flat mapping a run: the varied values, the seed, then every metric by its path in base units."""
    return [
        {
            **run.values,
            "seed": run.summary["seed"],
            "arrival_rate_per_s": figures_of(run.summary)["arrival_rate_per_s"],
            **{metric.path: metric_value(figures_of(run.summary), metric.path) for metric in METRICS},
        }
        for run in runs
    ]


def write_sweep(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``sweep.csv`` from :func:`sweep_rows`; what is undefined is left empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def rate_curves(runs: Sequence[SweepRun], x: str, *, measured: bool = False) -> list[RateCurve]:
    """Curves over the request rate, one for each combination of all that was varied besides ``x``.

    ``x`` is the varied path that moves the rate: the rate itself, or with ``measured`` something else, such as
    ``workload.time_scale``, and the rate is that at which requests arrived. Runs are seeds of one point
    when all their varied values are equal. Points without an SLO or a rate are left out.
    """
    groups = _grouped(runs, x)
    curves = (_curve(label, list(points.values()), None if measured else x) for label, points in groups.items())
    return [found for found in curves if found.rates_per_s]


def _grouped(runs: Sequence[SweepRun], x: str) -> dict[str, dict[str, list[SweepRun]]]:
    """Runs by all that was varied besides ``x``, then by ``x``; what is left in a group are seeds."""
    groups: dict[str, dict[str, list[SweepRun]]] = {}
    for run in runs:
        others = [str(value) for path, value in run.values.items() if path != x]
        label = ", ".join(other for other in others if other) or str(run.summary["name"])
        groups.setdefault(label, {}).setdefault(str(run.values[x]), []).append(run)
    return groups


def _curve(label: str, points: Sequence[Sequence[SweepRun]], x: str | None) -> RateCurve:
    found = sorted(point for point in (_point(runs, x) for runs in points) if point is not None)
    columns: list[tuple[Any, ...]] = list(zip(*found, strict=True)) or [()] * 5
    return RateCurve(label, *columns)


def _point(runs: Sequence[SweepRun], x: str | None) -> tuple[Any, ...] | None:
    """Rate, attainment and goodput of one point over its seeds."""
    rows = [figures_of(run.summary) for run in runs]
    rates = [metric_value(row, "arrival_rate_per_s") for row in rows] if x is None else [float(runs[0].values[x])]
    attained = [metric_value(row, "slo.attainment") for row in rows]
    good = [metric_value(row, "goodput_per_s") for row in rows]
    known = [[value for value in values if value is not None] for values in (rates, attained, good)]
    if not all(known):
        return None
    return (mean_interval(known[0])[0], *mean_interval(known[1]), *mean_interval(known[2]))
