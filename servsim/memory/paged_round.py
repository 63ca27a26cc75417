"""One plan's draft on paged KV memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servsim.memory.forks import held_blocks, next_blocks
from servsim.request import Sequence

if TYPE_CHECKING:
    from servsim.memory.paged import PagedAllocator

__all__ = ["PagedRound"]


class PagedRound:
    """One plan's draft on a :class:`PagedAllocator`."""

    __slots__ = ("_grown", "_memory", "free_blocks", "granted", "released", "restored")

    def __init__(self, memory: PagedAllocator) -> None:
        self._memory = memory
        self.free_blocks = memory.total_blocks - memory.used_blocks
        self.granted: dict[Sequence, tuple[int, int]] = {}  # blocks, tokens
        self.released: list[Sequence] = []
        self.restored: set[Sequence] = set()  # of those granted, the ones that were swapped
        self._grown: dict[Sequence, int] = {}  # blocks

    def grow_decoders(self) -> bool:
        """One more token for every decoder at once."""
        blocks = self._memory._growth(1)
        if blocks > self.free_blocks:
            return False
        self.free_blocks -= blocks
        return True

    def grow(self, sequence: Sequence, kv_tokens: int) -> bool:
        """One more token for one decoder that stores ``kv_tokens`` now."""
        if kv_tokens % self._memory.block_size and sequence.width == 1:
            return True
        blocks = next_blocks(sequence, kv_tokens, self._memory.block_size)
        if blocks > self.free_blocks:
            return False
        self.free_blocks -= blocks
        self._grown[sequence] = blocks
        return True

    def extend(self, sequence: Sequence, tokens: int) -> bool:
        """The next prefill chunk of a sequence that holds blocks already."""
        size = self._memory.block_size
        blocks = -(-(sequence.kv_tokens + tokens) // size) - -(-sequence.kv_tokens // size)
        return self._grant(sequence, blocks, tokens)

    def lacking(self, sequence: Sequence) -> int:
        """All of it: nothing is kept."""
        return sequence.total_tokens

    def admit(self, sequence: Sequence, tokens: int, *, alone: bool) -> bool:
        """The first chunk of a waiting sequence, if the watermark stays free and (by default) all of it would fit."""
        memory = self._memory
        asked = sequence.total_tokens if memory.reserve_full_isl else tokens
        blocks = -(-asked // memory.block_size)
        if blocks + (0 if alone else memory.watermark_blocks) > self.free_blocks:
            return False
        return self._grant(sequence, -(-tokens // memory.block_size), tokens)

    def restore(self, sequence: Sequence) -> bool:
        """Room for the KV of a swapped sequence and for its next token; the latter is booked when it is there."""
        size, kv_tokens = self._memory.block_size, sequence.kv_tokens
        blocks = held_blocks(sequence, kv_tokens, size)
        tokens = kv_tokens if sequence.width == 1 else sequence.held.tokens(kv_tokens)
        if not self._grant(sequence, blocks + next_blocks(sequence, kv_tokens, size), tokens):
            return False
        self.granted[sequence] = (blocks, tokens)
        self.restored.add(sequence)
        return True

    def release(self, sequence: Sequence, kv_tokens: int) -> None:
        """Take back everything from a sequence that is preempted in this round, grown or not."""
        self.free_blocks += held_blocks(sequence, kv_tokens, self._memory.block_size)
        self.free_blocks += self._grown.pop(sequence, 0)
        self.free_blocks += self.granted.pop(sequence, (0, 0))[0]
        self.released.append(sequence)

    def _grant(self, sequence: Sequence, blocks: int, tokens: int) -> bool:
        if blocks > self.free_blocks:
            return False
        self.free_blocks -= blocks
        self.granted[sequence] = (blocks, tokens)
        return True
