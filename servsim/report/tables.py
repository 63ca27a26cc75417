"""Tables for a terminal: one run, several variants, a sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from servsim.metrics import mean_interval
from servsim.report.comparison import Cell, ComparisonRow, Metric, figures_of, metric_value
from servsim.report.sweeping import SweepRun

__all__ = ["comparison_table", "format_figure", "run_table", "sweep_table"]

_ABSENT = "–"
_WIDEST = 10_000
_LATENCIES = (
    ("ttft_s", "TTFT", "ms", 1e3),
    ("tpot_s", "TPOT", "ms", 1e3),
    ("itl_s", "ITL", "ms", 1e3),
    ("e2e_s", "E2E", "s", 1.0),
    ("queue_s", "queue", "ms", 1e3),
)
_COUNTED = ("", "requests")
_STATISTICS = ("mean", "p50", "p90", "p95", "p99", "max")
_FIGURES = (
    Metric("counts.submitted", "submitted", "requests"),
    Metric("counts.finished", "finished", "requests"),
    Metric("counts.rejected", "rejected", "requests"),
    Metric("counts.unfinished", "unfinished", "requests"),
    Metric("duration_s", "duration", "s"),
    Metric("arrival_rate_per_s", "arrivals", "requests/s"),
    Metric("throughput.requests_per_s", "throughput", "requests/s"),
    Metric("throughput.output_tokens_per_s", "output", "tokens/s"),
    Metric("throughput.total_tokens_per_s", "prompt + output", "tokens/s"),
    Metric("goodput_per_s", "goodput", "requests/s"),
    Metric("slo.attainment", "SLO attainment", "%", 100.0),
    Metric("preemptions.total", "preemptions", ""),
    Metric("batches.decode_seqs_mean", "decoding per step, mean", "sequences"),
    Metric("batches.tokens_per_step_mean", "tokens per step, mean", "tokens"),
    Metric("batches.busy", "time computing", "%", 100.0),
    Metric("prefix_cache.hit_ratio", "prompt tokens found", "%", 100.0),
    Metric("kv_memory.used_mean", "KV use, mean", "%", 100.0),
    Metric("kv_memory.used_max", "KV use, max", "%", 100.0),
    Metric("kv_memory.internal_fragmentation_mean", "KV reserved but empty", "%", 100.0),
    Metric("kv_memory.external_fragmentation_mean", "KV fragmented outside", "%", 100.0),
)
_SWEPT = (
    Metric("slo.attainment", "SLO", "%", 100.0),
    Metric("goodput_per_s", "goodput", "req/s"),
    Metric("ttft_s.p50", "TTFT p50", "ms", 1e3),
    Metric("ttft_s.p99", "TTFT p99", "ms", 1e3),
    Metric("tpot_s.p50", "TPOT p50", "ms", 1e3),
    Metric("tpot_s.p99", "TPOT p99", "ms", 1e3),
)
_FOUND = Metric("prefix_cache.hit_ratio", "prefix hits", "%", 100.0)


def format_figure(value: float | None, factor: float = 1.0, like: float | None = None) -> str:
    """A figure for people: four significant digits, thousands set apart, a whole number at most; a dash for None.

    ``like`` is a figure whose number of decimals is to be used: that of a mean for the interval around it.

    >>> format_figure(0.0), format_figure(1234567.0), format_figure(0.03127, 1e3), format_figure(None)
    ('0', '1,234,567', '31.27', '–')
    """
    if value is None:
        return _ABSENT
    size = abs((value if like is None else like) * factor)
    value *= factor
    if value == 0:
        return "0"
    if size >= 1000 and abs(value) >= 1:
        return f"{value:,.0f}"
    if size < 0.1 or abs(value) < 5e-4:
        return f"{value:.2g}"
    return f"{value:,.{1 if size >= 100 else 2 if size >= 10 else 3}f}"


def _format(value: float | None, metric: Metric) -> str:
    """A metric's value; counts are whole where they are whole."""
    if value is not None and metric.unit in _COUNTED and value == round(value):
        return f"{value:,.0f}"
    return format_figure(value, metric.factor)


def run_table(summary: Mapping[str, Any]) -> Group:
    """One run: latencies, then everything else, the measured window beside the whole run where one was cut out."""
    measured = summary.get("measured_window")
    parts: list[RenderableType] = []
    if measured is not None:
        parts.append(_latency_table(measured, "latency, measured window"))
    parts.append(_latency_table(summary, "latency, whole run" if measured is not None else "latency"))
    parts.append(_figures_table(summary, measured))
    shares = _share_table(figures_of(summary))
    if shares is not None:
        parts.append(shares)
    if outside := summary.get("outside_measured_range"):
        times = ", ".join(f"{kind} {count:,} times{_EXPECTED.get(kind, '')}" for kind, count in sorted(outside.items()))
        parts.append(
            Text(f"costs taken from outside the range measured on the device: {times}; docs/calibration.md says more")
        )
    parts.extend(Text(f"warning: {warning}", style="yellow") for warning in summary["warnings"])
    return Group(*parts)


_EXPECTED = {"lm_head": " (expected: vocabularies are wider than the products that were measured)"}


