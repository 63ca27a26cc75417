"""Several variants over the same seeds: means with intervals, and differences within each seed."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servsim.metrics import mean_interval

__all__ = [
    "METRICS",
    "Cell",
    "ComparisonRow",
    "Metric",
    "compare_rows",
    "figures_of",
    "metric_value",
    "write_comparison",
]


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of a summary: where it stands there, and how people read it."""

    path: str  # keys joined by dots, such as ttft_s.p99; in base units
    label: str
    unit: str  # what people read
    factor: float = 1.0  # from base units to that


def _latency(name: str, label: str, unit: str, factor: float) -> list[Metric]:
    return [Metric(f"{name}.{statistic}", f"{label} {statistic}", unit, factor) for statistic in ("p50", "p90", "p99")]


METRICS = (
    *_latency("ttft_s", "TTFT", "ms", 1e3),
    *_latency("tpot_s", "TPOT", "ms", 1e3),
    *_latency("itl_s", "ITL", "ms", 1e3),
    *_latency("e2e_s", "E2E", "s", 1.0),
    Metric("throughput.requests_per_s", "throughput", "requests/s"),
    Metric("throughput.output_tokens_per_s", "output", "tokens/s"),
    Metric("goodput_per_s", "goodput", "requests/s"),
    Metric("slo.attainment", "SLO attainment", "%", 100.0),
    Metric("preemptions.total", "preemptions", ""),
    Metric("prefix_cache.hit_ratio", "prefix hits", "%", 100.0),
    Metric("kv_memory.used_mean", "KV use, mean", "%", 100.0),
    Metric("kv_memory.used_max", "KV use, max", "%", 100.0),
    Metric("counts.rejected", "rejected", "requests"),
    Metric("counts.unfinished", "unfinished", "requests"),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """A metric of one variant over its seeds, in base units; None where it is undefined.

    ``half_width`` is that of the 95 % interval around the mean. ``difference`` is the mean of variant - first
    variant, taken seed by seed where both have the seed, with its own interval: what chance did to
    both alike cancels out of it. The first variant has no difference.
    """

    seeds: int
    mean: float | None
    half_width: float | None
    difference: float | None = None
    difference_half_width: float | None = None


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One metric across all variants."""

    metric: Metric
    cells: dict[str, Cell]


def figures_of(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """The figures that count: those of the measured window where one was cut out, else of the whole run."""
    measured = summary.get("measured_window")
    return summary if measured is None else measured


def metric_value(figures: Mapping[str, Any], path: str) -> float | None:
    """The value at a dotted path of a summary; None where a part of it is absent, undefined or no number."""
    value: Any = figures
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, int | float) else None


def compare_rows(summaries: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[ComparisonRow]:
    """One row for each of :data:`METRICS`, from every variant's summaries, one a seed.

    The first variant is the one that others are compared with. Pairs are found by the summaries' ``seed``.
    """
    by_variant = {
        variant: {int(summary["seed"]): figures_of(summary) for summary in found}
        for variant, found in summaries.items()
    }
    first = next(iter(by_variant), None)
    rows = []
    for metric in METRICS:
        values = {
            variant: {seed: metric_value(figures, metric.path) for seed, figures in by_seed.items()}
            for variant, by_seed in by_variant.items()
        }
        cells = {
            variant: _cell(by_seed, None if variant == first or first is None else values[first])
            for variant, by_seed in values.items()
        }
        rows.append(ComparisonRow(metric, cells))
    return rows


def _cell(values: Mapping[int, float | None], first: Mapping[int, float | None] | None) -> Cell:
    mean, half_width = _mean([value for value in values.values() if value is not None])
    if first is None:
        return Cell(len(values), mean, half_width)
    pairs = [(value, first.get(seed)) for seed, value in values.items()]
    differences = [value - other for value, other in pairs if value is not None and other is not None]
    return Cell(len(values), mean, half_width, *_mean(differences))


def _mean(values: Sequence[float]) -> tuple[float | None, float | None]:
    return mean_interval(values) if values else (None, None)


_HEADER = (
    "metric",
    "variant",
    "seeds",
    "mean",
    "half_width_95",
    "difference_to_first",
    "difference_half_width_95",
)


def write_comparison(path: Path, rows: Sequence[ComparisonRow]) -> None:
    """Write ``comparison.csv``: a row a metric and variant, in base units (seconds, shares), undefined left empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_HEADER)
        for row in rows:
            for variant, cell in row.cells.items():
                figures = (cell.mean, cell.half_width, cell.difference, cell.difference_half_width)
                writer.writerow([row.metric.path, variant, cell.seeds, *figures])
