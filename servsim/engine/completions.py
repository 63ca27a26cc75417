"""When decoders end, or change: the one thing about the future that an engine knows and a policy does not."""

from __future__ import annotations

from heapq import heappop, heappush

from servsim.request import Sequence

__all__ = ["Completions"]


class Completions:
    """Decoders by the step at which they end, then by admission; groups by the step at which anything happens to them.

    An entry goes stale when its sequence stops decoding (preempted, or left out of a step): it is
    known by a finish step or an admission number that is no longer its sequence's.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Sequence]] = []
        self._finish_steps: dict[Sequence, int] = {}

    def add(self, sequence: Sequence, finish_step: int) -> None:
        """The sequence decodes, and ends or changes when the shared step counter gets to ``finish_step``."""
        self._finish_steps[sequence] = finish_step
        heappush(self._heap, (finish_step, sequence.admission, sequence))

    def discard(self, sequence: Sequence) -> None:
        """The sequence decodes no more."""
        del self._finish_steps[sequence]

    def next_step(self) -> int:
        """The step at which the next decoder ends or changes; there must be one."""
        while self._stale():
            heappop(self._heap)
        return self._heap[0][0]

    def pop_until(self, step: int) -> list[Sequence]:
        """Those that are due by ``step``, in order; they are forgotten."""
        ended: list[Sequence] = []
        heap = self._heap
        while heap and heap[0][0] <= step:
            stale = self._stale()
            sequence = heappop(heap)[2]
            if not stale:
                del self._finish_steps[sequence]
                ended.append(sequence)
        return ended

    def _stale(self) -> bool:
        finish_step, admission, sequence = self._heap[0]
        return sequence.admission != admission or self._finish_steps.get(sequence) != finish_step
