"""``servsim calibrate``: a device's efficiencies from measured kernels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from servsim.cli import options
from servsim.cli.endings import ended
from servsim.cli.output import note, show

if TYPE_CHECKING:
    from rich.table import Table

    from servsim.calibration import Fit

__all__ = ["calibrate"]

Kernels = Annotated[
    list[Path],
    typer.Argument(metavar="KERNELS", help="Tables of kernel times (Parquet or CSV), or folders of them."),
]
DeviceName = Annotated[
    str, typer.Option("--device", metavar="NAME", help="The device: a name in the catalogue, or a path.")
]
OutFile = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="Where the refitted device file goes.", show_default=False),
]
Source = Annotated[
    str, typer.Option("--source", metavar="TEXT", help="Where the tables come from, for the device file.")
]

_OTHER_FILE = "choose another file with --out"


@ended
def calibrate(
    kernels: Kernels,
    device: DeviceName,
    out: OutFile = None,
    source: Source = "own measurements",
    overwrite: options.Overwrite = False,
) -> None:
    """Fit a device's roofline laws to measured kernels, and say how far off they are on rows held back.

    Every fifth row of each sorted table is held back. Nothing is written without --out.
    """
    from servsim.calibration import device_text, fitted, read_tables, works
    from servsim.documents import load_document
    from servsim.errors import ScenarioError
    from servsim.hardware import load_device
    from servsim.scenario import catalogue
    from servsim.writing import check_file, writing

    path = Path(device) if catalogue.is_path(device) else catalogue.find("devices", device)
    on = load_device(path)
    if out is not None:
        check_file(out, _OTHER_FILE, overwrite=overwrite)
    fits = []
    for work in works(read_tables(kernels), on):
        note(f"fitting {work.operator} in {work.dtype}: {len(work.seconds)} rows")
        fits.append(fitted(work))
    if not fits:
        raise ScenarioError(
            "the tables hold no kernel that servsim costs, or too few rows of each",
            remedy="docs/calibration.md says which rows are read",
        )
    show(_table(fits))
    if out is not None:
        text = device_text(path.read_text(encoding="utf-8"), load_document(path), fits, source)
        with writing(out, _OTHER_FILE):
            out.write_text(text, encoding="utf-8")
        load_device(out)
        note(f"device written to {out}")


def _table(fits: list[Fit]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("operator", "dtype", "rows", "held back", "law alone: median, p90 %", "corrected: median, p90 %"):
        table.add_column(column, justify="left" if column in ("operator", "dtype") else "right")
    for fit in fits:
        name = f"all_reduce of {fit.work.group}" if fit.work.group else fit.work.operator
        table.add_row(
            name,
            fit.work.dtype,
            str(fit.rows),
            str(fit.held_back),
            f"{100 * fit.law_median_error:.1f}, {100 * fit.law_p90_error:.1f}",
            f"{100 * fit.median_error:.1f}, {100 * fit.p90_error:.1f}",
        )
    return table
