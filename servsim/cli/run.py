"""``servsim run``: simulate one scenario and write its results."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from servsim.cli import options
from servsim.cli.endings import INTERRUPTED, ended
from servsim.cli.output import note, show
from servsim.cli.progress import watched

__all__ = ["TableFormat", "run"]


class TableFormat(StrEnum):
    """What the tables of a result folder are written as."""

    CSV = "csv"
    PARQUET = "parquet"


Bench = Annotated[
    Path | None,
    typer.Option(
        "--bench", metavar="FILE", help="Write the result as vllm bench serve's JSON too.", show_default=False
    ),
]
Format = Annotated[TableFormat, typer.Option("--format", help="What the tables are written as.")]

_OTHER_BENCH = "choose another file with --bench"


@ended
def run(
    scenario: options.Scenario,
    set_: options.Set = None,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    table_format: Format = TableFormat.CSV,
    bench: Bench = None,
) -> None:
    """Simulate a scenario, print its summary and write its result folder."""
    # The simulator is imported by the verbs that need it: servsim --help must not wait for numpy.
    from servsim.report.folder import check_free
    from servsim.report.tables import run_table
    from servsim.scenario import load_scenario
    from servsim.simulation import Simulation, finish
    from servsim.writing import check_file, writing

    loaded = load_scenario(scenario, set_ or ())
    folder = out or Path("results") / loaded.name
    check_free(folder, overwrite)
    if bench is not None:
        check_file(bench, _OTHER_BENCH, overwrite=overwrite)
    simulation = Simulation(loaded)
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    with watched(simulation):
        result = finish(simulation)
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    result.write(folder, overwrite=overwrite, table_format=table_format.value)
    show(run_table(result.summary))
    ended_requests = result.summary["counts"]["finished"] + result.summary["counts"]["rejected"]
    note(f"{ended_requests:,} requests simulated in {wall_s:.2f} s ({cpu_s:.2f} CPU-s); results in {folder}")
    if bench is not None:
        with writing(bench, _OTHER_BENCH):
            result.write_bench(bench)
    if result.summary["partial"]:
        note(f"interrupted: {folder} holds what had happened by then, and is marked partial", style="yellow")
        raise typer.Exit(INTERRUPTED)
