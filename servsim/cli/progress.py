"""Progress bars on stderr, for whatever takes longer than two seconds."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from servsim.cli.output import notes

if TYPE_CHECKING:
    from servsim.simulation import Simulation

__all__ = ["counted", "watched"]

_PATIENCE_S = 2.0
_REFRESH_S = 0.25


@contextlib.contextmanager
def watched(simulation: Simulation) -> Iterator[None]:
    """While the block runs a simulation, show how many of its requests have ended; it is read, never touched."""
    with _bar("requests", lambda: simulation.ended_requests, simulation.stream.num_requests):
        yield


@contextlib.contextmanager
def counted(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar over a known number of things, with the function to call when one is done."""
    done: list[None] = []
    with _bar(what, lambda: len(done), total):
        yield lambda: done.append(None)


@contextlib.contextmanager
def _bar(what: str, count: Callable[[], int], total: int | None) -> Iterator[None]:
    """A thread that waits, and then draws the bar if the block still runs; nothing where stderr is no terminal."""
    if not notes().is_terminal:
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_draw, args=(over, what, count, total), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _draw(over: threading.Event, what: str, count: Callable[[], int], total: int | None) -> None:
    if over.wait(_PATIENCE_S):
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # seldom needed

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=notes(), transient=True, auto_refresh=False) as progress:
        task = progress.add_task(what, total=total, completed=count())
        while not over.wait(_REFRESH_S):
            progress.update(task, completed=count(), refresh=True)
