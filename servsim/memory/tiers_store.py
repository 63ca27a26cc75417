"""Which blocks a memory below the device holds, least recently used first."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from servsim.errors import SimulationError

__all__ = ["Kept", "TierStore"]


@dataclass(slots=True, eq=False)
class Kept:
    """Blocks in a tier: one with a key, or the first ones of a sequence's own (key None), lost from the last one on."""

    key: int | None
    blocks: int = 1
    pins: int = 0  # transfers that bring or take it; it is not evicted meanwhile
    arriving: list[int] = field(default_factory=list)  # from which block on, for each transfer that brings some

    @property
    def readable(self) -> int:
        """How many of its first blocks have arrived."""
        return min(self.arriving) if self.arriving else self.blocks


class TierStore:
    """The blocks of one tier, never more than ``total_blocks``; those in a transfer are not evicted.

    Recency is that of whole prefixes: when a sequence ends, all that the tier has of it becomes the most recent, its
    first block last, so that of a prefix the end goes first, and what is kept grows with the capacity only.
    """

    def __init__(self, total_blocks: int) -> None:
        self.total_blocks = total_blocks
        self.used_blocks = 0
        self.pinned_blocks = 0
        self.evicted_blocks = 0
        self._order: OrderedDict[Kept, None] = OrderedDict()
        self._found: dict[int, Kept] = {}

    def find(self, key: int) -> Kept | None:
        """The block of this content, arrived or on its way."""
        return self._found.get(key)

    def keep(self, keys: list[int], own: Kept | None, own_blocks: int) -> tuple[list[tuple[int, Kept]], Kept | None]:
        """Make room for what is lacking of a prefix: known ``keys``, then ``own_blocks`` of the sequence's own.

        ``own`` is what the tier has of the latter. As much as there can be room for, from the front; less recent blocks
        go for it. Returns the new blocks, pinned and not yet readable, with their places in the
        prefix, and what the tier has of its own now. Of ``own`` all that is new stands as one entry at its first place.
        """
        found = [self._found.get(key) for key in keys]
        if own is not None and not own.blocks:
            own = None
        # Not to be evicted: what is pinned, and the prefix itself.
        spare = self.total_blocks - self.pinned_blocks - sum(one is not None and not one.pins for one in found)
        if own is not None and not own.pins:
            spare -= own.blocks
        lacking = found.count(None)
        own_lacking = max(0, own_blocks - (own.blocks if own is not None else 0))
        new: list[tuple[int, Kept]] = []
        if lacking and spare > 0:
            for place, one in enumerate(found):
                if one is None and spare > 0:
                    fresh = Kept(keys[place])
                    new.append((place, fresh))
                    found[place] = self._found[keys[place]] = fresh
                    spare -= 1
        own_new = min(own_lacking, max(0, spare)) if lacking == len(new) else 0
        if own_new:
            own = own or Kept(None, 0)
            new.append((len(keys) + own.blocks, own))
        self._touch(found, own)
        self._evict(self.used_blocks + len(new) - bool(own_new) + own_new - self.total_blocks)
        for _, one in new:
            self._bring(one, own_new if one is own else 1)
        return new, own

    def arrived(self, kept: Kept, first: int) -> None:
        """A transfer that brought its blocks from ``first`` on has ended."""
        kept.arriving.remove(first)
        self.unpin(kept)

    def drop(self, kept: Kept, first: int) -> None:
        """A transfer that was to bring its blocks from ``first`` on was cancelled."""
        kept.arriving.remove(first)
        self.unpin(kept)
        lost = max(0, kept.blocks - first)
        kept.blocks -= lost
        self.used_blocks -= lost
        if kept.pins:
            self.pinned_blocks -= lost
        if lost and not kept.blocks:
            self._forget(kept)

    def pin(self, kept: Kept) -> None:
        """A transfer takes it."""
        if not kept.pins:
            self.pinned_blocks += kept.blocks
        kept.pins += 1

    def unpin(self, kept: Kept) -> None:
        """A transfer that brought or took it is over."""
        kept.pins -= 1
        if not kept.pins:
            self.pinned_blocks -= kept.blocks

    def check_integrity(self, name: str) -> None:
        """Raise SimulationError unless what is kept adds up and fits."""
        used = sum(kept.blocks for kept in self._order)
        pinned = sum(kept.blocks for kept in self._order if kept.pins)
        if not (used == self.used_blocks <= self.total_blocks and pinned == self.pinned_blocks):
            raise SimulationError(
                f"the tier {name} counts {self.used_blocks} blocks of {self.total_blocks} and {self.pinned_blocks} "
                f"pinned, but holds {used} and {pinned}"
            )
        keyed = {kept.key: kept for kept in self._order if kept.key is not None}
        if keyed != self._found or any(len(kept.arriving) > kept.pins or not kept.blocks for kept in self._order):
            raise SimulationError(f"the index of the tier {name} is not what it holds")

    def _touch(self, prefix: list[Kept | None], own: Kept | None) -> None:
        """A prefix is the most recent now, its first block last; new ones come in."""
        if own is not None:
            self._order[own] = None
            self._order.move_to_end(own)
        for kept in reversed(prefix):
            if kept is not None:
                self._order[kept] = None
                self._order.move_to_end(kept)

    def _bring(self, kept: Kept, blocks: int) -> None:
        """Blocks that a transfer will bring take their places; one with a key is its own place."""
        first = 0 if kept.key is not None else kept.blocks
        if kept.pins:
            self.pinned_blocks += blocks if kept.key is None else 0
        if kept.key is None:
            kept.blocks += blocks
        self.used_blocks += blocks
        kept.arriving.append(first)
        self.pin(kept)

    def _evict(self, blocks: int) -> None:
        """So many of the least recent blocks go that are in no transfer."""
        if blocks <= 0:
            return
        gone = []
        for kept in self._order:
            if kept.pins or not kept.blocks:
                continue
            lost = min(blocks, kept.blocks)
            kept.blocks -= lost
            blocks -= lost
            self.used_blocks -= lost
            self.evicted_blocks += lost
            if not kept.blocks:
                gone.append(kept)
            if not blocks:
                break
        for kept in gone:
            self._forget(kept)

    def _forget(self, kept: Kept) -> None:
        del self._order[kept]
        if kept.key is not None:
            del self._found[kept.key]
