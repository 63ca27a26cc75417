"""How far the running sequences are, as arrays, so that an order over them touches no Python object per sequence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from servsim.request import Sequence
from servsim.scheduler.plan import Plan
from servsim.scheduler.running import Running

__all__ = ["Progress", "newcomers"]


def newcomers(plan: Plan) -> list[Sequence]:
    """Who starts to run with this plan: admitted from the line, or swapped in."""
    return [*(one for one, _ in plan.prefills[len(plan.prefills) - plan.admitted :]), *plan.swapped_in]


class Progress:
    """The running sequences with numbers of each that never change, ``mark(sequence)``, and what they emitted.

    It is told of every plan (:meth:`began`) and finish (:meth:`finished`) and asked at step boundaries. A decoder's
    progress is the shared step counter less its base; a prefilling one's is fixed. When a prefill ends its base is
    not known here, so newcomers' bases are settled when they are read. The order of the members means nothing.
    """

    def __init__(self, running: Running, *marks: Callable[[Sequence], float]) -> None:
        self.members: list[Sequence] = []
        self._running = running
        self._marks_of = marks
        self._places: dict[Sequence, int] = {}
        self._unsettled: dict[Sequence, None] = {}
        self._marks = np.zeros((len(marks), 16))
        self._bases = np.zeros(16, dtype=np.int64)

    @property
    def marks(self) -> NDArray[np.float64]:
        """The (first) mark of each member."""
        return self._marks[0, : len(self.members)]

    def all_marks(self) -> NDArray[np.float64]:
        """All of them, [marks, members]."""
        return self._marks[:, : len(self.members)]

    def generated(self) -> NDArray[np.int64]:
        """Tokens that each member has emitted by now."""
        step = self._running.step
        for sequence in list(self._unsettled):
            place = self._places[sequence]
            if sequence.decoding:
                self._bases[place] = sequence.decode_base
                del self._unsettled[sequence]
            else:
                self._bases[place] = step - sequence.generated_tokens
        return step - self._bases[: len(self.members)]

    def decoding(self) -> NDArray[np.bool_]:
        """Which members decode; asked after :meth:`generated`."""
        found = np.ones(len(self.members), dtype=bool)
        found[[self._places[sequence] for sequence in self._unsettled]] = False
        return found

    def began(self, plan: Plan) -> None:
        """A plan is carried out: admitted and swapped-in ones come, preempted and swapped-out ones go."""
        for sequence in (*plan.preempted, *plan.swapped_out):
            self._remove(sequence)
        for sequence in newcomers(plan):
            self._add(sequence)
        for sequence in plan.left_out:  # they miss a step, and have other bases afterwards
            self._unsettled[sequence] = None

    def finished(self, sequence: Sequence) -> None:
        """A sequence ended."""
        self._remove(sequence)

    def _add(self, sequence: Sequence) -> None:
        place = len(self.members)
        if place == len(self._bases):
            self._marks = np.concatenate([self._marks, np.zeros_like(self._marks)], axis=1)
            self._bases = np.concatenate([self._bases, np.zeros(place, dtype=np.int64)])
        self.members.append(sequence)
        self._places[sequence] = place
        self._marks[:, place] = [mark(sequence) for mark in self._marks_of]
        self._unsettled[sequence] = None

    def _remove(self, sequence: Sequence) -> None:
        """The last one takes its place."""
        place = self._places.pop(sequence)
        self._unsettled.pop(sequence, None)
        last = self.members.pop()
        if last is not sequence:
            end = len(self.members)
            self.members[place] = last
            self._places[last] = place
            self._marks[:, place] = self._marks[:, end]
            self._bases[place] = self._bases[end]
