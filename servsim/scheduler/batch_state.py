"""The running requests as arrays, so that an estimate over them touches no Python object per request."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from servsim.request import Sequence
from servsim.scheduler.plan import Plan
from servsim.scheduler.running import Running

__all__ = ["BatchState", "newcomers"]

Tokens = NDArray[np.int64]


def newcomers(plan: Plan) -> list[Sequence]:
    """Who starts to run with this plan: admitted from the line, or swapped in."""
    return [*(one for one, _ in plan.prefills[len(plan.prefills) - plan.admitted :]), *plan.swapped_in]


class BatchState:
    """Prompt, declared bound and progress of each running request; it is told of plans and finishes.

    A decoder's progress is the shared step counter less its base; a prefilling one's is fixed. When a
    prefill ends its base is not known here, so the bases of newcomers are settled when they are read.
    """

    def __init__(self, size: int) -> None:
        self._prompt = np.zeros(size, dtype=np.int64)
        self._bound = np.zeros(size, dtype=np.int64)
        self._base = np.zeros(size, dtype=np.int64)
        self._members: list[Sequence] = []
        self._places: dict[Sequence, int] = {}
        self._unsettled: dict[Sequence, None] = {}

    def began(self, plan: Plan) -> None:
        """A plan is carried out: some come, some go, and those left out of a step will have new bases."""
        for sequence in (*plan.preempted, *plan.swapped_out):
            self.remove(sequence)
        for sequence in newcomers(plan):
            self._add(sequence)
        for sequence in plan.left_out:
            self._unsettled[sequence] = None

    def remove(self, sequence: Sequence) -> None:
        """A sequence left; the last one takes its place."""
        place = self._places.pop(sequence)
        self._unsettled.pop(sequence, None)
        last = self._members.pop()
        if last is not sequence:
            end = len(self._members)
            self._members[place] = last
            self._places[last] = place
            for column in (self._prompt, self._bound, self._base):
                column[place] = column[end]

    def state(self, running: Running) -> tuple[Tokens, Tokens, Tokens]:
        """Prompt, declared bound and generated tokens of each."""
        step = running.step
        for sequence in list(self._unsettled):
            place = self._places[sequence]
            if sequence.decoding:
                self._base[place] = sequence.decode_base
                del self._unsettled[sequence]
            else:
                self._base[place] = step - sequence.generated_tokens
        count = len(self._members)
        return self._prompt[:count], self._bound[:count], step - self._base[:count]

    def lacking(self, running: Running) -> Tokens:
        """Tokens that each must still compute before it emits its next: 1 for a decoder."""
        lacking = np.ones(len(self._members), dtype=np.int64)
        for sequence in running.prefilling:
            lacking[self._places[sequence]] = sequence.total_tokens - sequence.kv_tokens
        return lacking

    def _add(self, sequence: Sequence) -> None:
        place = len(self._members)
        self._members.append(sequence)
        self._places[sequence] = place
        self._prompt[place] = sequence.prompt_tokens
        self._bound[place] = sequence.max_tokens
        self._unsettled[sequence] = None
