"""Paged KV memory: fixed-size blocks, granted as tokens come (PagedAttention, SOSP 2023)."""

from __future__ import annotations

from typing import cast

from pydantic import BaseModel, ConfigDict, Field

from servsim.errors import SimulationError
from servsim.memory.allocator import Round, StaysOnDevice
from servsim.memory.forks import ForkTree, most_blocks
from servsim.memory.paged_round import PagedRound
from servsim.memory.surroundings import MemorySurroundings
from servsim.request import Request, Sequence

__all__ = ["PagedAllocator", "PagedRound"]


class PagedAllocator(StaysOnDevice):
    """Blocks of ``block_size`` tokens, as vLLM v1's block pool counts them (0.19).

    One block is the pool's null block, so ``total_blocks = num_blocks - 1`` can be used. A decoder
    needs a new block at the steps where its context is a multiple of the block size. All contexts grow
    in step, so it is enough to count the decoders by phase, ``context mod block_size``: any number of
    steps costs O(block_size) at most, whatever the number of decoders.

    The members of a sequence group share blocks (:class:`ForkTree`). A group counts as ``width`` decoders, and what its
    next step copies on write is known when it forks. Copies take no time: of Llama-3.1-8B a block of 16 tokens has
    2 MiB, read and written in 1.3 us by an H100, whose decode steps take 5 ms and more.
    """

    forks = True  # whether it holds sequence groups

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
        self._groups: dict[Sequence, tuple[int, int]] = {}  # that decode: their tokens when they joined, and the step
        self._copies = 0  # blocks that their next step has copied first
        self._copied_tokens = 0  # tokens in these
        self._counts = dict.fromkeys(("forks", "copied_blocks", "group_block_steps", "saved_block_steps"), 0)

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

    def fits_group(self, request: Request) -> bool:
        """Whether a lone sequence group could ever be held to its end, whatever becomes of its beams."""
        return most_blocks(request, self.block_size) <= self.total_blocks

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
        width = sequence.width
        self._phases[(self._steps - sequence.kv_tokens) % self.block_size] += width
        self._decoders += width
        if width > 1:
            self._join_group(sequence)

    def leave(self, sequence: Sequence) -> None:
        """The sequence decodes no more; ``sequence.kv_tokens`` is up to date."""
        width = sequence.width
        self._phases[(self._steps - sequence.kv_tokens) % self.block_size] -= width
        self._decoders -= width
        if width > 1:
            self._leave_group(sequence)

    def advance(self, steps: int) -> None:
        """Every decoder stored ``steps`` more tokens."""
        self.used_blocks += self._growth(steps)
        self.stored_tokens += steps * self._decoders
        self._steps += steps
        if self._copies:
            self.stored_tokens += self._copied_tokens
            self._counts["copied_blocks"] += self._copies
            self._copies = self._copied_tokens = 0

    def blocks_after(self, steps: int) -> int:
        """:attr:`used_blocks` when the decoders will have taken ``steps`` more steps."""
        return self.used_blocks + self._growth(steps)

    def steps_until_full(self, at_most: int) -> int:
        """For how many of the next ``at_most`` steps all decoders can grow without a refusal."""
        free = self.total_blocks - self.used_blocks - self._copies
        if free < 0:
            return 0
        # Over any block_size consecutive steps each decoder takes one block.
        if (at_most // self.block_size + 1) * self._decoders <= free or self._growth(at_most) - self._copies <= free:
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
        if sequence.width > 1 and sequence.held is not None:
            self._hold_group(sequence, sequence.held, -1)
            return
        self.used_blocks -= -(-sequence.kv_tokens // self.block_size)
        self.stored_tokens -= sequence.kv_tokens

    def end_outputs(self, sequence: Sequence, outputs: int) -> None:
        """So many outputs of a group end, but not all; it does not decode, and ``kv_tokens`` is up to date."""
        tree: ForkTree = sequence.held
        self._hold_group(sequence, tree, -1)
        for _ in range(outputs):
            tree.drop(tree.width - 1)
        self._hold_group(sequence, tree, 1)
        if tree.width == 1:
            sequence.held = None

    def replace_beam(self, sequence: Sequence, beam: int, source: int) -> None:
        """A beam of a group is dropped for a fork of another; as for :meth:`end_outputs`."""
        tree: ForkTree = sequence.held
        self._hold_group(sequence, tree, -1)
        tree.replace(beam, source, sequence.kv_tokens)
        self._hold_group(sequence, tree, 1)
        self._counts["forks"] += 1

    def report(self) -> dict[str, float]:
        """Forks and copies on write; summed over decode steps, blocks of groups without sharing and those it saves."""
        return dict(self._counts) if self._counts["forks"] else {}

    def check_integrity(self) -> None:
        """Raise SimulationError unless 0 <= stored <= reserved <= all, and the phases count every decoder."""
        if not 0 <= self.stored_tokens <= self.reserved_tokens <= self.total_blocks * self.block_size:
            raise SimulationError(
                f"{self.stored_tokens} tokens stored in {self.used_blocks} of {self.total_blocks} blocks"
            )
        if sum(self._phases) != self._decoders or min(self._phases) < 0:
            raise SimulationError(f"{self._decoders} decoders, but phases {self._phases}")
        copies = 0
        for sequence, (kv_tokens, step) in self._groups.items():
            tree: ForkTree = sequence.held
            tree.check_integrity()
            copies += tree.copies(kv_tokens + self._steps - step)
            if tree.width != sequence.width:
                raise SimulationError(f"{tree.width} tables for {sequence.width} sequences of {sequence.request_id}")
        if copies != self._copies:
            raise SimulationError(f"{self._copies} copies are pending, but groups have {copies}")

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
        return blocks + self._copies if self._copies and steps else blocks

    def _join_group(self, sequence: Sequence) -> None:
        """A group decodes: forked from its prompt, or with the blocks that it had in common before."""
        kv_tokens = sequence.kv_tokens
        if sequence.held is None:
            sequence.held = ForkTree(self.block_size, sequence.width, kv_tokens)
            self._counts["forks"] += sequence.width - 1
        self._groups[sequence] = (kv_tokens, self._steps)
        self._pend(sequence, 1)

    def _leave_group(self, sequence: Sequence) -> None:
        """A group decodes no more; the steps that it took are counted."""
        self._pend(sequence, -1)
        kv_tokens, tree = sequence.kv_tokens, sequence.held
        joined_tokens = self._groups.pop(sequence)[0]
        blocks = self._blocks_up_to(kv_tokens) - self._blocks_up_to(joined_tokens)
        self._counts["group_block_steps"] += sequence.width * blocks
        self._counts["saved_block_steps"] += tree.saved_blocks * (kv_tokens - joined_tokens)

    def _pend(self, sequence: Sequence, sign: int) -> None:
        copies = sign * sequence.held.copies(sequence.kv_tokens)
        self._copies += copies
        self._copied_tokens += copies * (sequence.kv_tokens % self.block_size)

    def _hold_group(self, sequence: Sequence, tree: ForkTree, sign: int) -> None:
        self.used_blocks += sign * tree.blocks(sequence.kv_tokens)
        self.stored_tokens += sign * tree.tokens(sequence.kv_tokens)

    def _blocks_up_to(self, tokens: int) -> int:
        """Blocks of one table, summed over all its lengths up to so many tokens."""
        full, rest = divmod(tokens, self.block_size)
        return self.block_size * full * (full + 1) // 2 + rest * (full + 1)
