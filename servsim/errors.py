"""The errors that servsim raises, and how a user's mistake is worded.

ServsimError                  anything a user can mend: shown without traceback, exit status 2
├── ScenarioError             a scenario, a catalogue file or a ``--set`` that does not make sense
├── TraceError                a trace file with a wrong row
├── ResultError               a result folder that exists already, or that is not one
└── CapacityError             a model, a batch or a request that fits nowhere
SimulationError               our own bug: an invariant that does not hold, exit status 1
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CapacityError",
    "ResultError",
    "ScenarioError",
    "ServsimError",
    "SimulationError",
    "TraceError",
    "suggestion",
]


class ServsimError(Exception):
    """A user's mistake, with its place, what was found there and what would do.

    ``str(error)`` is the whole message: ``<place>: <what is wrong>`` and, on an
    indented second line, the remedy where there is one.
    """

    def __init__(self, message: str, *, place: str | None = None, remedy: str | None = None) -> None:
        self.message = message
        self.place = place
        self.remedy = remedy
        text = f"{place}: {message}" if place else message
        super().__init__(f"{text}\n  {remedy}" if remedy else text)

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling between processes.
        return (_rebuild, (type(self), self.message, self.place, self.remedy))


class ScenarioError(ServsimError):
    """What the user wrote in a scenario, a catalogue file or ``--set`` does not make sense."""


class TraceError(ServsimError):
    """A trace file is missing, empty, or has a row that cannot be a request."""


class ResultError(ServsimError):
    """A result folder exists already, is incomplete, or is none."""


class CapacityError(ServsimError):
    """Something does not fit: the weights into the device, or a batch into its memory."""


class SimulationError(Exception):
    """An invariant of the simulator does not hold: a bug of servsim, not of its user."""


def _rebuild(kind: type[ServsimError], message: str, place: str | None, remedy: str | None) -> ServsimError:
    return kind(message, place=place, remedy=remedy)


def suggestion(found: str, known: Iterable[str]) -> str:
    """The remedy for an unknown name: the closest known one, or all of them.

    >>> suggestion("fcsf", ["fcfs", "sjf"]), suggestion("FCFS", ["fcfs", "sjf"])
    ("did you mean 'fcfs'?", "did you mean 'fcfs'?")
    >>> suggestion("zzz", ["sjf", "fcfs"])
    'known are: fcfs, sjf'
    """
    names = sorted(known)
    in_small_letters = {name.lower(): name for name in names}
    close = difflib.get_close_matches(found.lower(), in_small_letters, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{in_small_letters[close[0]]}'?"
    return f"known are: {', '.join(names)}" if names else "none are known"
