"""``servsim schema``: the JSON Schema of scenario files, for editors."""

from __future__ import annotations

from servsim.cli.endings import ended
from servsim.cli.output import show_text

__all__ = ["schema"]


@ended
def schema() -> None:
    """Print a JSON Schema of scenario files, by which an editor completes and checks them."""
    import json

    from servsim.scenario import scenario_schema  # imported by whoever needs it: --help does not

    show_text(json.dumps(scenario_schema(), indent=2) + "\n")
