"""How far the running sequences are, as arrays, so that an order over them touches no Python object per sequence."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Many

import numpy as np
from numpy.typing import NDArray

from servsim.request import Sequence
from servsim.scheduler.plan import Plan
from servsim.scheduler.running import Running

__all__ = ["Progress"]


class Progress:
    """The running sequences with one number of each that never changes, ``mark(sequence)``, and what they emitted.

    It is told of every plan (:meth:`began`) and finish (:meth:`finished`) and asked at step boundaries. A decoder's
    progress is the shared step counter less its base; a prefilling one's is fixed. When a prefill ends its base is
    not known here, so newcomers' bases are settled when they are read. The order of the members means nothing.
    """

    def __init__(self, running: Running, mark: Callable[[Sequence], float]) -> None:
        self.members: list[Sequence] = []
        self._running = running
        self._mark_of = mark
        self._places: dict[Sequence, int] = {}
        self._unsettled: dict[Sequence, None] = {}
        self._marks = np.zeros(16)
        self._bases = np.zeros(16, dtype=np.int64)

    @property
    def marks(self) -> NDArray[np.float64]:
        """The mark of each member."""
        return self._marks[: len(self.members)]

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
        """A plan is carried out: admitted ones come, preempted ones go."""
        for sequence in (*plan.preempted, *plan.swapped_out):
            self._remove(sequence)
        for sequence, _ in plan.prefills[len(plan.prefills) - plan.admitted :]:
            self._add(sequence)
        for sequence in plan.swapped_in:
            self._add(sequence)
        self._unsettle(plan.left_out)

    def finished(self, sequence: Sequence) -> None:
        """A sequence ended."""
        self._remove(sequence)

    def _add(self, sequence: Sequence) -> None:
        place = len(self.members)
        if place == len(self._marks):
            self._marks = np.concatenate([self._marks, np.zeros(place)])
            self._bases = np.concatenate([self._bases, np.zeros(place, dtype=np.int64)])
        self.members.append(sequence)
        self._places[sequence] = place
        self._marks[place] = self._mark_of(sequence)
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
            self._marks[place] = self._marks[end]
            self._bases[place] = self._bases[end]

    def _unsettle(self, sequences: Many[Sequence]) -> None:
        """These miss a step, and have other bases afterwards."""
        for sequence in sequences:
            self._unsettled[sequence] = None
