"""How a command ends: what each kind of error says, and the exit status it gives."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, ParamSpec

import typer

from servsim.cli.output import note
from servsim.errors import ServsimError

if TYPE_CHECKING:
    from servsim.sweep import Failure

__all__ = ["BUG", "INTERRUPTED", "MISTAKE", "debugging", "ended", "leave"]

BUG, MISTAKE, INTERRUPTED = 1, 2, 130

debugging: ContextVar[bool] = ContextVar("debugging", default=False)
"""Whether tracebacks are shown."""

_Arguments = ParamSpec("_Arguments")


def ended(verb: Callable[_Arguments, None]) -> Callable[_Arguments, None]:
    """A verb whose exceptions become one message on stderr and an exit status.

    2 for a user's mistake (any ServsimError, and files that cannot be read or written), 1 for a bug of ours,
    130 after Ctrl-C.
    """

    @functools.wraps(verb)
    def guarded(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        try:
            verb(*args, **kwargs)
        except typer.Exit:
            raise
        except KeyboardInterrupt:
            note("interrupted; nothing was written", style="yellow")
            raise typer.Exit(INTERRUPTED) from None
        except ServsimError as error:
            _trace(traceback.format_exc())
            note(str(error), style="red")
            raise typer.Exit(MISTAKE) from None
        except OSError as error:
            if error.filename is None:
                _bug(f"{type(error).__name__}: {error}", traceback.format_exc())
                raise typer.Exit(BUG) from None
            _trace(traceback.format_exc())
            note(f"{error.filename}: {error.strerror}", style="red")
            raise typer.Exit(MISTAKE) from None
        except Exception as error:  # whatever it was, users get a sentence and a way to the traceback
            _bug(f"{type(error).__name__}: {error}", traceback.format_exc())
            raise typer.Exit(BUG) from None

    return guarded


def leave(failures: Sequence[Failure], interrupted: str | None) -> None:
    """Say which runs failed and, after Ctrl-C, what was kept; leave with the exit status that this gives, if any."""
    status = _report(failures)
    if interrupted is not None:
        note(f"interrupted; {interrupted}", style="yellow")
        status = INTERRUPTED
    if status:
        raise typer.Exit(status)


def _report(failures: Sequence[Failure]) -> int:
    """Say which runs of several failed and why; the exit status that this gives, 0 for none."""
    for failure in failures:
        if failure.is_bug:
            _bug(f"{failure.title}: {failure.message}", failure.traceback)
        else:
            _trace(failure.traceback)
            note(f"{failure.title}: {failure.message}", style="red")
    if not failures:
        return 0
    return BUG if any(failure.is_bug for failure in failures) else MISTAKE


def _bug(message: str, trace: str) -> None:
    _trace(trace)
    note(f"internal error: {message}", style="red")
    command = " ".join(["servsim", "--debug", *(word for word in sys.argv[1:] if word != "--debug")])
    how = "" if debugging.get() else f" `{command}` shows the traceback."
    note(f"  This is a bug of servsim, not a mistake of yours.{how} Please report it with the scenario.")


def _trace(trace: str) -> None:
    if debugging.get():
        note(trace.rstrip())
