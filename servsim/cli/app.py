"""The command ``servsim``: all verbs under one name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from servsim.cli.calibrate import calibrate
from servsim.cli.capacity import capacity
from servsim.cli.check import check
from servsim.cli.compare import compare
from servsim.cli.endings import INTERRUPTED, debugging
from servsim.cli.list import list_
from servsim.cli.new import new
from servsim.cli.output import note, show_text
from servsim.cli.plot import plot
from servsim.cli.reproduce import reproduce
from servsim.cli.run import run
from servsim.cli.schema import schema
from servsim.cli.sweep import sweep
from servsim.cli.validate import validate
from servsim.version import VERSION

__all__ = ["app", "main"]

app = typer.Typer(
    name="servsim",
    help="Simulate LLM serving: run scenarios, compare schedulers, find what a deployment can carry.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run)
app.command("compare")(compare)
app.command("sweep")(sweep)
app.command("capacity")(capacity)
app.command("reproduce")(reproduce)
app.command("validate")(validate)
app.command("calibrate")(calibrate)
app.command("plot")(plot)
app.command("check")(check)
app.command("list")(list_)
app.command("new")(new)
app.command("schema")(schema)


def _show_version(wanted: bool) -> None:
    if wanted:
        show_text(f"servsim {VERSION}\n")
        raise typer.Exit


@app.callback()
def _common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of whatever goes wrong.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    debugging.set(debug)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit status: 0, 1 (our bug), 2 (the user's mistake) or 130 (Ctrl-C)."""
    try:
        app(arguments, prog_name="servsim")
    except KeyboardInterrupt:  # before a verb had begun
        note("interrupted", style="yellow")
        sys.exit(INTERRUPTED)
