"""Paged KV memory: fixed-size blocks, granted as tokens come (PagedAttention, SOSP 2023)."""

from __future__ import annotations

from typing import cast

from pydantic import BaseModel, ConfigDict, Field

from servsim.errors import SimulationError
from servsim.memory.allocator import Round, StaysOnDevice
from servsim.memory.surroundings import MemorySurroundings
from servsim.request import Sequence

__all__ = ["PagedAllocator", "PagedRound"]


class PagedAllocator(StaysOnDevice):
    """Blocks of ``block_size`` tokens, as vLLM v1's block pool counts them (0.19).

    One block is the pool's null block, so ``total_blocks = num_blocks - 1`` can be used. A decoder
    needs a new block at the steps where its context is a multiple of the block size. All contexts grow
    in step, so it is enough to count the decoders by phase, ``context mod block_size``: any number of
    steps costs O(block_size) at most, whatever the number of decoders.
    """

    class Parameters(BaseModel):
        """What a scenario may say under ``memory`` besides the common keys."""

        model_config = ConfigDict(frozen=True, extra="forbid")

        watermark: float = Field(
            0.0, ge=0, lt=1, description="share of all blocks kept free when a waiting request is admitted"
        )
        reserve_full_isl: bool = Field(
            True, description="admit a prompt only when all of it fits, not just its first chunk (vLLM's name)"
        )

    def __init__(self, surroundings: MemorySurroundings) -> None:
        super().__init__()
        settings = surroundings.parameters or self.Parameters()
        block_size = surroundings.block_size
        self.block_size = block_size
        self.total_blocks = surroundings.num_blocks - 1
        self.watermark_blocks = int(settings.watermark * surroundings.num_blocks)
        self.reserve_full_isl = settings.reserve_full_isl
        self.used_blocks = 0
        self.stored_tokens = 0
        self.external_fragmentation = 0.0
        self._decoders = 0
        self._steps = 0
        # _phases[p]: decoders that need a block at the steps whose number is p modulo block_size
        self._phases = [0] * block_size

    @property
    def reserved_tokens(self) -> int:
        """Token slots in granted blocks."""
        return self.used_blocks * self.block_size

    @property
    def free_blocks(self) -> int:
        """Blocks that nobody holds."""
        return self.total_blocks - self.used_blocks

    def fits(self, tokens: int) -> bool:
        """Whether a lone sequence of so many stored tokens could ever be held."""
        return -(-tokens // self.block_size) <= self.total_blocks

    def round(self) -> PagedRound:
        """A draft of this instant's grants and releases."""
        return PagedRound(self)

    def commit(self, round_: Round) -> None:
        """Carry a draft out; decoders' growth is booked by :meth:`advance` when the step has passed."""
        draft = cast(PagedRound, round_)
        for sequence in draft.released:
            self.release(sequence)
        for blocks, tokens in draft.granted.values():
            self.used_blocks += blocks
            self.stored_tokens += tokens

    def join(self, sequence: Sequence) -> None:
        """The sequence decodes from now on, with ``sequence.kv_tokens`` stored."""
        self._phases[(self._steps - sequence.kv_tokens) % self.block_size] += 1
        self._decoders += 1

    def leave(self, sequence: Sequence) -> None:
        """The sequence decodes no more; ``sequence.kv_tokens`` is up to date."""
        self._phases[(self._steps - sequence.kv_tokens) % self.block_size] -= 1
        self._decoders -= 1

    def advance(self, steps: int) -> None:
        """Every decoder stored ``steps`` more tokens."""
        self.used_blocks += self._growth(steps)
        self.stored_tokens += steps * self._decoders
        self._steps += steps

    def blocks_after(self, steps: int) -> int:
        """:attr:`used_blocks` when the decoders will have taken ``steps`` more steps."""
        return self.used_blocks + self._growth(steps)

    def steps_until_full(self, at_most: int) -> int:
        """For how many of the next ``at_most`` steps all decoders can grow without a refusal."""
        free = self.free_blocks
        # Over any block_size consecutive steps each decoder takes one block.
        if (at_most // self.block_size + 1) * self._decoders <= free or self._growth(at_most) <= free:
            return at_most
        cycles = free // self._decoders
        free -= cycles * self._decoders
        steps = cycles * self.block_size
        phase = self._steps
        while self._phases[phase % self.block_size] <= free:
            free -= self._phases[phase % self.block_size]
            phase += 1
        return steps + phase - self._steps

    def release(self, sequence: Sequence) -> None:
        """The sequence ended; whatever it holds is free again."""
        self.used_blocks -= -(-sequence.kv_tokens // self.block_size)
        self.stored_tokens -= sequence.kv_tokens

    def check_integrity(self) -> None:
        """Raise SimulationError unless 0 <= stored <= reserved <= all, and the phases count every decoder."""
        if not 0 <= self.stored_tokens <= self.reserved_tokens <= self.total_blocks * self.block_size:
            raise SimulationError(
                f"{self.stored_tokens} tokens stored in {self.used_blocks} of {self.total_blocks} blocks"
            )
        if sum(self._phases) != self._decoders or min(self._phases) < 0:
            raise SimulationError(f"{self._decoders} decoders, but phases {self._phases}")

    def _growth(self, steps: int) -> int:
        """Blocks that all decoders together need for their next ``steps`` tokens."""
        cycles, rest = divmod(steps, self.block_size)
        blocks = cycles * self._decoders
        if rest:
            first = self._steps % self.block_size
            last = first + rest
            blocks += sum(self._phases[first:last])
            if last > self.block_size:
                blocks += sum(self._phases[: last - self.block_size])
        return blocks


class PagedRound:
    """One plan's draft on a :class:`PagedAllocator`."""

    __slots__ = ("_grown", "_memory", "free_blocks", "granted", "released", "restored")

    def __init__(self, memory: PagedAllocator) -> None:
        self._memory = memory
        self.free_blocks = memory.total_blocks - memory.used_blocks
        self.granted: dict[Sequence, tuple[int, int]] = {}  # blocks, tokens
        self.released: list[Sequence] = []
        self.restored: set[Sequence] = set()  # of those granted, the ones that were swapped
        self._grown: set[Sequence] = set()

    def grow_decoders(self) -> bool:
        """One more token for every decoder at once."""
        blocks = self._memory._growth(1)
        if blocks > self.free_blocks:
            return False
        self.free_blocks -= blocks
        return True

    def grow(self, sequence: Sequence, kv_tokens: int) -> bool:
        """One more token for one decoder that stores ``kv_tokens`` now."""
        if kv_tokens % self._memory.block_size == 0:
            if self.free_blocks < 1:
                return False
            self.free_blocks -= 1
            self._grown.add(sequence)
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
        size = self._memory.block_size
        next_block = sequence.kv_tokens % size == 0
        if not self._grant(sequence, -(-sequence.kv_tokens // size) + next_block, sequence.kv_tokens):
            return False
        self.granted[sequence] = (-(-sequence.kv_tokens // size), sequence.kv_tokens)
        self.restored.add(sequence)
        return True

    def release(self, sequence: Sequence, kv_tokens: int) -> None:
        """Take back everything from a sequence that is preempted in this round, grown or not."""
        self.free_blocks += -(-kv_tokens // self._memory.block_size)
        if sequence in self._grown:
            self._grown.remove(sequence)
            self.free_blocks += 1
        self.free_blocks += self.granted.pop(sequence, (0, 0))[0]
        self.released.append(sequence)

    def _grant(self, sequence: Sequence, blocks: int, tokens: int) -> bool:
        if blocks > self.free_blocks:
            return False
        self.free_blocks -= blocks
        self.granted[sequence] = (blocks, tokens)
        return True
