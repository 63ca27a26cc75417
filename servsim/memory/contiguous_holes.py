"""The free slots of a contiguous memory, handed out first fit."""

from __future__ import annotations

from bisect import bisect_left
from typing import Protocol

__all__ = ["Extent", "FirstFit", "FreeSlots"]

Extent = tuple[int, int]
"""Start and length, in slots."""


class FreeSlots(Protocol):
    """Which slots are free, and which of them a request gets."""

    free: int  # slots

    @property
    def largest(self) -> int:
        """The longest request that could be served now, in slots."""
        ...

    def take(self, slots: int) -> Extent | None:
        """An extent of at least so many slots (more than 0), or None where there is none."""
        ...

    def give(self, extent: Extent) -> None:
        """An extent that was taken is free again."""
        ...

    def copy(self) -> FreeSlots:
        """The same, to draft on."""
        ...

    def extents(self) -> list[Extent]:
        """What is free, by start."""
        ...


class FirstFit:
    """Holes sorted by start; the first that is long enough is taken from its front, and neighbours merge.

    There is at most one hole more than there are extents, so that all of this costs as much as sequences run,
    however many have run before.
    """

    __slots__ = ("_lengths", "_starts", "free")

    def __init__(self, slots: int) -> None:
        self.free = slots
        self._starts = [0] if slots else []
        self._lengths = [slots] if slots else []

    @property
    def largest(self) -> int:
        """The longest hole, in slots."""
        return max(self._lengths, default=0)

    def take(self, slots: int) -> Extent | None:
        """The front of the first hole of at least so many slots, or None where there is none."""
        place = next((place for place, length in enumerate(self._lengths) if length >= slots), None)
        if place is None:
            return None
        start = self._starts[place]
        if self._lengths[place] == slots:
            del self._starts[place], self._lengths[place]
        else:
            self._starts[place] += slots
            self._lengths[place] -= slots
        self.free -= slots
        return start, slots

    def give(self, extent: Extent) -> None:
        """An extent that was taken is free again, and one with the holes beside it."""
        start, length = extent
        self.free += length
        starts, lengths = self._starts, self._lengths
        place = bisect_left(starts, start)
        if place < len(starts) and starts[place] == start + length:
            length += lengths[place]
            del starts[place], lengths[place]
        if place and starts[place - 1] + lengths[place - 1] == start:
            lengths[place - 1] += length
        else:
            starts.insert(place, start)
            lengths.insert(place, length)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FirstFit) and self.extents() == other.extents()

    __hash__ = None  # type: ignore[assignment]

    def copy(self) -> FirstFit:
        """The same holes, to draft on."""
        other = FirstFit(0)
        other.free = self.free
        other._starts, other._lengths = self._starts.copy(), self._lengths.copy()
        return other

    def extents(self) -> list[Extent]:
        """The holes, by start."""
        return list(zip(self._starts, self._lengths, strict=True))
