"""A line whose priorities are all drawn anew from time to time, as arrays: an update touches no Python object."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from servsim.request import Sequence

__all__ = ["PriorityLine"]

Levels = NDArray[np.int64]
Key = tuple[int, int]  # level and number of arrival, smallest first


_CHUNK = 256  # places that are made Python numbers at once
_AHEAD = 64
_SMALL = 1 << 15  # levels below it are sorted by radix, in a tenth of the time (benchmarks/policies.py)


class PriorityLine:
    """All live sequences with a priority each, and in its order (ties: by arrival) those of them that wait.

    The line is what the latest update has sorted, less those who left from its head, merged with those who entered
    since. An update is a few operations on arrays of all live ones; all else costs what it touches.
    """

    def __init__(self) -> None:
        self._members: list[Sequence | None] = []  # in order of arrival; None: ended
        self._places: dict[Sequence, int] = {}
        self._levels: Levels = np.zeros(64, dtype=np.int64)
        self._live = np.zeros(64, dtype=bool)
        self._waits = np.zeros(64, dtype=bool)
        self._sorted: NDArray[np.int64] = np.empty(0, dtype=np.int64)  # places of who waits, as of the latest update
        self._gone = 0  # how many of these have left
        self._entered: list[tuple[int, int, Sequence]] = []  # since then: keys negated, so that the first is last
        self._ahead: list[Key] = []  # the next of these, as Python numbers, with their levels ...
        self._from = 0  # ... and which of these they are
        self._ranked: NDArray[np.int64] = self._sorted  # places of all, as of the latest update

    def __len__(self) -> int:
        return len(self._sorted) - self._gone + len(self._entered)

    @property
    def levels(self) -> Levels:
        """The priorities of all live ones, in order of arrival."""
        return self._levels[: len(self._members)][self._live[: len(self._members)]]

    def add(self, sequence: Sequence, level: int) -> None:
        """It arrives, and waits."""
        place = len(self._members)
        if place == len(self._levels):
            self._levels = np.concatenate([self._levels, np.zeros_like(self._levels)])
            self._live = np.concatenate([self._live, np.zeros_like(self._live)])
            self._waits = np.concatenate([self._waits, np.zeros_like(self._waits)])
        self._members.append(sequence)
        self._places[sequence] = place
        self._levels[place] = level
        self._live[place] = True
        self.enter(sequence)

    def enter(self, sequence: Sequence) -> None:
        """It waits from now on."""
        level, place = self.key(sequence)
        self._waits[place] = True
        insort(self._entered, (-level, -place, sequence))

    def forget(self, sequence: Sequence) -> None:
        """One that does not wait has ended."""
        place = self._places.pop(sequence)
        self._members[place] = None
        self._live[place] = False

    def key(self, sequence: Sequence) -> Key:
        """Its priority and place; the smallest goes first."""
        place = self._places[sequence]
        return int(self._levels[place]), place

    def head(self) -> Sequence | None:
        """Who goes first."""
        if not len(self):
            return None
        if self._entered_is_first(self._gone, len(self._entered)):
            return self._entered[-1][2]
        return self._member(self._next(self._gone)[1])

    def in_order(self) -> Iterator[Sequence]:
        """Those who wait, the first first."""
        gone, entered, count = self._gone, self._entered, len(self._sorted)
        left = len(entered)
        while gone < count or left:
            if gone < count:
                first = self._next(gone)
                if not left or first <= (-entered[left - 1][0], -entered[left - 1][1]):
                    gone += 1
                    yield self._member(first[1])
                    continue
            left -= 1
            yield entered[left][2]

    def drop(self, count: int) -> None:
        """The first ``count`` wait no more."""
        entered, waits, sorted_count = self._entered, self._waits, len(self._sorted)
        for _ in range(count):
            if self._gone < sorted_count:
                first = self._next(self._gone)
                if not entered or first <= (-entered[-1][0], -entered[-1][1]):
                    self._gone += 1
                    waits[first[1]] = False
                    continue
            waits[-entered.pop()[1]] = False

    def update(self, draw: Callable[[Levels], Levels]) -> None:
        """``draw`` makes new priorities of the old ones, both of all live ones in order of arrival."""
        if len(self._members) > 2 * len(self._places) + 64:
            self._compact()
        live = np.flatnonzero(self._live[: len(self._members)])
        self._levels[live] = draw(self._levels[live])
        self._ranked = live[_ranks(self._levels[live])]
        self._sorted = self._ranked[self._waits[self._ranked]]
        self._gone = 0
        self._ahead = []
        self._entered.clear()

    def all_in_order(self) -> Iterator[Sequence]:
        """All that were live at the latest update, waiting or not, by their priorities; asked right after it."""
        members = self._members
        for first in range(0, len(self._ranked), _CHUNK):
            for place in self._ranked[first : first + _CHUNK].tolist():
                member = members[place]
                assert member is not None
                yield member

    def _entered_is_first(self, gone: int, left: int) -> bool:
        """Whether, of those who are left on both sides, one who entered since goes first; one side has somebody."""
        if gone == len(self._sorted) or not left:
            return left > 0
        level, place, _ = self._entered[left - 1]
        return (-level, -place) < self._next(gone)

    def _next(self, gone: int) -> Key:
        """Level and place of the one that is first when so many have left."""
        index = gone - self._from
        if not 0 <= index < len(self._ahead):
            places = self._sorted[gone : gone + _AHEAD]
            self._ahead = list(zip(self._levels[places].tolist(), places.tolist(), strict=True))
            self._from, index = gone, 0
        return self._ahead[index]

    def _member(self, place: int) -> Sequence:
        member = self._members[place]
        assert member is not None
        return member

    def _compact(self) -> None:
        """Forget the places of those who ended."""
        live = np.flatnonzero(self._live[: len(self._members)])
        size = len(live)
        self._members = [self._members[place] for place in live]
        self._places = {sequence: place for place, sequence in enumerate(self._members) if sequence is not None}
        for column in (self._levels, self._waits, self._live):
            column[:size] = column[live]
        self._live[size:] = self._waits[size:] = False


def _ranks(levels: Levels) -> NDArray[np.int64]:
    """The order of levels, of equal ones the first first."""
    if len(levels) and levels.max() < _SMALL:
        levels = levels.astype(np.int16)
    return np.argsort(levels, kind="stable")
