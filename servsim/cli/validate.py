"""``servsim validate``: measured runs of real engines, predicted and compared."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from servsim.cli import options
from servsim.cli.endings import ended, leave
from servsim.cli.output import note, show, show_text
from servsim.cli.progress import counted

if TYPE_CHECKING:
    from servsim.validation.measured import Dataset, MeasuredRun

__all__ = ["validate"]

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="DATASET", help="For example vllm_0.15_load_stages; all by default.", show_default=False),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="Where the measurements are; by default SERVSIM_DATA.", show_default=False
    ),
]
FitToo = Annotated[
    bool, typer.Option("--fit", help="Fit the engines' constants on the runs named fit, and print them instead.")
]


@ended
def validate(
    names: Names = None,
    data: Data = None,
    jobs: options.Jobs = None,
    fit: FitToo = False,
    out: options.OptionalOut = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Predict measured runs of real engines: error tables beside other simulators', figures with --out.

    Constants of engines are fitted on the runs named fit, never on those named test (docs/fidelity.md).
    """
    from servsim.report.folder import check_free
    from servsim.validation.measured import (
        compare_runs,
        data_folder,
        error_tables,
        find_datasets,
        read_runs,
        write_validation,
    )

    folder = data_folder(data)
    datasets = find_datasets(names or ())
    if out is not None:
        check_free(out, overwrite)
    runs = {dataset.name: read_runs(dataset, folder) for dataset in datasets}
    if fit:
        _fit(datasets, runs)
        return
    everything = [run for ours in runs.values() for run in ours]
    began_s = time.perf_counter()
    with counted("runs", len(everything)) as tick:
        found = compare_runs(everything, jobs, tick)
    ended_runs, compared = len(everything) - len(found.unfinished), found.in_whole_datasets
    note(f"{ended_runs} of {len(everything)} runs in {time.perf_counter() - began_s:.1f} s")
    whole = len(datasets) - len({run.dataset for run in found.unfinished})
    partial = f"partial: {whole} of {len(datasets)} datasets" if found.unfinished else None
    show(*error_tables(compared), *([partial] if partial else []))
    if out is not None and compared:
        write_validation(out, compared, overwrite=overwrite)
        note(f"results in {out}{f', {partial}' if partial else ''}")
    leave(found.failures, (_KEPT if whole else _NOTHING) if partial else None)


_KEPT = "the datasets of which every run had ended were kept"
_NOTHING = "of no dataset had every run ended, and nothing was written"


def _fit(datasets: list[Dataset], runs: dict[str, list[MeasuredRun]]) -> None:
    """Fit every engine of these datasets, and print the constants as they stand in its file."""
    from servsim.validation.measured import fit_engine

    for dataset in datasets:
        for engine in dataset.engines:
            found = fit_engine(dataset, runs[dataset.name], engine)
            note(f"{engine}: mean |ln| error of {found.runs} runs {found.loss_before:.4f} -> {found.loss_after:.4f}")
            show_text(f"{engine}:\n")
            for name, value in found.values.items():
                show_text(f"  {name}: {value:.4g}\n")
