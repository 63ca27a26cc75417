"""KV that is contiguous in virtual memory and mapped in page groups as it grows (vAttention, ASPLOS 2025)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from heapq import heappop, heappush
from typing import cast

import simpy
from pydantic import ConfigDict, Field, field_validator

from servsim.clock import TRANSFER, schedule_at
from servsim.documents import refusal
from servsim.errors import CapacityError, SimulationError
from servsim.memory.allocator import Fetch, Round
from servsim.memory.paged import PagedAllocator
from servsim.memory.paged_round import PagedRound
from servsim.memory.surroundings import MemorySurroundings
from servsim.memory.vattention_pages import MAP_S, page_groups
from servsim.memory.vattention_slots import Slots
from servsim.request import Sequence
from servsim.scenario.tier_spec import Bytes
from servsim.units import format_bytes

__all__ = ["VAttentionAllocator", "VAttentionParameters", "VAttentionRound"]

_LOOK_AHEAD_STEPS = 9  # vAttention's EAGER_NUM_STEPS less one
_LOOK_AHEAD_GROUPS = 2  # its EAGER_NUM_KVBLOCKS, a step


class VAttentionParameters(PagedAllocator.Parameters):
    """What a scenario may say under ``memory`` besides the common keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    watermark: float = Field(
        0.01, ge=0, lt=1, description="share of all groups kept free when a waiting request is admitted"
    )
    page_size: Bytes = Field(2 << 20, description="bytes of a page: 64 KiB, 128 KiB, 256 KiB or 2 MiB")
    single_tensor: bool = Field(False, description="one tensor for all layers, so that a group is 2 pages")
    background_mapping: bool = Field(True, description="map what decoders need next while a step computes")
    deferred_reclamation: bool = Field(True, description="a finished sequence's pages stay mapped in its slot")
    map_s: float | None = Field(None, ge=0, description="seconds to map one page; by default by page size")

    @field_validator("page_size")
    @classmethod
    def _check_page_size(cls, page_bytes: int) -> int:
        if page_bytes not in MAP_S:
            raise refusal(f"there are no pages of {page_bytes} bytes", remedy="write 64 KiB, 128 KiB, 256 KiB or 2 MiB")
        return page_bytes


