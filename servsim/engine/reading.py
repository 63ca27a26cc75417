"""What decode attention reads where it does not read all that is stored."""

from __future__ import annotations

from heapq import heappop, heappush

from servsim.memory.kept import KvBounds
from servsim.request import Sequence
from servsim.scheduler.running import Running

__all__ = ["Reading"]


class Reading:
    """Tokens that the decoders read in a step, where bounds hold for each of them.

    A decoder reads one token more in every step until it has reached its bounds, and then as many again. All that
    grow do so together, so their sum follows from the shared step counter, as in
    :class:`servsim.scheduler.running.Running`.
    """

    def __init__(self, running: Running, bounds: tuple[KvBounds, ...]) -> None:
        self._running = running
        self._bounds = bounds
        self.tokens = 0  # that all decoders have to read, but for the next token of each that grows
        self.growing = 0  # decoders that read a token more in every step
        self._full: list[tuple[int, int, Sequence]] = []  # step at which a decoder grows no more
        self._until: dict[Sequence, int] = {}  # that step, of those who grow

    def join(self, sequence: Sequence) -> None:
        """The sequence decodes from now on."""
        steps = min(bounds.growing_steps(sequence.prompt_tokens, sequence.kv_tokens) for bounds in self._bounds)
        self.tokens += self._read(sequence)
        if steps > 0:
            self.growing += 1
            self._until[sequence] = self._running.step + steps
            heappush(self._full, (self._running.step + steps, sequence.request_id, sequence))

    def leave(self, sequence: Sequence) -> None:
        """The sequence decodes no more; its ``kv_tokens`` are up to date."""
        self.tokens -= self._read(sequence)
        if self._until.pop(sequence, None) is not None:
            self.growing -= 1

    def advance(self, steps: int) -> None:
        """The decoders have taken ``steps`` steps, no more than :meth:`steps_until_slower`."""
        self.tokens += steps * self.growing
        while self._full and self._full[0][0] <= self._running.step:
            step, _, sequence = heappop(self._full)
            if self._until.get(sequence) == step:
                del self._until[sequence]
                self.growing -= 1

    def steps_until_slower(self, at_most: int) -> int:
        """After how many steps the next decoder reaches its bounds."""
        while self._full and self._until.get(self._full[0][2]) != self._full[0][0]:
            heappop(self._full)
        return min(at_most, self._full[0][0] - self._running.step) if self._full else at_most

    def _read(self, sequence: Sequence) -> int:
        return min(bounds.of(sequence.prompt_tokens, sequence.kv_tokens) for bounds in self._bounds)
