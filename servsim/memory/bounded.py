"""Paged KV memory that keeps at most so many tokens of a sequence: a sliding window, or eviction to a budget."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import cast

from pydantic import Field, model_validator

from servsim.documents import refusal
from servsim.errors import ScenarioError
from servsim.memory.allocator import Round
from servsim.memory.kept import KvBounds
from servsim.memory.paged import PagedAllocator
from servsim.memory.paged_round import PagedRound
from servsim.memory.surroundings import MemorySurroundings
from servsim.request import Sequence

__all__ = ["BoundedAllocator", "BoundedParameters", "BoundedRound"]


_KEPT = 2048  # an assumption: budgets in the papers lie between 1,024 and 4,096 tokens


class BoundedParameters(PagedAllocator.Parameters):
    """What a scenario may say under ``memory`` besides the common keys."""

    keep_prompt_tokens: int | None = Field(
        None, ge=1, description="tokens of the prompt that are kept when its prefill has ended (SnapKV's budget)"
    )
    keep_tokens: int | None = Field(
        None, ge=1, description="tokens kept of a sequence at any time (H2O's budget); 2048 without another bound"
    )
    sliding_window: bool = Field(
        False, description="keep the model's sliding window; the blocks of a prompt are reused modulo it as well"
    )

    @model_validator(mode="after")
    def _check_bounds(self) -> BoundedParameters:
        if self.sliding_window and (self.keep_prompt_tokens or self.keep_tokens):
            raise refusal("a sliding window is the bound", remedy="leave keep_tokens and keep_prompt_tokens out")
        return self

    def bounds(self, window: int | None) -> KvBounds:
        """What they come to on a model with such a sliding window."""
        if self.sliding_window:
            return KvBounds(total=window)
        only_total = self.keep_prompt_tokens is None
        return KvBounds(self.keep_prompt_tokens, self.keep_tokens or (_KEPT if only_total else None))


class BoundedAllocator(PagedAllocator):
    """:class:`PagedAllocator`, but that a decoder's oldest or least wanted tokens leave when it has too many.

    ``keep_tokens`` bounds what a decoder stores: each new token takes the place of another one (H2O, NeurIPS 2023).
    ``keep_prompt_tokens`` cuts the prompt once, when its prefill has ended, and keeps all that is generated (SnapKV,
    NeurIPS 2024). Until then a prompt holds all its blocks. With ``sliding_window`` a prompt too holds no more blocks
    than the window has, reused modulo the window (vLLM v0). Kept tokens are counted as if they lay side by side: what
    remains is moved together, at no cost. What decode attention reads is bounded in the same way. Which tokens are
    kept changes no time, and what it does to the answers is not modelled.
    """

    Parameters = BoundedParameters
    forks = False

    def __init__(self, surroundings: MemorySurroundings) -> None:
        super().__init__(surroundings)
        settings = surroundings.parameters or BoundedParameters()
        window = surroundings.kv.sliding_window
        if settings.sliding_window and window is None:
            raise ScenarioError("the model has no sliding window", remedy="give keep_tokens instead")
        self.bounds = settings.bounds(window)
        self.reuses = settings.sliding_window
        self._full: list[tuple[int, int, Sequence]] = []  # step at which a decoder stops growing
        self._growing: dict[Sequence, int] = {}  # that step, of those who will
        self._settled: set[Sequence] = set()  # decoders that have stopped

    def kept(self, sequence: Sequence, tokens: int) -> int:
        """How many of its ``tokens`` tokens it stores; all while its prompt is computed, unless blocks are reused."""
        if self.reuses or sequence.decoding or sequence.held is not None:
            return self.bounds.of(sequence.prompt_tokens, tokens)
        return tokens

    def fits(self, tokens: int) -> bool:
        """Whether a lone sequence of so many stored tokens could ever be held."""
        return super().fits(self.bounds.of(tokens, tokens) if self.reuses else tokens)

    def round(self) -> BoundedRound:
        """A draft of this instant's grants and releases."""
        return BoundedRound(self)

    def commit(self, round_: Round) -> None:
        """Carry a draft out; a swapped decoder comes back with what was kept of it."""
        super().commit(round_)
        for sequence, kept in cast(BoundedRound, round_).kept_of.items():
            sequence.held = kept

    def join(self, sequence: Sequence) -> None:
        """The sequence decodes from now on; what is not kept of its prompt is free."""
        prompt_tokens, tokens = sequence.prompt_tokens, sequence.kv_tokens
        kept = self.bounds.of(prompt_tokens, tokens)
        if not self.reuses and sequence.held is None:
            self.used_blocks -= self._blocks(tokens) - self._blocks(kept)
            self.stored_tokens -= tokens - kept
        steps = self.bounds.growing_steps(prompt_tokens, tokens)
        sequence.held = kept
        if steps <= 0:
            self._settled.add(sequence)
            return
        self._phases[(self._steps - kept) % self.block_size] += 1
        self._decoders += 1
        self._growing[sequence] = self._steps + steps
        heappush(self._full, (self._steps + steps, sequence.request_id, sequence))

    def leave(self, sequence: Sequence) -> None:
        """The sequence decodes no more; ``sequence.kv_tokens`` is up to date."""
        kept = sequence.held = self.bounds.of(sequence.prompt_tokens, sequence.kv_tokens)
        if sequence in self._settled:
            self._settled.remove(sequence)
            return
        del self._growing[sequence]
        self._phases[(self._steps - kept) % self.block_size] -= 1
        self._decoders -= 1

    def advance(self, steps: int) -> None:
        """Every decoder stored ``steps`` more tokens; some have all that is kept of them now."""
        super().advance(steps)
        while self._full and self._full[0][0] <= self._steps:
            step, _, sequence = heappop(self._full)
            if self._growing.get(sequence) == step:
                del self._growing[sequence]
                self._settled.add(sequence)
                self._phases[(step - (self.bounds.total or 0)) % self.block_size] -= 1
                self._decoders -= 1

    def steps_until_full(self, at_most: int) -> int:
        """As :class:`PagedAllocator`, and no further than to where a decoder stops growing."""
        while self._full and self._growing.get(self._full[0][2]) != self._full[0][0]:
            heappop(self._full)
        if self._full:
            at_most = min(at_most, self._full[0][0] - self._steps)
        return super().steps_until_full(at_most) if self._decoders else at_most

    def release(self, sequence: Sequence) -> None:
        """The sequence ended; whatever it holds is free again."""
        kept = self.kept(sequence, sequence.kv_tokens)
        self.used_blocks -= self._blocks(kept)
        self.stored_tokens -= kept
        sequence.held = None

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.block_size)