def comparison_table(rows: Sequence[ComparisonRow]) -> Group:
    """Variants side by side, and how each differs from the first one; metrics that no variant has are left out."""
    variants = list(rows[0].cells) if rows else []
    seeds = max((cell.seeds for row in rows for cell in row.cells.values()), default=0)
    over = f"mean ± 95 % interval over {seeds} seeds" if seeds > 1 else "one seed"
    difference = f"difference to {variants[0] if variants else ''}"
    known = [row for row in rows if any(cell.mean is not None for cell in row.cells.values())]
    values = _Columns(over, variants, known, _value)
    differences = _Columns(
        f"{difference}: seed by seed, {over}" if seeds > 1 else difference, variants[1:], known, _difference
    )
    return Group(values, differences) if len(variants) > 1 else Group(values)


@dataclass(frozen=True)
class _Columns:
    """A column a variant: in one table, or in several below each other where a terminal is too narrow for one."""

    title: str
    variants: Sequence[str]
    rows: Sequence[ComparisonRow]
    text: Callable[[Cell, Metric], str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for size in range(len(self.variants), 0, -1):
            tables = [self._table(self.variants[at : at + size]) for at in range(0, len(self.variants), size)]
            if all(
                Measurement.get(console, options.update(width=_WIDEST), table).maximum <= options.max_width
                for table in tables
            ):
                break
        else:
            tables = [self._table(self.variants)]
        yield from tables

    def _table(self, variants: Sequence[str]) -> Table:
        table = _table(self.title, [name.replace(", ", ",\n") for name in variants])
        for row in self.rows:
            texts = [self.text(row.cells[name], row.metric) for name in variants]
            table.add_row(row.metric.label, row.metric.unit, *texts)
        return table


def sweep_table(runs: Sequence[SweepRun]) -> Table:
    """A row for each point of a sweep, its figures the means over seeds; prefix hits where there are any."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for run in runs:
        groups.setdefault(tuple(str(value) for value in run.values.values()), []).append(figures_of(run.summary))
    seeds = max((len(found) for found in groups.values()), default=0)
    hits = any(metric_value(figures, _FOUND.path) for found in groups.values() for figures in found)
    metrics = (*_SWEPT, _FOUND) if hits else _SWEPT
    title = f"mean over {seeds} seeds" if seeds > 1 else None
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 2, 0, 0))
    for path in runs[0].values if runs else ():
        table.add_column(f"\n\n{path.rpartition('.')[2]}", no_wrap=True)
    for metric in metrics:
        # On two lines and a third for the unit, so that a grid of two paths fits 80 columns.
        label = metric.label.replace(" ", "\n") if " " in metric.label else f"\n{metric.label}"
        table.add_column(f"{label}\n{metric.unit}", justify="right", no_wrap=True)
    for values, found in groups.items():
        table.add_row(*values, *(_mean_of(found, metric) for metric in metrics))
    return table


def _latency_table(figures: Mapping[str, Any], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in ("unit", *_STATISTICS, "samples"):
        table.add_column(name, justify="left" if name == "unit" else "right")
    for name, label, unit, factor in _LATENCIES:
        found = figures[name]
        table.add_row(label, unit, *(format_figure(found[one], factor) for one in _STATISTICS), f"{found['count']:,}")
    return table


def _figures_table(summary: Mapping[str, Any], measured: Mapping[str, Any] | None) -> Table:
    scopes = {"whole run": summary} if measured is None else {"measured window": measured, "whole run": summary}
    table = _table(None, list(scopes))
    for metric in _FIGURES:
        values = [metric_value(figures, metric.path) for figures in scopes.values()]
        if any(value is not None for value in values):
            table.add_row(metric.label, metric.unit, *(_format(value, metric) for value in values))
    return table


def _share_table(figures: Mapping[str, Any]) -> Table | None:
    """Attainment by bound, and by class and tenant where there are several."""
    slo = figures["slo"]
    if slo is None:
        return None
    table = Table(title="SLO attainment", title_justify="left")
    for name, justify in (("by", "left"), ("", "left"), ("%", "right"), ("met", "right"), ("judged", "right")):
        table.add_column(name, justify="left" if justify == "left" else "right")
    groups = {"bound": slo["by_bound"], "class": slo["by_class"], "tenant": slo["by_tenant"]}
    for group, found in groups.items():
        if group == "bound" or len(found) > 1:
            for name, share in found.items():
                attained = format_figure(share["attainment"], 100.0)
                table.add_row(group, _bound_label(name, group), attained, f"{share['met']:,}", f"{share['judged']:,}")
    return table


def _bound_label(name: str, group: str) -> str:
    return name.removesuffix("_s").upper() if group == "bound" else name


def _table(title: str | None, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    table.add_column("unit")
    for name in columns:
        table.add_column(name, justify="right")
    return table


def _value(cell: Cell, metric: Metric) -> str:
    return _with_interval(_format(cell.mean, metric), cell.mean, cell.half_width, metric)


def _difference(cell: Cell, metric: Metric) -> str:
    if cell.difference is None:
        return _ABSENT
    sign = "+" if cell.difference > 0 else "−" if cell.difference < 0 else ""
    text = sign + _format(abs(cell.difference), metric)
    return _with_interval(text, cell.difference, cell.difference_half_width, metric)


def _with_interval(text: str, mean: float | None, half_width: float | None, metric: Metric) -> str:
    return text if half_width is None else f"{text} ± {format_figure(half_width, metric.factor, like=mean)}"


def _mean_of(found: Sequence[Mapping[str, Any]], metric: Metric) -> str:
    values = [metric_value(figures, metric.path) for figures in found]
    known = [value for value in values if value is not None]
    return _format(mean_interval(known)[0] if known else None, metric)
