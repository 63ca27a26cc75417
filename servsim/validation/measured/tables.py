"""Error tables for people, as Markdown, and as files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from servsim.report.folder import json_bytes, result_folder
from servsim.report.whole_words import WholeWords
from servsim.validation.measured.comparing import Comparison
from servsim.validation.measured.datasets import DATASETS
from servsim.validation.measured.figures import draw_all
from servsim.validation.measured.scoring import METRICS, Line, Reached, lines_of, reached
from servsim.version import VERSION

__all__ = ["ERRORS_FILE", "by_dataset", "error_tables", "errors_markdown", "write_validation"]

ERRORS_FILE = "validation.json"
_HEADER = ("runs", "metric", "whose", "runs counted", "median", "p90", "bias")
_TARGETS = ("asked of", "figure", "runs counted", "at most", "reached", "")
_FEW, _MANY = 2, 16  # up to so many runs: shown one by one with all metrics; with means; more are summed up only


def by_dataset(comparisons: Sequence[Comparison]) -> dict[str, list[Comparison]]:
    """Comparisons by their dataset, in its order."""
    found: dict[str, list[Comparison]] = {}
    for one in comparisons:
        found.setdefault(one.run.dataset, []).append(one)
    return found


def error_tables(comparisons: Sequence[Comparison]) -> Iterator[WholeWords]:
    """For each dataset: its runs where they are few, errors summed up, and what was asked."""
    for name, ours in by_dataset(comparisons).items():
        dataset = DATASETS[name]
        if len(ours) <= _MANY:
            yield WholeWords(f"{name}: run by run, predicted against measured", *_run_rows(ours), names=3)
        lines = [_line(line) for line in lines_of(ours)]
        yield WholeWords(f"{name}: errors (fitted on: {dataset.fitted_on})", _HEADER, lines, names=3)
        targets = [_target(found) for found in reached(dataset, ours)]
        yield WholeWords(f"{name}: targets", _TARGETS, targets, names=2)


def errors_markdown(comparisons: Sequence[Comparison]) -> str:
    """The same as Markdown, a section a dataset, with its source and what was assumed."""
    parts = []
    for name, ours in by_dataset(comparisons).items():
        dataset = DATASETS[name]
        parts += [f"## {name}", "", f"Source: {dataset.source}. Fitted on: {dataset.fitted_on}.", ""]
        parts += [f"- {note}" for note in dataset.notes]
        parts += ["", *_markdown(_TARGETS, map(_target, reached(dataset, ours)))]
        parts += ["", *_markdown(_HEADER, map(_line, lines_of(ours)))]
        if len(ours) <= _MANY:
            parts += ["", *_markdown(*_run_rows(ours))]
        if len(groups := sorted({one.run.group for one in ours})) > 1:
            rows = (row for group in groups for row in _group_rows(group, ours))
            parts += ["", *_markdown(("group", "metric", "runs", "median", "p90", "bias"), rows)]
        parts.append("")
    return "\n".join(parts)


def write_validation(out: Path, comparisons: Sequence[Comparison], *, overwrite: bool = False) -> None:
    """Write ``validation.json``, ``errors.md``, ``runs.csv``, figures, and requests and curves where there are any.

    Raises ResultError where the folder is in the way.
    """
    with result_folder(out, overwrite) as folder:
        (folder / ERRORS_FILE).write_bytes(json_bytes(_plain(comparisons)))
        (folder / "errors.md").write_text(errors_markdown(comparisons))
        pd.DataFrame(_long(comparisons)).to_csv(folder / "runs.csv", index=False)
        for one in comparisons:
            stem = one.run.scenario["name"]
            if one.requests is not None:
                one.requests.to_csv(folder / f"{stem}.requests.csv")
            if one.curves is not None:
                one.curves.table.to_csv(folder / f"{stem}.curves.csv", index=False)
        for name, ours in by_dataset(comparisons).items():
            draw_all(name, ours, folder)


def _markdown(header: Sequence[str], rows: Any) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def _line(line: Line) -> tuple[str, ...]:
    figures = (_percent(line.median), _percent(line.p90), _percent(line.bias, signed=True))
    return (line.rows_are, line.metric, line.who, str(line.rows), *figures)


def _target(found: Reached) -> tuple[str, ...]:
    target = found.target
    whose = f"runs with {target.peer}'s prediction" if target.peer else target.where or "all runs"
    verdict = "met" if found.met else "missed"
    return (
        whose, f"{found.metric}, {target.statistic}", str(found.rows), _percent(target.at_most),
        _percent(found.value), verdict,
    )  # fmt: skip


def _run_rows(ours: Sequence[Comparison]) -> tuple[list[str], list[tuple[str, ...]]]:
    shown = (
        METRICS
        if len(ours) <= _FEW
        else [metric for metric in METRICS if metric.endswith(("_mean", "_s", "generated", "blocks"))]
    )
    metrics = [metric for metric in shown if any(one.error(metric) is not None for one in ours)]
    peers = sorted({peer for one in ours for peer in one.run.peers})
    header = ["run", "role", "metric", "measured", "predicted", "error", *peers]
    rows = []
    for one in ours:
        for metric in metrics:
            error = one.error(metric)
            if error is None:
                continue
            known = one.run.measured.get(metric)
            theirs = (one.peer_error(peer, metric) for peer in peers)
            rows.append(
                (
                    one.run.name, one.run.role, metric, "" if known is None else f"{known:.4g}",
                    "" if known is None else f"{one.predicted[metric]:.4g}",
                    _percent(error, signed=known is not None),
                    *("" if value is None else _percent(value, signed=True) for value in theirs),
                )
            )  # fmt: skip
    return header, rows


def _group_rows(group: str, ours: Sequence[Comparison]) -> Iterator[tuple[str, ...]]:
    members = [one for one in ours if one.run.group == group]
    for metric in METRICS:
        errors = pd.Series([error for one in members if (error := one.error(metric)) is not None], dtype=float)
        if len(errors):
            size = errors.abs()
            yield (
                group, metric, str(len(errors)), _percent(size.median()), _percent(float(size.quantile(0.9))),
                _percent(errors.median(), signed=True),
            )  # fmt: skip


def _long(comparisons: Sequence[Comparison]) -> Iterator[dict[str, Any]]:
    for one in comparisons:
        for metric, measured in one.run.measured.items():
            if metric in one.predicted:
                yield {
                    "dataset": one.run.dataset,
                    "run": one.run.name,
                    "group": one.run.group,
                    "role": one.run.role,
                    "metric": metric,
                    "measured": measured,
                    "predicted": one.predicted[metric],
                    **{peer: told.get(metric) for peer, told in one.run.peers.items()},
                }


def _plain(comparisons: Sequence[Comparison]) -> Mapping[str, Any]:
    datasets = []
    for name, ours in by_dataset(comparisons).items():
        dataset = DATASETS[name]
        targets = [
            {"metric": one.metric, "statistic": one.target.statistic, "at_most": one.target.at_most,
             "peer": one.target.peer, "where": one.target.where, "runs": one.rows, "reached": one.value, "met": one.met}
            for one in reached(dataset, ours)
        ]  # fmt: skip
        lines = [
            {"runs_are": one.rows_are, "metric": one.metric, "who": one.who, "runs": one.rows,
             "median": one.median, "p90": one.p90, "bias": one.bias}
            for one in lines_of(ours)
        ]  # fmt: skip
        curves = {
            one.run.name: {key: one.curves.mean_distance(key) for key in ("running", "waiting", "kv")}
            for one in ours
            if one.curves is not None
        }
        datasets.append(
            {"name": name, "fitted_on": dataset.fitted_on, "targets": targets, "errors": lines, "curves": curves}
        )
    return {"servsim_version": VERSION, "datasets": datasets}


def _percent(share: float, *, signed: bool = False) -> str:
    text = f"{100 * share:+.1f} %" if signed else f"{100 * share:.1f} %"
    return text.replace("-", "−")
