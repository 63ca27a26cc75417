"""What compare and sweep share: a grid is run into a folder, and what is finished is kept whatever happens."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from servsim.cli.endings import BUG, leave
from servsim.cli.output import note
from servsim.cli.progress import counted

if TYPE_CHECKING:
    from servsim.scenario import Scenario
    from servsim.sweep import Axis, Batch, GridFolder

__all__ = ["closing", "run_grid"]


@contextlib.contextmanager
def run_grid(
    scenario: Scenario,
    axes: Sequence[Axis],
    seeds: int,
    jobs: int | None,
    out: Path,
    *,
    overwrite: bool,
    tables: bool,
    metrics: Sequence[str] = (),
) -> Iterator[tuple[GridFolder, Batch]]:
    """Run every variant under every seed, and give the folder that becomes ``out`` when the block ends.

    ``metrics`` are figures that the block will ask for: refused, if no run has them, before anything runs. The block
    adds its tables and figures; the runs are kept even where it fails. After Ctrl-C or failures the folder holds the
    runs that ended, and its ``grid.json`` is marked partial; without a single one there is no folder, and this exits.
    """
    from servsim.report.folder import check_free, result_folder
    from servsim.report.sweeping import check_metrics
    from servsim.sweep import clear_unfinished, execute, plan_jobs, variants, write_grid

    found = variants(axes)
    trouble: Exception | None = None
    check_free(out, overwrite)
    possible = plan_jobs(scenario, found, 1, None)  # all of them make sense, before anything is written
    check_metrics(metrics, [job.scenario for job in possible])
    with result_folder(out, overwrite) as folder:
        planned = plan_jobs(scenario, found, seeds, folder / "runs", tables=tables)
        wall_s = time.perf_counter()
        with counted("runs", len(planned)) as tick:
            batch = execute(planned, jobs, tick)
        note(f"{len(batch.summaries)} of {len(planned)} runs in {time.perf_counter() - wall_s:.1f} s")
        if not batch.summaries:
            closing(batch, out)
            raise typer.Exit(BUG)  # closing has raised already unless there was no job at all
        clear_unfinished(folder / "runs")
        (folder / "scenario.yaml").write_text(scenario.to_yaml(), encoding="utf-8")
        try:
            yield write_grid(folder, axes, planned, batch), batch
        except KeyboardInterrupt:
            batch.interrupted = True
        except Exception as error:
            trouble = error
    if trouble is not None:
        note(f"the runs are in {out}, but not all that is made of them", style="yellow")
        raise trouble


def closing(batch: Batch, out: Path) -> None:
    """Say where the results are and what went wrong; leaves with the exit status that this gives."""
    if batch.summaries:
        partial = ", partial: not every run has a result" if batch.failures or batch.interrupted else ""
        note(f"results in {out}{partial}", style="yellow" if partial else "")
    kept = "the runs that had ended were kept" if batch.summaries else "no run had ended, and nothing was written"
    leave(batch.failures, kept if batch.interrupted else None)
