"""Contiguous KV memory: one extent a sequence, reserved whole at admission (as before PagedAttention)."""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from servsim.errors import SimulationError
from servsim.memory.allocator import Round, StaysOnDevice
from servsim.memory.buddy import Buddy
from servsim.memory.contiguous_holes import Extent, FirstFit, FreeSlots
from servsim.memory.contiguous_round import ContiguousRound, relocate
from servsim.memory.surroundings import MemorySurroundings
from servsim.request import Sequence

__all__ = ["ContiguousAllocator", "ContiguousRound"]


class ContiguousAllocator(StaysOnDevice):
    """Extents of token slots, each as long as ``reserve`` says when its sequence is admitted.

    ``R(r)`` is ``max``: ``max_model_len`` (Orca and FasterTransformer as Vidur and sarathi-serve rebuild them);
    ``declared``: the prompt and the declared ``max_tokens``; ``pow2``: the prompt and the smallest power of two not
    below the predicted output; ``oracle`` and ``predicted``: the prompt and the predicted output, the first being
    what it is called with the oracle predictor alone (PagedAttention, SOSP 2023, describes these as its baselines).
    An allocator never sees the true length.

    The first two hold whatever comes. A wrong prediction may be outgrown: the sequence then moves to an extent whose
    share for the output is doubled until it suffices (the doubling is S3's, NeurIPS 2023). The new extent may overlap
    the old one, and the move takes no time. Where no extent is found the growth is refused, so that the policy
    preempts; a preempted sequence comes back with room for one token more at the least. Nobody's reservation is
    longer than ``max_model_len`` or than the memory.

    ``placement`` finds the extent: ``first_fit``, or ``buddy``, which rounds up to a power of two. Slots that are
    reserved and not used are `reserved_tokens` less `stored_tokens`. Blocks are only the unit of the report here:
    slots / ``block_size``, rounded up.
    """

    class Parameters(BaseModel):
        """What a scenario may say under ``memory`` besides the common keys."""

        model_config = ConfigDict(frozen=True, extra="forbid")

        reserve: Literal["max", "declared", "pow2", "oracle", "predicted"] = Field(
            "max",
            description="slots reserved at admission: max = max_model_len, declared = prompt + max_tokens, pow2 = "
            "prompt + next power of two of the predicted output, oracle and predicted = prompt + predicted output",
        )
        placement: Literal["first_fit", "buddy"] = Field(
            "first_fit", description="how an extent is found; buddy rounds it up to a power of two"
        )

    def __init__(self, surroundings: MemorySurroundings) -> None:
        super().__init__()
        settings = surroundings.parameters or self.Parameters()
        self.reserve = settings.reserve
        num_blocks, block_size = surroundings.num_blocks, surroundings.block_size
        self.block_size = block_size
        self.total_blocks = num_blocks
        self.stored_tokens = 0
        self.reserved_tokens = 0
        self.slots = num_blocks * block_size
        self.free: FreeSlots = Buddy(self.slots) if settings.placement == "buddy" else FirstFit(self.slots)
        self._longest = self.free.largest  # extent that there can be
        self._max_model_len = surroundings.max_model_len
        self._holds = self.reserve in ("max", "declared")
        self._decoders = 0
        self._steps = 0
        self._growing: dict[Sequence, int] = {}  # decoders, with the step at whose beginning their extent is full
        self._full: list[tuple[int, int, Sequence]] = []  # the same by step and request_id, some out of date
        self._told = dict.fromkeys(
            ("released_extents", "released_tokens_reserved", "released_tokens_unused", "relocations",
             "relocated_tokens"), 0,
        )  # fmt: skip

    @property
    def used_blocks(self) -> int:
        """Reserved slots in blocks, rounded up."""
        return -(-self.reserved_tokens // self.block_size)

    @property
    def external_fragmentation(self) -> float:
        """1 - largest hole / all free slots; 0 when nothing is free."""
        return 1.0 - self.free.largest / self.free.free if self.free.free else 0.0

    def reservation(self, sequence: Sequence, tokens: int) -> int:
        """``R(r)`` in slots, at least ``tokens``."""
        if self.reserve == "max":
            return self._max_model_len
        if self.reserve == "declared":
            return min(max(sequence.prompt_tokens + sequence.max_tokens, tokens), self._max_model_len, self._longest)
        output = max(1, math.ceil(sequence.predicted_tokens))
        if self.reserve == "pow2":
            output = 1 << (output - 1).bit_length()
        while sequence.prompt_tokens + output < tokens:
            output *= 2
        return min(sequence.prompt_tokens + output, self._max_model_len, self._longest)

    def fits(self, tokens: int) -> bool:
        """Whether a lone sequence of so many stored tokens could ever be held."""
        if self.reserve == "max":
            return tokens <= self._max_model_len <= self._longest
        return tokens <= min(self._max_model_len, self._longest)

    def round(self) -> ContiguousRound:
        """A draft of this instant's grants and releases."""
        return ContiguousRound(self)

    def commit(self, round_: Round) -> None:
        """Carry a draft out; those who outgrew their extents move now, before the step."""
        draft = cast(ContiguousRound, round_)
        for sequence in draft.released:
            self.stored_tokens -= sequence.kv_tokens
            if sequence.held is not None:
                self.reserved_tokens -= sequence.held[1]
            sequence.held = None
        for sequence, extent in draft.moved.items():
            self._moved(sequence, extent)
        for sequence, extent in draft.placed.items():
            sequence.held = extent
            self.reserved_tokens += extent[1]
        self.stored_tokens += sum(draft.tokens.values())
        self.free = draft.free

    def join(self, sequence: Sequence) -> None:
        """The sequence decodes from now on."""
        self._decoders += 1
        if not self._holds:
            self._note(sequence, self._steps + sequence.held[1] - sequence.kv_tokens)

    def leave(self, sequence: Sequence) -> None:
        """The sequence decodes no more."""
        self._decoders -= 1
        self._growing.pop(sequence, None)

    def advance(self, steps: int) -> None:
        """Every decoder stored ``steps`` more tokens; who had no slot left for its token has moved."""
        end = self._steps + steps
        while (step := self._next_full()) < end:
            for sequence in self.outgrown(step):
                extent = relocate(self, self.free, sequence)
                if extent is None:
                    raise SimulationError(f"no extent for request {sequence.request_id}, which has outgrown its own")
                self._steps = step
                self._moved(sequence, extent)
        self._steps = end
        self.stored_tokens += steps * self._decoders

    def steps_until_full(self, at_most: int) -> int:
        """Steps that all decoders can take; no further than to where one outgrows its extent, and then one by one."""
        ahead = self._next_full() - self._steps
        if ahead >= at_most:
            return at_most
        return ahead or int(self._dry_run(1) is not None)

    def blocks_after(self, steps: int) -> int:
        """:attr:`used_blocks` when the decoders will have taken ``steps`` more steps.

        More than there are if one of them would find no extent.
        """
        if self._next_full() >= self._steps + steps:
            return self.used_blocks
        reserved = self._dry_run(steps)
        return self.total_blocks + 1 if reserved is None else -(-reserved // self.block_size)

    def outgrown(self, step: int | None = None) -> list[Sequence]:
        """Decoders that have no slot for the token of the step that begins now (or is the ``step``-th), by id."""
        step = self._steps if step is None else step
        if self._next_full() > step:
            return []
        return sorted((one for one, full in self._growing.items() if full == step), key=_by_id)

    def release(self, sequence: Sequence) -> None:
        """The sequence ended; its extent is free again."""
        length = sequence.held[1]
        self.stored_tokens -= sequence.kv_tokens
        self.reserved_tokens -= length
        self.free.give(sequence.held)
        sequence.held = None
        self._told["released_extents"] += 1
        self._told["released_tokens_reserved"] += length
        self._told["released_tokens_unused"] += length - sequence.kv_tokens

    def report(self) -> dict[str, float]:
        """Extents that ended with their sequence, their slots and those never used; how much was moved."""
        return dict(self._told)

    def check_integrity(self) -> None:
        """Raise SimulationError unless holes and reservations add up to all slots."""
        free = sum(length for _, length in self.free.extents())
        if (
            free != self.free.free
            or free + self.reserved_tokens != self.slots
            or not 0 <= self.stored_tokens <= self.reserved_tokens
        ):
            raise SimulationError(
                f"{free} free + {self.reserved_tokens} reserved slots of {self.slots}, {self.stored_tokens} stored"
            )

    def _note(self, sequence: Sequence, full: int) -> None:
        self._growing[sequence] = full
        heappush(self._full, (full, sequence.request_id, sequence))
        if len(self._full) > 64 + 4 * len(self._growing):  # mostly out of date: memory stays what runs
            self._full = [(step, one.request_id, one) for one, step in self._growing.items()]
            heapify(self._full)

    def _moved(self, sequence: Sequence, extent: Extent) -> None:
        """A decoder whose extent is full has another one."""
        length = sequence.held[1]
        self.reserved_tokens += extent[1] - length
        self._told["relocations"] += 1
        self._told["relocated_tokens"] += length
        sequence.held = extent
        self._note(sequence, self._steps + extent[1] - length)

    def _next_full(self) -> int:
        """The first step that begins with a full extent; beyond all steps where there is none."""
        heap = self._full
        while heap and self._growing.get(heap[0][2]) != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else 1 << 62

    def _dry_run(self, steps: int) -> int | None:
        """Reserved slots after so many steps, or None if somebody finds no extent in one of them."""
        free, reserved, end = self.free.copy(), self.reserved_tokens, self._steps + steps
        heap = [(step, one.request_id, one, one.held) for one, step in self._growing.items() if step < end]
        heapify(heap)
        while heap:
            step, number, sequence, held = heappop(heap)
            extent = relocate(self, free, sequence, held)
            if extent is None:
                return None
            reserved += extent[1] - held[1]
            step += extent[1] - held[1]
            if step < end:
                heappush(heap, (step, number, sequence, extent))
        return reserved


def _by_id(sequence: Sequence) -> int:
    return sequence.request_id
