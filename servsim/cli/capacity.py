"""``servsim capacity``: the highest request rate that keeps the SLO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from servsim.cli import options
from servsim.cli.endings import INTERRUPTED, ended
from servsim.cli.output import note, show, show_text

if TYPE_CHECKING:
    from rich.table import Table

    from servsim.cli.probing import Prober

__all__ = ["capacity"]

Target = Annotated[float, typer.Option("--target", help="The share of requests that has to meet the SLO.")]
Low = Annotated[
    float | None, typer.Option("--low", metavar="RATE", help="Search no lower, in requests/s.", show_default=False)
]
High = Annotated[
    float | None, typer.Option("--high", metavar="RATE", help="Search no higher, in requests/s.", show_default=False)
]
Tolerance = Annotated[
    float, typer.Option("--tolerance", help="How wide the bracket may remain, as a share of the rate.")
]
SomeVary = Annotated[
    list[str] | None,
    typer.Option("--vary", metavar="PATH=A,B,C", help="Search for each of these values.", show_default=False),
]


@ended
def capacity(
    scenario: options.Scenario,
    vary: SomeVary = None,
    set_: options.Set = None,
    target: Target = 0.9,
    low: Low = None,
    high: High = None,
    tolerance: Tolerance = 0.02,
    seeds: options.Seeds = 1,
    jobs: options.Jobs = None,
) -> None:
    """Search the highest request rate at which the target share of requests meets the SLO.

    The rate is doubled or halved until it is bracketed, then bisected; all probes use the same seeds, so that a
    higher rate is the same requests closer together. Nothing is written.
    """
    from servsim.cli.probing import Prober, check_limits
    from servsim.scenario import load_scenario
    from servsim.sweep import parse_axis, variants

    check_limits(target, low, high, tolerance)
    axes = [parse_axis(text) for text in vary or ()]
    loaded = load_scenario(scenario, set_ or ())
    probers = [Prober(loaded, variant, target, seeds, jobs) for variant in variants(axes)]
    for prober in probers:
        prober.search(low, high, tolerance)
        show(_table(prober))
        show_text(f"{prober.verdict()}\n\n")
        if prober.interrupted:
            note("interrupted; the bracket is as wide as the probes so far leave it", style="yellow")
            raise typer.Exit(INTERRUPTED)
    for assumption in probers[0].assumptions(tolerance):
        note(assumption)


def _table(prober: Prober) -> Table:
    """Every probe, by rate."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from servsim.report.tables import format_figure

    table = Table(title=f"{prober.title}: probes", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("requests/s", "SLO attainment\n%", "TTFT p99\nms", "TPOT p99\nms", "finished\nrequests/s", "keeps"):
        table.add_column(column, justify="right")
    for rate_per_s, attainment, figures in sorted(prober.rows(), key=lambda row: row[0]):
        ttft_s, tpot_s, finished_per_s = figures
        table.add_row(
            format_figure(rate_per_s),
            format_figure(attainment, 100),
            format_figure(ttft_s, 1e3),
            format_figure(tpot_s, 1e3),
            format_figure(finished_per_s),
            "yes" if attainment >= prober.target else "no",
        )
    return table
