"""One plan's draft on a prefix tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servsim.memory.paged_round import PagedRound
from servsim.memory.radix_tree import Node
from servsim.request import Sequence

if TYPE_CHECKING:
    from servsim.memory.radix import RadixAllocator

__all__ = ["RadixRound"]


class RadixRound(PagedRound):
    """One plan's draft on a :class:`servsim.memory.radix.RadixAllocator`.

    Found is what the tree holds before the round: as in SGLang, prompts of one batch find nothing of each other, and
    leaves are evicted only after all that was found has been locked. Pages that are locked by a grant of the round
    count as free no more, whoever comes first pays for them.
    """

    __slots__ = ("_claimed", "_unlocked", "hits")

    _memory: RadixAllocator

    def __init__(self, memory: RadixAllocator) -> None:
        super().__init__(memory)
        self.hits: dict[Sequence, int] = {}  # pages found for the admitted
        self._claimed: dict[Node, int] = {}  # pages of a node that grants of this round lock
        self._unlocked: dict[Node, int] = {}  # locks that releases of this round take off

    def lacking(self, sequence: Sequence) -> int:
        """All but what is found."""
        return sequence.total_tokens - self._memory.look_up(sequence).pages * self._memory.block_size

    def admit(self, sequence: Sequence, tokens: int, *, alone: bool) -> bool:
        """The first chunk behind what is found, if the watermark stays free and (by default) all of it would fit."""
        memory = self._memory
        found = memory.look_up(sequence)
        size = memory.block_size
        asked = sequence.total_tokens - found.pages * size if memory.reserve_full_isl else tokens
        claims = self._claims(sequence)
        spare = self.free_blocks - claims
        if -(-asked // size) + (0 if alone else memory.watermark_blocks) > spare or -(-tokens // size) > spare:
            return False
        self.claim(sequence)
        self.hits[sequence] = found.pages
        return self._grant(sequence, -(-tokens // size), tokens)

    def claim(self, sequence: Sequence) -> int:
        """Lock what is found for a waiting sequence; how many pages count as free no more."""
        claims = self._claims(sequence)
        found = self._memory.look_up(sequence)
        for node in found.nodes:
            pages = min(node.pages, found.pages - node.start)
            self._claimed[node] = max(pages, self._claimed.get(node, 0))
        self.free_blocks -= claims
        return claims

    def release(self, sequence: Sequence, kv_tokens: int) -> None:
        """Take back what a preempted sequence holds alone; what it shares goes on."""
        end: Node | None = self._memory.note(sequence).node
        assert end is not None
        self.free_blocks -= end.end  # of its pages those in the tree are counted one by one
        node = end
        while node.parent is not None:
            before = self._held(node)
            self._unlocked[node] = self._unlocked.get(node, 0) + 1
            self.free_blocks += before - self._held(node)
            node = node.parent
        super().release(sequence, kv_tokens)

    def _claims(self, sequence: Sequence) -> int:
        found = self._memory.look_up(sequence)
        claims = 0
        for node in found.nodes:
            claims += max(0, min(node.pages, found.pages - node.start) - self._held(node))
        return claims

    def _held(self, node: Node) -> int:
        """Pages of a node that do not count as free, as of this round."""
        return node.pages if node.locks > self._unlocked.get(node, 0) else self._claimed.get(node, 0)
