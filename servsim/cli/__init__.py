"""The command line: one module a verb, which parses, calls and prints."""

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command ``servsim``; Ctrl-C while it is still being loaded is no traceback either."""
    try:
        from servsim.cli.app import main as run
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    run(arguments)
