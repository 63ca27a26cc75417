"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Jobs", "OptionalOut", "Out", "Overwrite", "Scenario", "Seeds", "Set", "Vary"]

Scenario = Annotated[
    str, typer.Argument(metavar="SCENARIO", help="A YAML file, or the name of a shipped scenario.", show_default=False)
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Replace a value, for example seed=7; may be repeated.", show_default=False
    ),
]
Vary = Annotated[
    list[str],
    typer.Option(
        "--vary",
        metavar="PATH=A,B,C",
        help="Values to try, for example instance.scheduler.policy=fcfs,sjf; repeated: every combination.",
        show_default=False,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Where results go; by default under results/, by the name of the scenario.",
        show_default=False,
    ),
]
OptionalOut = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Where results go; by default nothing is written.", show_default=False),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the results that exist already.")]
Seeds = Annotated[
    int, typer.Option("--seeds", min=1, metavar="N", help="How many seeds, counted from the scenario's own.")
]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", min=1, metavar="N", help="Processes to run in; by default one a core.", show_default=False),
]