class BoundedRound(PagedRound):
    """One plan's draft on a :class:`BoundedAllocator`."""

    __slots__ = ("kept_of",)

    _memory: BoundedAllocator

    def __init__(self, memory: BoundedAllocator) -> None:
        super().__init__(memory)
        self.kept_of: dict[Sequence, int] = {}  # of swapped decoders that come back, what was kept

    def grow(self, sequence: Sequence, kv_tokens: int) -> bool:
        """One more token for one decoder that stores ``kv_tokens`` now, less what is not kept."""
        kept = self._memory.kept(sequence, kv_tokens)
        return kept == self._memory.bounds.total or super().grow(sequence, kept)

    def extend(self, sequence: Sequence, tokens: int) -> bool:
        """The next prefill chunk of a sequence that holds blocks already."""
        before = self._memory.kept(sequence, sequence.kv_tokens)
        after = self._memory.kept(sequence, sequence.kv_tokens + tokens)
        return self._grant(sequence, self._blocks(after) - self._blocks(before), after - before)

    def admit(self, sequence: Sequence, tokens: int, *, alone: bool) -> bool:
        """The first chunk of a waiting sequence, if the watermark stays free and (by default) all of it would fit."""
        memory = self._memory
        asked = memory.kept(sequence, sequence.total_tokens if memory.reserve_full_isl else tokens)
        if self._blocks(asked) + (0 if alone else memory.watermark_blocks) > self.free_blocks:
            return False
        kept = memory.kept(sequence, tokens)
        return self._grant(sequence, self._blocks(kept), kept)

    def restore(self, sequence: Sequence) -> bool:
        """Room for what was kept of a swapped sequence and for its next token."""
        memory, bounds = self._memory, self._memory.bounds
        decoded = sequence.generated_tokens > 0 and sequence.kv_tokens == sequence.total_tokens - 1
        kept = memory.kept(sequence, sequence.kv_tokens)
        if decoded:
            kept = bounds.of(sequence.prompt_tokens, sequence.kv_tokens)
        more = kept % memory.block_size == 0 and kept != bounds.total
        if not self._grant(sequence, self._blocks(kept) + more, kept):
            return False
        if decoded:
            self.kept_of[sequence] = kept
        self.granted[sequence] = (self._blocks(kept), kept)
        return True

    def release(self, sequence: Sequence, kv_tokens: int) -> None:
        """Take back everything from a sequence that is preempted in this round, grown or not."""
        super().release(sequence, self._memory.kept(sequence, kv_tokens))

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self._memory.block_size)
