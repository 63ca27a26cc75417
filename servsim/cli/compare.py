"""``servsim compare``: variants of a scenario on the identical request stream."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from servsim.cli import options
from servsim.cli.endings import ended
from servsim.cli.grids import closing, run_grid
from servsim.cli.output import show

__all__ = ["compare"]

Figures = Annotated[bool, typer.Option("--figures/--no-figures", help="Draw the comparison, latencies and timeline.")]


@ended
def compare(
    scenario: options.Scenario,
    vary: options.Vary,
    set_: options.Set = None,
    seeds: options.Seeds = 3,
    jobs: options.Jobs = None,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    figures: Figures = True,
) -> None:
    """Run variants of a scenario on the same requests: one table, differences seed by seed, figures.

    The first variant is the one that the others are compared with. Every run's results are kept under
    DIR/runs/<variant>/seed-<n>.
    """
    from servsim.cli.drawing import draw_comparison_of
    from servsim.report.comparison import compare_rows, write_comparison
    from servsim.report.tables import comparison_table
    from servsim.scenario import load_scenario
    from servsim.sweep import parse_axis

    axes = [parse_axis(text) for text in vary]
    loaded = load_scenario(scenario, set_ or ())
    folder = out or Path("results") / f"{loaded.name}-compare"
    with run_grid(loaded, axes, seeds, jobs, folder, overwrite=overwrite, tables=True) as (grid, batch):
        rows = compare_rows({name: [run.summary for run in runs] for name, runs in grid.by_variant.items()})
        write_comparison(grid.path / "comparison.csv", rows)
        show(comparison_table(rows), *([grid.partial] if grid.partial else []))
        warnings = dict.fromkeys(
            f"warning: {run.variant}: {warning}" for run in grid.runs for warning in run.summary["warnings"]
        )
        show(*(Text(warning) for warning in warnings))
        if figures:
            draw_comparison_of(grid, grid.path)
    closing(batch, folder)
