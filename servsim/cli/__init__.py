"""The command line: one module a verb, which parses, calls and prints."""

from servsim.cli.app import main

__all__ = ["main"]
