"""Contiguous KV memory: one extent a sequence, reserved whole at admission (as before PagedAttention)."""

from __future__ import annotations

from typing import Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from servsim.errors import SimulationError
from servsim.memory.allocator import Round, StaysOnDevice
from servsim.memory.surroundings import MemorySurroundings
from servsim.request import Sequence

__all__ = ["ContiguousAllocator", "ContiguousRound"]


class ContiguousAllocator(StaysOnDevice):
    """First-fit extents of token slots; nothing grows and nothing is ever preempted for memory.

    ``reserve: max`` gives each sequence ``max_model_len`` slots, as Orca and FasterTransformer do
    (Vidur and sarathi-serve rebuild it so). Reserved but unused slots are the price: `reserved_tokens`
    less `stored_tokens`. Blocks are only the unit of the report here: slots / ``block_size``, rounded up.
    """

    class Parameters(BaseModel):
        """What a scenario may say under ``memory`` besides the common keys."""

        model_config = ConfigDict(frozen=True, extra="forbid")

        reserve: Literal["max"] = Field("max", description="slots reserved at admission: max = max_model_len")

    def __init__(self, surroundings: MemorySurroundings) -> None:
        super().__init__()
        self.reserve = (surroundings.parameters or self.Parameters()).reserve
        num_blocks, block_size = surroundings.num_blocks, surroundings.block_size
        self.block_size = block_size
        self.total_blocks = num_blocks
        self.stored_tokens = 0
        self.reserved_tokens = 0
        self._slots = num_blocks * block_size
        self._extent = surroundings.max_model_len
        self._holes: list[tuple[int, int]] = [(0, self._slots)]  # start, length; by start
        self._decoders = 0

    @property
    def used_blocks(self) -> int:
        """Reserved slots in blocks, rounded up."""
        return -(-self.reserved_tokens // self.block_size)

    @property
    def external_fragmentation(self) -> float:
        """1 - largest hole / all free slots; 0 when nothing is free."""
        free = self._slots - self.reserved_tokens
        return 1.0 - max(length for _, length in self._holes) / free if free else 0.0

    def fits(self, tokens: int) -> bool:
        """Whether a lone sequence of so many stored tokens could ever be held."""
        return tokens <= self._extent <= self._slots

    def round(self) -> ContiguousRound:
        """A draft of this instant's grants and releases."""
        return ContiguousRound(self, self._extent)

    def commit(self, round_: Round) -> None:
        """Carry a draft out."""
        draft = cast(ContiguousRound, round_)
        for sequence in draft.released:
            self.stored_tokens -= sequence.kv_tokens
            self.reserved_tokens -= sequence.held[1]
            sequence.held = None
        for sequence, extent in draft.placed:
            sequence.held = extent
            self.reserved_tokens += extent[1]
        self.stored_tokens += sum(draft.tokens.values())
        self._holes = draft.holes

    def join(self, sequence: Sequence) -> None:
        """The sequence decodes from now on."""
        self._decoders += 1

    def leave(self, sequence: Sequence) -> None:
        """The sequence decodes no more."""
        self._decoders -= 1

    def advance(self, steps: int) -> None:
        """Every decoder stored ``steps`` more tokens, in slots that it has."""
        self.stored_tokens += steps * self._decoders

    def steps_until_full(self, at_most: int) -> int:
        """Reservations hold whatever comes: ``at_most``."""
        return at_most

    def blocks_after(self, steps: int) -> int:
        """Nothing grows: :attr:`used_blocks`."""
        return self.used_blocks

    def release(self, sequence: Sequence) -> None:
        """The sequence ended; its extent is free again."""
        self.stored_tokens -= sequence.kv_tokens
        self.reserved_tokens -= sequence.held[1]
        self._holes = _with_hole(self._holes, sequence.held)
        sequence.held = None

    def check_integrity(self) -> None:
        """Raise SimulationError unless holes and reservations add up to all slots."""
        free = sum(length for _, length in self._holes)
        if free + self.reserved_tokens != self._slots or not 0 <= self.stored_tokens <= self.reserved_tokens:
            raise SimulationError(
                f"{free} free + {self.reserved_tokens} reserved slots of {self._slots}, {self.stored_tokens} stored"
            )


class ContiguousRound:
    """One plan's draft on a :class:`ContiguousAllocator`: its own copy of the holes."""

    __slots__ = ("_extent", "holes", "placed", "released", "tokens")

    def __init__(self, memory: ContiguousAllocator, extent: int) -> None:
        self._extent = extent
        self.holes = memory._holes
        self.placed: list[tuple[Sequence, tuple[int, int]]] = []
        self.released: list[Sequence] = []
        self.tokens: dict[Sequence, int] = {}  # prefill chunks of this round

    def grow_decoders(self) -> bool:
        """Always: the slots are reserved."""
        return True

    def grow(self, sequence: Sequence, kv_tokens: int) -> bool:
        """Always: the slots are reserved."""
        return True

    def extend(self, sequence: Sequence, tokens: int) -> bool:
        """Always: the slots are reserved."""
        self.tokens[sequence] = tokens
        return True

    def lacking(self, sequence: Sequence) -> int:
        """All of it: nothing is kept."""
        return sequence.total_tokens

    def admit(self, sequence: Sequence, tokens: int, *, alone: bool) -> bool:
        """Reserve the first hole that is long enough."""
        for index, (start, length) in enumerate(self.holes):
            if length >= self._extent:
                rest = [(start + self._extent, length - self._extent)] if length > self._extent else []
                self.holes = [*self.holes[:index], *rest, *self.holes[index + 1 :]] or [(0, 0)]
                self.placed.append((sequence, (start, self._extent)))
                self.tokens[sequence] = tokens
                return True
        return False

    def restore(self, sequence: Sequence) -> bool:
        """Reserve the first hole that is long enough, for KV that is copied back."""
        return self.admit(sequence, sequence.kv_tokens, alone=False)

    def release(self, sequence: Sequence, kv_tokens: int) -> None:
        """Give the extent of a preempted sequence back."""
        self.holes = _with_hole(self.holes, sequence.held)
        self.tokens.pop(sequence, None)
        self.released.append(sequence)


def _with_hole(holes: list[tuple[int, int]], hole: tuple[int, int]) -> list[tuple[int, int]]:
    """The holes with one more, neighbours merged."""
    merged: list[tuple[int, int]] = []
    for start, length in sorted([*(hole_ for hole_ in holes if hole_[1]), hole]):
        if merged and sum(merged[-1]) == start:
            merged[-1] = (merged[-1][0], merged[-1][1] + length)
        else:
            merged.append((start, length))
    return merged
