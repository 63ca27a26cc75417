"""``servsim check``: what a scenario was understood to mean; nothing runs."""

from __future__ import annotations

from servsim.cli import options
from servsim.cli.endings import ended
from servsim.cli.output import show

__all__ = ["check"]


@ended
def check(scenario: options.Scenario, set_: options.Set = None) -> None:
    """Tell what a scenario means: model, device, memory budget, step times, workload, SLO. Nothing runs."""
    from rich.table import Table
    from rich.text import Text

    from servsim.cli.understanding import sections
    from servsim.scenario import load_scenario

    for section in sections(load_scenario(scenario, set_ or ())):
        table = Table(title=section.title, title_justify="left", title_style="bold", box=None, show_header=False)
        for _ in range(max(map(len, section.rows), default=0)):
            table.add_column(overflow="fold")
        for row in section.rows:
            table.add_row(*(Text(cell) for cell in row))
        show(table, "")
