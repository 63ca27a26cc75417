"""How figures look, and how they are saved: for a paper's column, in colours that everybody can tell apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servsim.writing import writing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLUMN_IN", "PAGE_IN", "line_style", "new_figure", "save", "shared_legend", "styled"]

COLUMN_IN = 3.4  # inches: one column of a two-column paper
PAGE_IN = 7.0  # both columns

# Okabe and Ito's palette, in the order in which neighbours differ most; yellow is too pale for lines.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)), (0, (7, 2)), (0, (3, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")

_SETTINGS: dict[str, Any] = {
    "figure.dpi": 100,
    "savefig.dpi": 300,
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "hatch.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "svg.hashsalt": "servsim",  # element ids by content, not by chance
    "svg.fonttype": "path",
    "path.simplify": True,
}


@contextmanager
def styled() -> Iterator[None]:
    """Our settings for as long as the block lasts, on top of matplotlib's defaults and not the user's."""
    import matplotlib as mpl  # 0.7 s: only who draws pays it

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)  # type: ignore[arg-type,unused-ignore]  # names depend on the version
        yield


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure that pyplot knows nothing of, laid out so that nothing overlaps."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), layout="constrained")


def line_style(place: int, markers: bool = False) -> dict[str, Any]:
    """Colour, dashes and (for points) marker of the curve at a place; curves differ without colour as well."""
    style = {"color": _COLOURS[place % len(_COLOURS)], "linestyle": _DASHES[place % len(_DASHES)]}
    return style | ({"marker": _MARKERS[place % len(_MARKERS)]} if markers else {})


def shared_legend(figure: Figure, axes: Axes, most_columns: int = 4) -> None:
    """One legend above all axes, from the labelled artists of one of them; none for a single curve.

    It has as many columns as the figure is wide enough for.
    """
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) < 2:
        return
    for columns in range(min(len(labels), most_columns), 0, -1):
        legend = figure.legend(handles, labels, loc="outside upper center", ncols=columns)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def save(figure: Figure, stem: Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write ``<stem>.png`` (300 dpi) and ``<stem>.svg``; the same figure gives the same bytes. Raises ResultError."""
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in formats]
    with styled(), writing(stem.parent):
        stem.parent.mkdir(parents=True, exist_ok=True)
        for path in paths:
            figure.savefig(path, metadata={"Software": None} if path.suffix == ".png" else {"Date": None})
    return paths