class VAttentionAllocator(PagedAllocator):
    """Page groups counted as :class:`PagedAllocator` counts blocks, in slots whose mappings outlive their sequences.

    ``block_size`` is what a group holds (:func:`page_groups`), whatever the scenario says; what ``num_blocks`` of its
    blocks take in bytes is cut into groups, ``total_blocks`` of them. A sequence gets one of ``max_num_seqs`` slots.
    Groups that are mapped into a slot and not needed there count as free.

    A prefill's groups are mapped before its step, which becomes longer by ``map_s`` for each page. What decoders need
    is mapped while the step before computes, and costs nothing, unless memory became free only after that step (then
    they wait as well) or ``background_mapping`` is off. The background looks nine steps ahead and maps two groups a
    step: a slot may be left with one group more than its sequence needed. We grant that one by the number of
    decoders that reach a boundary before, not by their slots. Unmapping takes no time, and the background is
    always done in time. Without ``deferred_reclamation`` a slot loses its pages with its sequence.

    Sources: vattention/vattention.cu and utils.h of microsoft/vattention; times as :data:`MAP_S` says.
    """

    Parameters = VAttentionParameters
    forks = False

    def __init__(self, surroundings: MemorySurroundings) -> None:
        settings = surroundings.parameters or VAttentionParameters()
        kv = surroundings.kv
        self.group = page_groups(kv, settings.page_size, single_tensor=settings.single_tensor)
        kv_bytes = surroundings.num_blocks * surroundings.block_size * kv.bytes_per_token
        groups = kv_bytes // self.group.size_bytes
        if not groups:
            raise CapacityError(
                f"{format_bytes(kv_bytes)} of KV, and a page group has {format_bytes(self.group.size_bytes)}: "
                f"{self.group.pages} pages of {format_bytes(self.group.page_bytes)}",
                remedy="use smaller pages, single_tensor, or more memory",
            )
        # The pool of paged blocks has a null block besides those that can be used.
        super().__init__(
            replace(surroundings, num_blocks=groups + 1, block_size=self.group.tokens, parameters=settings)
        )
        self.slots = Slots(surroundings.max_num_seqs)
        self._env = surroundings.env
        map_s = MAP_S[self.group.page_bytes] if settings.map_s is None else settings.map_s
        self._group_s = self.group.pages * map_s
        self._nobody = Sequence(-1, 0.0, 0, 0, 0, 0, 0, ())  # mapping is no transfer that a request waits for
        self._background = settings.background_mapping
        self._deferred = settings.deferred_reclamation
        self._mapped_ahead = -1  # groups that the background could map in the step before; -1: it maps none
        self._foreground = 0  # groups that the next step waits for
        self._decodes = True  # whether decoders are in the step that was committed last
        self._spending: dict[Sequence, int] = {}  # decoders with spare groups, and the step that takes the next one
        self._spends: list[tuple[int, int, Sequence]] = []  # the same by step, some out of date
        self._ahead: set[Sequence] = set()  # stopped decoders whose next group is mapped already
        self._told = {"mapped_groups": 0, "waited_groups": 0, "reclaimed_groups": 0, "remapped_groups": 0}

    @property
    def stalls(self) -> bool:
        """Whether a step that only decodes would have to wait now for groups that nobody mapped in the background."""
        return self._late_groups() > 0

    def round(self) -> VAttentionRound:
        """A draft of this instant's grants and releases."""
        return VAttentionRound(self)

    def commit(self, round_: Round) -> None:
        """Carry a draft out: new sequences get their slots, and prefills their groups."""
        draft = cast(VAttentionRound, round_)
        super().commit(round_)
        self._decodes = draft.decodes or not draft.granted  # releases alone are no step
        for sequence, (blocks, _) in draft.granted.items():
            if sequence.held is None:
                sequence.held = self.slots.take(self.group.count(sequence.total_tokens))
            mapped_before = self.slots.use(sequence.held, blocks)
            self._told["remapped_groups"] += mapped_before
            self._foreground += blocks - mapped_before
            self._told["mapped_groups"] += blocks - mapped_before
        self._settle()

    def join(self, sequence: Sequence) -> None:
        """The sequence decodes from now on, with ``sequence.kv_tokens`` stored."""
        super().join(sequence)
        self._ahead.discard(sequence)
        if self.slots.spare[sequence.held]:
            self._spend(sequence, self._steps + -sequence.kv_tokens % self.block_size)

    def leave(self, sequence: Sequence) -> None:
        """The sequence decodes no more; ``sequence.kv_tokens`` is up to date."""
        self._spending.pop(sequence, None)
        steps = -sequence.kv_tokens % self.block_size + 1  # until it needs its next group
        if self._background and steps <= _LOOK_AHEAD_STEPS and not self.slots.spare[sequence.held]:
            in_time = _LOOK_AHEAD_GROUPS * (_LOOK_AHEAD_STEPS - steps + 1)
            if self._growth(steps) <= in_time:
                self._ahead.add(sequence)
        super().leave(sequence)

    def advance(self, steps: int) -> None:
        """Every decoder stored ``steps`` more tokens; short of free groups, spare ones are taken back step by step."""
        free = self.total_blocks - self.used_blocks - self.slots.spare_groups
        if self._growth(steps) <= free:
            self._advance(steps)
        else:
            for _ in range(steps):
                self._advance(1)
                self._settle()
        self._note_free()

    def steps_until_full(self, at_most: int) -> int:
        """As :class:`PagedAllocator`; without background mapping no further than to a step that has to wait."""
        steps = super().steps_until_full(at_most)
        if self._background or steps <= 1:
            return steps
        size = self.block_size
        ahead = range(1, min(steps, size + 1))
        return next((k for k in ahead if self._phases[(self._steps + k) % size]), steps)

    def release(self, sequence: Sequence) -> None:
        """The sequence ended; its groups are free again, and stay mapped in its slot until they are needed."""
        super().release(sequence)
        slot = sequence.held
        if slot is None:  # admitted and preempted in one round
            return
        sequence.held = None
        if self._deferred:
            free = self.total_blocks - self.used_blocks - self.slots.spare_groups
            groups = self.group.count(sequence.kv_tokens)
            self.slots.give(slot, groups + (sequence in self._ahead and free > groups))
        else:
            self.slots.give(slot, -self.slots.spare[slot])
        self._ahead.discard(sequence)

    def exposed(self) -> list[Fetch]:
        """The mapping that the step which begins now has to wait for."""
        groups = self._foreground + (self._late_groups() if self._decodes else 0)
        self._foreground, self._decodes = 0, True
        self._note_free()
        self._told["waited_groups"] += groups
        if not groups or not self._group_s or self._env is None:
            return []
        env, mapping_s = self._env, groups * self._group_s
        end_s = env.now + mapping_s

        def on_end(callback: Callable[[], None]) -> None:
            mapped = simpy.Event(env)
            assert mapped.callbacks is not None
            mapped.callbacks.append(lambda _: callback())
            schedule_at(env, mapped, end_s, TRANSFER)

        return [Fetch(self._nobody, 1, mapping_s, on_end)]

    def report(self) -> dict[str, float]:
        """Groups mapped for prefills and decoders, those a step waited for, taken back, and found mapped."""
        return {**self._told, "mapping_wait_s": self._told["waited_groups"] * self._group_s}

    def check_integrity(self) -> None:
        """Raise SimulationError unless needed, spare and free groups are all there are, and slots add up."""
        super().check_integrity()
        self.slots.check_integrity()
        if self.used_blocks + self.slots.spare_groups > self.total_blocks:
            raise SimulationError(
                f"{self.used_blocks} needed + {self.slots.spare_groups} spare page groups of {self.total_blocks}"
            )

    def _note_free(self) -> None:
        """The background maps for the next step what is free in this one."""
        if self._background:
            self._mapped_ahead = self.free_blocks

    def _late_groups(self) -> int:
        """Groups that the decoders wait for if they take a step now."""
        growing = self._growth(1)
        if growing <= self._mapped_ahead or not growing:
            return 0
        spare = self.slots.spare
        found = sum(1 for one, step in self._spending.items() if step == self._steps and spare[one.held])
        return growing - found

    def _spend(self, sequence: Sequence, step: int) -> None:
        self._spending[sequence] = step
        heappush(self._spends, (step, sequence.request_id, sequence))

    def _advance(self, steps: int) -> None:
        """Grow, out of spare groups where a slot has some."""
        before = self.used_blocks
        super().advance(steps)
        found = 0
        while self._spends and self._spends[0][0] < self._steps:
            step, _, sequence = heappop(self._spends)
            if self._spending.get(sequence) != step:
                continue
            found += self.slots.use(sequence.held, 1)
            if self.slots.spare[sequence.held]:
                self._spend(sequence, step + self.block_size)
            else:
                del self._spending[sequence]
        self._told["remapped_groups"] += found
        self._told["mapped_groups"] += self.used_blocks - before - found

    def _settle(self) -> None:
        """Take spare groups back where more are needed than are free."""
        missing = self.used_blocks + self.slots.spare_groups - self.total_blocks
        if missing > 0:
            self.slots.reclaim(missing)
            self._told["reclaimed_groups"] += missing


