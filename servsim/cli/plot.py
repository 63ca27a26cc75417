"""``servsim plot``: figures from result folders and measured runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from servsim.cli.endings import ended
from servsim.cli.output import show_text

__all__ = ["plot"]

Sources = Annotated[
    list[Path],
    typer.Argument(
        metavar="DIR",
        help="Folders of servsim run, compare or sweep, and JSON files of vllm bench serve --save-detailed.",
        show_default=False,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="DIR", help="Where figures go; by default the folder, if one is given.", show_default=False
    ),
]


@ended
def plot(sources: Sources, out: Out = None) -> None:
    """Draw latency distributions, attainment, KV, batch and queue over time; measured runs beside simulated ones.

    Several runs are drawn together. Figures of the same name in DIR are replaced, and nothing else is touched.
    """
    from servsim.cli.plotting import draw_sources
    from servsim.writing import check_within

    folders = [source for source in sources if source.is_dir()]
    folder = out or (folders[0] if len(folders) == len(sources) == 1 else Path("results") / "plot")
    check_within(folder / "figure")
    for path in draw_sources(sources, folder):
        show_text(f"{path}\n")
