"""One plan's draft on a memory that keeps conversations."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from servsim.memory.paged_round import PagedRound
from servsim.memory.pensieve_chunks import Conversation
from servsim.request import Sequence

if TYPE_CHECKING:
    from servsim.memory.pensieve import PensieveAllocator

__all__ = ["NOTHING", "Found", "PensieveRound"]


class Found(NamedTuple):
    """What is kept of a waiting sequence's context."""

    conversation: Conversation | None
    chunks: int  # that it has in common with the conversation, kept or not
    tokens: int  # in those of them that are kept


NOTHING = Found(None, 0, 0)


class PensieveRound(PagedRound):
    """One plan's draft on a :class:`PensieveAllocator`.

    It counts as :class:`PagedRound` does, since whatever idle conversations hold on the device can be had. What it
    admits keeps what was found for it: a draft is carried out by claiming what was found, before anything is evicted.
    """

    __slots__ = ("_claimed", "_pensieve", "found")

    def __init__(self, memory: PensieveAllocator) -> None:
        super().__init__(memory)
        self._pensieve = memory
        self._claimed: set[Conversation] = set()
        self.found: dict[Sequence, Found] = {}  # of the admitted

    def lacking(self, sequence: Sequence) -> int:
        """Tokens that are not kept, wherever in the context they stand, at least 1."""
        found = self.found.get(sequence)
        return sequence.total_tokens - (found or self._look_up(sequence)).tokens

    def admit(self, sequence: Sequence, tokens: int, *, alone: bool) -> bool:
        """The first chunk, if the watermark stays free and (by default) all that it lacks would fit as well."""
        memory = self._pensieve
        found = self._look_up(sequence)
        until = found.tokens + tokens
        asked = sequence.total_tokens if memory.reserve_full_isl else until
        watermark = 0 if alone else memory.watermark_blocks
        if -(-asked // memory.block_size) + watermark > self.free_blocks:
            return False
        self._grant(sequence, -(-until // memory.block_size), until)
        self.found[sequence] = found
        if found.conversation is not None:
            self._claimed.add(found.conversation)
        return True

    def release(self, sequence: Sequence, kv_tokens: int) -> None:
        """Take back everything from a sequence that is preempted in this round."""
        super().release(sequence, kv_tokens)
        found = self.found.pop(sequence, NOTHING)
        if found.conversation is not None:
            self._claimed.remove(found.conversation)

    def _look_up(self, sequence: Sequence) -> Found:
        found = self._pensieve.look_up(sequence)
        return NOTHING if found.conversation in self._claimed else found