class VAttentionRound(PagedRound):
    """One plan's draft on a :class:`VAttentionAllocator`: groups, and a slot for each sequence."""

    __slots__ = ("_free_slots", "decodes")

    def __init__(self, memory: VAttentionAllocator) -> None:
        super().__init__(memory)
        self._free_slots = len(memory.slots.idle)
        self.decodes = False  # somebody's next token was asked for

    def grow_decoders(self) -> bool:
        """One more token for every decoder at once."""
        self.decodes = super().grow_decoders()
        return self.decodes

    def grow(self, sequence: Sequence, kv_tokens: int) -> bool:
        """One more token for one decoder that stores ``kv_tokens`` now."""
        grown = super().grow(sequence, kv_tokens)
        self.decodes |= grown
        return grown

    def admit(self, sequence: Sequence, tokens: int, *, alone: bool) -> bool:
        """As on paged memory, and if there is a slot."""
        return self._free_slots > 0 and super().admit(sequence, tokens, alone=alone) and self._seat()

    def restore(self, sequence: Sequence) -> bool:
        """As on paged memory, and if there is a slot."""
        return self._free_slots > 0 and super().restore(sequence) and self._seat()

    def release(self, sequence: Sequence, kv_tokens: int) -> None:
        """Take back everything from a sequence that is preempted in this round, its slot too."""
        if sequence.held is not None or sequence in self.granted:
            self._free_slots += 1
        super().release(sequence, kv_tokens)

    def _seat(self) -> bool:
        self._free_slots -= 1
        return True
