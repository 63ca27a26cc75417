"""A function over many arguments, spread over processes by joblib, and ended cleanly by Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

__all__ = ["all_of"]

Argument = TypeVar("Argument")
Found = TypeVar("Found")


def _spread(
    function: Callable[[Argument], Found], arguments: Sequence[Argument], num_processes: int | None
) -> Iterator[tuple[int, Found]]:
    """The place of each argument and what the function found for it, as they end.

    Runs in local processes, or in whatever ``joblib.parallel_config`` has chosen; None for ``num_processes`` is
    that choice's number, and every core where none was made. Ctrl-C raises KeyboardInterrupt here and ends the
    processes, whatever they are doing.
    """
    from joblib import Parallel, cpu_count, delayed  # 0.3 s: only who runs several at once pays it
    from joblib.parallel import get_active_backend

    backend, configured = get_active_backend()
    if num_processes is None and configured == 1:
        num_processes = min(cpu_count(), len(arguments))
    as_they_end = getattr(backend, "supports_return_generator", False)
    parallel = Parallel(n_jobs=num_processes, return_as="generator_unordered" if as_they_end else "list", batch_size=1)
    work = (delayed(_with_place)(function, place, argument) for place, argument in enumerate(arguments))
    with _quiet_ending():
        with _deaf_to_interrupts():
            found: Iterable[tuple[int, Found]] = parallel(work)
        yield from found


def all_of(
    function: Callable[[Argument], Found],
    arguments: Sequence[Argument],
    num_processes: int | None,
    on_end: Callable[[], None] | None = None,
) -> list[Found | None]:
    """What the function finds for every argument, in their order; ``on_end`` is called as each ends.

    One process, or one argument, stays in this process; else local processes share the work, or whatever
    ``joblib.parallel_config`` has chosen. After Ctrl-C, which the function may have noted by finding None, there is
    None for whatever had not ended by then.
    """
    alone = num_processes == 1 or len(arguments) == 1
    ended = enumerate(map(function, arguments)) if alone else _spread(function, arguments, num_processes)
    found: list[Found | None] = [None] * len(arguments)
    with contextlib.suppress(KeyboardInterrupt):  # callers see it by what is missing
        for place, outcome in ended:
            if outcome is None:
                raise KeyboardInterrupt
            found[place] = outcome
            if on_end is not None:
                on_end()
    return found


def _with_place(function: Callable[[Argument], Found], place: int, argument: Argument) -> tuple[int, Found]:
    return place, function(argument)


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes started meanwhile ignore Ctrl-C: a terminal sends it to all of them, and one of us answers."""
    if os.name != "posix" or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _quiet_ending() -> Iterator[None]:
    """Keep loky's own threads from printing a traceback when Ctrl-C has taken their work away."""
    before = threading.excepthook
    over = False

    def report(found: threading.ExceptHookArgs) -> None:
        name = found.thread.name if found.thread is not None else ""
        # joblib ends the processes before the interrupt reaches us, so that ``over`` comes too late for the first.
        if not (name.startswith("ExecutorManager") and (over or issubclass(found.exc_type, KeyError))):
            before(found)

    threading.excepthook = report
    try:
        yield
    except BaseException:
        over = True
        for thread in threading.enumerate():
            if thread.name.startswith("ExecutorManager"):
                thread.join(1.0)
        raise
    finally:
        threading.excepthook = before
