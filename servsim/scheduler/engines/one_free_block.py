"""vLLM v0's rule for decoders: one free block for each, whether it needs one or not."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Many

from servsim.memory.allocator import Round
from servsim.memory.forks import next_blocks
from servsim.request import Sequence
from servsim.scheduler.policy import UNBOUNDED, Surroundings

__all__ = ["OneFreeBlock"]

_FAR = 1 << 12  # steps that are looked ahead at the most
_NEAR = 64  # steps that are not worth a search for more


class OneFreeBlock:
    """Decoders are served oldest first, each if at least one block is free; else the youngest is preempted.

    A sequence takes a block only at the steps where its context is a multiple of the block size, but is
    asked for a free one at all, so that v0 preempts in vain now and then. Deviation: a decoder that is
    alone goes on as long as the memory really suffices, where v0 would preempt it for ever.

    The rule is about memory that is granted by the block as decoders grow; where nothing grows (contiguous
    extents) it never fails. A group asks for as many free blocks as it has live sequences.

    Source: ``can_append_slots`` of vLLM v0's block manager, and sarathi-serve's.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self._memory = surroundings.memory
        self._running = surroundings.running

    def blocks(self, tokens: int) -> int:
        """Blocks that so many tokens fill."""
        return -(-tokens // self._memory.block_size)

    @property
    def free_blocks(self) -> int:
        """Blocks that nobody holds."""
        return self._memory.total_blocks - self._memory.used_blocks

    def surely_holds(self, pledged_blocks: int = 0) -> bool:
        """Whether every decoder finds a free block in the next step; ``pledged_blocks`` are free in name only.

        If it says no, :meth:`walk` may still find that nobody has to go: it depends on who asks last, and on whether
        the widest group that was ever admitted is still there.
        """
        memory = self._memory
        if memory.blocks_after(1) + pledged_blocks + self._running.widest <= memory.total_blocks:
            return True
        return memory.steps_until_full(UNBOUNDED) >= UNBOUNDED

    def stable_steps(self, pledged_blocks: int = 0) -> int:
        """For how many steps :meth:`surely_holds` stays true, as far as it is easily told; 1 in doubt."""
        memory = self._memory
        last_block = memory.total_blocks - pledged_blocks - (self._running.widest - 1)
        decoders = max(1, self._running.decoders)
        # Over any block_size consecutive steps each decoder takes one block.
        surely = ((last_block - memory.used_blocks - 1) // decoders - 1) * memory.block_size
        if surely >= _NEAR:
            return surely
        low, high = 1, _FAR
        while low < high:  # the last step after which a block is still free
            middle = (low + high + 1) // 2
            if memory.blocks_after(middle) < last_block:
                low = middle
            else:
                high = middle - 1
        if low == 1 and memory.steps_until_full(UNBOUNDED) >= UNBOUNDED:
            return UNBOUNDED
        return low

    def walk(
        self, round_: Round, by_age: Many[Sequence], spare_blocks: int, held_blocks: Callable[[Sequence], int]
    ) -> list[Sequence]:
        """Grow the decoders among ``by_age`` (oldest first); the victims, youngest first, that had to go for it.

        ``spare_blocks`` are free before, ``held_blocks`` is what comes free with a victim. A victim is the
        youngest that was not reached yet, and may be one that still prefills; the decoder itself if there is none.
        """
        running = self._running
        todo = deque(by_age)
        victims: list[Sequence] = []
        alone = len(todo) == 1
        block_size = self._memory.block_size
        while todo:
            sequence = todo.popleft()
            if not sequence.decoding:
                continue
            kv_tokens = running.kv_tokens(sequence)
            while (spare_blocks < sequence.width and not alone) or not round_.grow(sequence, kv_tokens):
                victim = todo.pop() if todo else sequence
                round_.release(victim, running.kv_tokens(victim))
                spare_blocks += held_blocks(victim)
                victims.append(victim)
                if victim is sequence:
                    break
            else:
                if sequence.width > 1:
                    spare_blocks -= next_blocks(sequence, kv_tokens, block_size)
                else:
                    spare_blocks -= kv_tokens % block_size == 0
        return victims
