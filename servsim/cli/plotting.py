"""Which figures a list of result folders and measured runs asks for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from servsim.cli.drawing import draw_comparison_of, draw_runs, draw_sweep_of, pooled
from servsim.errors import ResultError, ServsimError
from servsim.report.comparison import compare_rows
from servsim.report.figures import (
    draw_comparison,
    draw_distributions,
    draw_measured,
    draw_rates,
    measured_latency,
    save,
)
from servsim.report.folder import RunFolder, read_run
from servsim.report.sweeping import SweepRun, rate_curves
from servsim.report.vllm_bench import BenchResult, read_bench
from servsim.sweep import GRID_FILE, GridFolder, read_grid
from servsim.sweep.axis import numeric_axis

__all__ = ["draw_sources"]

_TARGET = 0.9


def draw_sources(sources: Sequence[Path], out: Path) -> list[Path]:
    """Draw everything into ``out``, and return the files; raises ResultError for what is no result."""
    grids, runs, measured = _read(sources)
    drawn: list[Path] = []
    for grid in grids:
        # Several grids would overwrite each other's figures, so each gets a folder of its own.
        drawn += _draw_grid(grid, out if len(sources) == 1 else out / grid.path.resolve().name)
    if runs:
        drawn += draw_runs({label: [run] for label, run in runs.items()}, out)
    if len(runs) > 1:
        drawn += _draw_together(runs, out)
    simulated = [pooled(label, [run]) for label, run in runs.items()]
    for label, result in measured.items():
        found = measured_latency(result, f"{label} (measured)")
        figure = draw_measured(found, simulated) if simulated else draw_distributions([found])
        drawn += save(figure, out / f"measured-{label}")
    return drawn


def _read(sources: Iterable[Path]) -> tuple[list[GridFolder], dict[str, RunFolder], dict[str, BenchResult]]:
    grids: list[GridFolder] = []
    runs: dict[str, RunFolder] = {}
    measured: dict[str, BenchResult] = {}
    for source in sources:
        if not source.exists():
            raise ResultError("there is no such file or folder", place=str(source), remedy=_what_is_there(source))
        if source.is_file():
            measured[_unused(source.stem, measured)] = read_bench(source)
        elif (source / GRID_FILE).is_file():
            grids.append(read_grid(source))
        else:
            runs[_unused(source.resolve().name, runs)] = read_run(source)
    return grids, runs, measured


def _what_is_there(source: Path) -> str:
    """What was meant by a folder that is not there: one of its name under results/, where runs go by default."""
    folders = [path.parent for mark in ("summary.json", GRID_FILE) for path in Path("results").glob(f"*/{mark}")]
    close = difflib.get_close_matches(source.name, [folder.name for folder in folders], n=1)
    return f"did you mean 'results/{close[0]}'?" if close else _DRAWABLE


_DRAWABLE = "give folders that servsim run, compare or sweep wrote, or results of vllm bench serve --save-detailed"


def _unused(label: str, taken: Mapping[str, Any]) -> str:
    number, found = 2, label
    while found in taken:
        found, number = f"{label} ({number})", number + 1
    return found


def _draw_grid(grid: GridFolder, out: Path) -> list[Path]:
    if (grid.path / "sweep.csv").is_file():
        return draw_sweep_of(grid, numeric_axis(grid.axes), out, _TARGET)
    return draw_comparison_of(grid, out)


def _draw_together(runs: Mapping[str, RunFolder], out: Path) -> list[Path]:
    """Bars of several runs; attainment against the rate where they were run at several rates."""
    drawn = save(
        draw_comparison(compare_rows({label: [run.summary] for label, run in runs.items()})), out / "comparison"
    )
    rates = {label: run.summary["arrival_rate_per_s"] for label, run in runs.items()}
    judged = all(run.summary["slo"] is not None for run in runs.values())
    if judged and None not in rates.values() and len({f"{rate:.1e}" for rate in rates.values()}) > 1:
        points = [SweepRun({"rate": rates[label], "policy": _policy(run)}, run.summary) for label, run in runs.items()]
        drawn += save(draw_rates(rate_curves(points, "rate"), _TARGET), out / "attainment")
    return drawn


def _policy(run: RunFolder) -> str:
    try:
        return run.scenario.instance.scheduler.policy
    except ServsimError:  # a plug-in, a model or a trace of then that is not here now
        return run.name
