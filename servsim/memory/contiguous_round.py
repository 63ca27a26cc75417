"""One plan's draft on a contiguous memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servsim.memory.contiguous_holes import Extent, FreeSlots
from servsim.request import Sequence

if TYPE_CHECKING:
    from servsim.memory.contiguous import ContiguousAllocator

__all__ = ["ContiguousRound", "relocate"]


def relocate(
    memory: ContiguousAllocator, free: FreeSlots, sequence: Sequence, held: Extent | None = None
) -> Extent | None:
    """A longer extent out of ``free`` for one whose extent (``held`` by default) is full, or None.

    The old one is given back first, so that the two may overlap; in any case ``free`` has it then.
    """
    extent = held or sequence.held
    wanted = memory.reservation(sequence, extent[1] + 1)
    free.give(extent)
    return free.take(wanted) if wanted > extent[1] else None


class ContiguousRound:
    """One plan's draft on a :class:`ContiguousAllocator`: its own copy of what is free, once it changes something."""

    __slots__ = ("_copied", "_memory", "free", "moved", "placed", "released", "tokens")

    def __init__(self, memory: ContiguousAllocator) -> None:
        self._memory = memory
        self._copied = False
        self.free = memory.free
        self.placed: dict[Sequence, Extent] = {}
        self.moved: dict[Sequence, Extent] = {}  # decoders that outgrew their extents
        self.released: list[Sequence] = []
        self.tokens: dict[Sequence, int] = {}  # prefill chunks of this round

    def grow_decoders(self) -> bool:
        """One more token for every decoder: those whose extents are full need longer ones."""
        return self._move([*self.moved, *(one for one in self._memory.outgrown() if one not in self.moved)])

    def grow(self, sequence: Sequence, kv_tokens: int) -> bool:
        """One more token for one decoder that stores ``kv_tokens`` now."""
        extent = self.placed.get(sequence) or self.moved.get(sequence) or sequence.held
        return kv_tokens < extent[1] or self._move([*self.moved, sequence])

    def extend(self, sequence: Sequence, tokens: int) -> bool:
        """Always: the slots are reserved."""
        self.tokens[sequence] = tokens
        return True

    def lacking(self, sequence: Sequence) -> int:
        """All of it: nothing is kept."""
        return sequence.total_tokens

    def admit(self, sequence: Sequence, tokens: int, *, alone: bool) -> bool:
        """Reserve an extent with room for all of it and for its next token."""
        return self._place(sequence, sequence.total_tokens, tokens)

    def restore(self, sequence: Sequence) -> bool:
        """Reserve an extent for KV that is copied back, and for all that its prefill or next step lacks."""
        return self._place(sequence, max(sequence.kv_tokens, sequence.total_tokens), sequence.kv_tokens)

    def release(self, sequence: Sequence, kv_tokens: int) -> None:
        """Give the extent of a preempted sequence back."""
        extent = self.moved.pop(sequence, None) or self.placed.pop(sequence, None) or sequence.held
        self._own().give(extent)
        self.tokens.pop(sequence, None)
        self.released.append(sequence)

    def _place(self, sequence: Sequence, stored: int, tokens: int) -> bool:
        slots = self._memory.reservation(sequence, stored + 1)
        if slots > self.free.free:
            return False
        extent = self._own().take(slots)
        if extent is None:
            return False
        self.placed[sequence] = extent
        self.tokens[sequence] = tokens
        return True

    def _move(self, decoders: list[Sequence]) -> bool:
        """Move all of these, or none that has not moved already.

        In the order of their ids, as :meth:`ContiguousAllocator.advance` does, so that who is asked first does not
        decide who fits; where others came or went in this round before, those are added that have not moved.
        """
        if len(decoders) == len(self.moved):
            return True
        again = not self.placed and not self.released
        free = self._memory.free.copy() if again else self.free.copy()
        moved = {} if again else self.moved.copy()
        for sequence in sorted(decoders, key=lambda one: one.request_id):
            if sequence not in moved:
                extent = relocate(self._memory, free, sequence)
                if extent is None:
                    return False
                moved[sequence] = extent
        self.free, self.moved, self._copied = free, moved, True
        return True

    def _own(self) -> FreeSlots:
        if not self._copied:
            self.free = self.free.copy()
            self._copied = True
        return self.free
