"""``servsim sweep``: SLO attainment and goodput along an axis, usually the request rate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from servsim.cli import options
from servsim.cli.endings import ended
from servsim.cli.grids import closing, run_grid
from servsim.cli.output import note, show

__all__ = ["sweep"]

Metrics = Annotated[
    list[str] | None,
    typer.Option("--metric", help="A figure of the summaries to draw as well, such as ttft_s.p99.", metavar="PATH"),
]
Target = Annotated[float, typer.Option("--target", help="The attainment whose rate is marked.")]


@ended
def sweep(
    scenario: options.Scenario,
    vary: options.Vary,
    set_: options.Set = None,
    seeds: options.Seeds = 1,
    jobs: options.Jobs = None,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    target: Target = 0.9,
    metric: Metrics = None,
) -> None:
    """Run a grid: attainment and goodput along its first numeric axis, a curve for each combination of the others.

    The classic figure: --vary workload.arrivals.rate_per_s=5,10,20 --vary instance.scheduler.policy=fcfs,sjf.
    Where a prefix cache was hit, its miss ratio is drawn too: --vary instance.memory.num_blocks=1000,4000,16000.
    """
    from servsim.cli.drawing import draw_metrics_of, draw_sweep_of, rates_reached, sweep_runs
    from servsim.report.sweeping import sweep_rows, write_sweep
    from servsim.report.tables import sweep_table
    from servsim.scenario import load_scenario
    from servsim.sweep import parse_axis
    from servsim.sweep.axis import check_target, numeric_axis

    axes = [parse_axis(text) for text in vary]
    check_target(target)
    loaded = load_scenario(scenario, set_ or ())
    x = numeric_axis(axes)
    folder = out or Path("results") / f"{loaded.name}-sweep"
    metrics = metric or ()
    running = run_grid(loaded, axes, seeds, jobs, folder, overwrite=overwrite, tables=False, metrics=metrics)
    with running as (grid, batch):
        runs = sweep_runs(grid)
        write_sweep(grid.path / "sweep.csv", sweep_rows(runs))
        show(sweep_table(runs), *([grid.partial] if grid.partial else []))
        if loaded.slo is None:
            note("the scenario has no slo, so there is no attainment to draw", style="yellow")
        else:
            draw_sweep_of(grid, x, grid.path, target)
            if (reached := rates_reached(grid, x, target)) is not None:
                show(Text(reached))
        draw_metrics_of(grid, x, grid.path, metrics)
    closing(batch, folder)
