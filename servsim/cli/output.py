"""Where a command's words go: results to stdout, everything else to stderr."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from rich.console import Console, RenderableType
from rich.text import Text

__all__ = ["note", "notes", "show", "show_text"]

_WIDE = 400  # columns, where no terminal sets a limit


def show(*results: RenderableType) -> None:
    """Print results, as wide as they are unless a terminal folds them; a reader that has gone is no error."""
    limited = sys.stdout.isatty() or "COLUMNS" in os.environ
    console = Console(width=None if limited else _WIDE, highlight=False)
    with console.capture() as capture:
        for result in results:
            console.print(result)
    show_text("".join(f"{line.rstrip()}\n" for line in capture.get().splitlines()))


def show_text(text: str) -> None:
    """Write text to stdout as it is."""
    _write(sys.stdout, text)


def note(text: str, style: str = "") -> None:
    """Say something that is no result, on stderr."""
    console = notes()
    with console.capture() as capture:
        console.print(Text(text, style=style), soft_wrap=True)
    _write(sys.stderr, capture.get())


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        # ``| head`` has read enough. The rest of the command still does its work, and Python's own
        # flush at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def notes() -> Console:
    """A console on stderr."""
    return Console(stderr=True, highlight=False)
