"""The free slots of a contiguous memory, handed out by the buddy system (Knuth, TAOCP 1, section 2.5)."""

from __future__ import annotations

from bisect import bisect_left, insort

from servsim.memory.contiguous_holes import Extent

__all__ = ["Buddy"]


class Buddy:
    """Requests are rounded up to powers of two, and a free block is split in halves until it is small enough.

    The smallest block that is large enough is split, of several the one at the lowest start. A block that is given
    back merges with its other half (its buddy) when that is free too, and so on upwards. A memory whose size is no
    power of two is a row of such blocks, the largest first. Each extent wastes less than half of itself.
    """

    __slots__ = ("_blocks", "free")

    def __init__(self, slots: int) -> None:
        self.free = slots
        self._blocks: list[list[int]] = [[] for _ in range(slots.bit_length())]  # by log2 of the length: starts, sorted
        start = 0
        for order in reversed(range(slots.bit_length())):
            if slots >> order & 1:
                self._blocks[order].append(start)
                start += 1 << order

    @property
    def largest(self) -> int:
        """The largest free block, in slots."""
        return next((1 << order for order in reversed(range(len(self._blocks))) if self._blocks[order]), 0)

    def take(self, slots: int) -> Extent | None:
        """A block of so many slots, rounded up to a power of two, or None where there is none."""
        wanted = (slots - 1).bit_length()
        for order in range(wanted, len(self._blocks)):
            if self._blocks[order]:
                break
        else:
            return None
        start = self._blocks[order].pop(0)
        while order > wanted:
            order -= 1
            insort(self._blocks[order], start + (1 << order))
        self.free -= 1 << wanted
        return start, 1 << wanted

    def give(self, extent: Extent) -> None:
        """A block that was taken is free again, and one with its buddy as long as that is free."""
        start, length = extent
        self.free += length
        order = length.bit_length() - 1
        while order + 1 < len(self._blocks):
            starts, buddy = self._blocks[order], start ^ 1 << order
            place = bisect_left(starts, buddy)
            if place == len(starts) or starts[place] != buddy:
                break
            del starts[place]
            start = min(start, buddy)
            order += 1
        insort(self._blocks[order], start)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Buddy) and self.extents() == other.extents()

    __hash__ = None  # type: ignore[assignment]

    def copy(self) -> Buddy:
        """The same blocks, to draft on."""
        other = Buddy(0)
        other.free = self.free
        other._blocks = [starts.copy() for starts in self._blocks]
        return other

    def extents(self) -> list[Extent]:
        """The free blocks, by start."""
        return sorted((start, 1 << order) for order, starts in enumerate(self._blocks) for start in starts)
