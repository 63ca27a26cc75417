"""Those who decode, in all the books that are kept about them."""

from __future__ import annotations

from servsim.cost.cost_model import DecodeStrides
from servsim.cost.stride import Stride
from servsim.engine.completions import Completions
from servsim.engine.groups import Groups
from servsim.engine.parts import Parts
from servsim.engine.reading import Reading
from servsim.memory.kept import KvBounds
from servsim.request import Request, Sequence

__all__ = ["Decoders"]


class Decoders:
    """The decoders of an instance: their progress, their memory, what they read, and when they end or change."""

    def __init__(self, parts: Parts) -> None:
        self._running = parts.running
        self._memory = parts.memory
        bounds = parts.read_bounds or ((KvBounds(),) if parts.scan_share else ())
        self._reading = Reading(parts.running, bounds) if bounds else None
        self._scan_share = parts.scan_share
        self._groups = Groups(parts)
        self.completions = Completions()
        """When they end; each of those that it gives is to :meth:`leave`."""

    def start(self, sequence: Sequence, request: Request) -> None:
        """The sequence decodes from now on; it ends with its ``output_tokens``-th token, or changes before."""
        self._running.join(sequence)
        self._memory.join(sequence)
        if self._reading is not None:
            self._reading.join(sequence)
        tokens = request.output_tokens if sequence.width == 1 else self._groups.next_tokens(sequence, request)
        self.completions.add(sequence, self._running.step + tokens - sequence.generated_tokens)

    def ends(self, group: Sequence) -> bool:
        """Whether a group that is due is at its end; if not, what was to happen to it happens now."""
        request = self._groups.requests[group]
        if self._running.generated_tokens(group) == request.output_tokens:
            self._groups.end(group)
            return True
        self.leave(group)
        self._groups.happen(group)
        self.start(group, request)
        return False

    def stop(self, sequence: Sequence) -> None:
        """The sequence stops before its end."""
        self.leave(sequence)
        self.completions.discard(sequence)

    def leave(self, sequence: Sequence) -> None:
        """A sequence that has ended decodes no more; its progress is written into it."""
        self._running.leave(sequence)
        self._memory.leave(sequence)
        if self._reading is not None:
            self._reading.leave(sequence)

    def advance(self, steps: int) -> None:
        """All of them took ``steps`` steps."""
        self._running.advance(steps)
        self._memory.advance(steps)
        if self._reading is not None:
            self._reading.advance(steps)

    @property
    def read_tokens(self) -> float:
        """Tokens that they read in the next step, but for one each: what a cost model calls their context."""
        running, reading = self._running, self._reading
        if reading is None:
            return running.context_tokens
        # Those at their bounds read no new token besides.
        read = reading.tokens - (running.decoders - reading.growing)
        if self._scan_share:
            return read + self._scan_share * (running.context_tokens + running.decoders)
        return read

    def stride(self, cost: DecodeStrides, now_s: float) -> Stride:
        """Steps of all of them, anchored now."""
        decoders, reading = self._running.decoders, self._reading
        if reading is None and not self._memory.shared_tokens:
            return cost.decode_stride(now_s, decoders, self._running.context_tokens)
        growing = decoders if reading is None else reading.growing + self._scan_share * decoders
        stride = cost.decode_stride(now_s, decoders, self.read_tokens, growing, self._memory.shared_tokens)
        if reading is None:
            return stride
        stride.limit = reading.steps_until_slower(stride.limit)
        return stride
