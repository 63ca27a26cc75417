"""Contiguous reservations: first fit, merging holes, and what they waste."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servsim.errors import SimulationError
from servsim.memory import ContiguousAllocator
from servsim.memory.surroundings import MemorySurroundings
from servsim.request import Sequence


def sequence(index: int = 0) -> Sequence:
    return Sequence(index, 0.0, 10, 100, 0, 0, 0, ())


def admit(memory: ContiguousAllocator, newcomer: Sequence, tokens: int = 10) -> bool:
    round_ = memory.round()
    if not round_.admit(newcomer, tokens, alone=False):
        return False
    memory.commit(round_)
    newcomer.kv_tokens += tokens
    return True


def filled(slots: int, extent: int) -> tuple[ContiguousAllocator, list[Sequence]]:
    """Memory with as many sequences as it holds."""
    memory = ContiguousAllocator(MemorySurroundings(slots // 16, 16, extent))
    members = []
    while admit(memory, one := sequence(len(members))):
        members.append(one)
    return memory, members


def test_each_sequence_holds_max_model_len_slots_whatever_it_stores() -> None:
    memory, members = filled(128, 32)
    assert [one.held for one in members] == [(0, 32), (32, 32), (64, 32), (96, 32)]
    assert memory.reserved_tokens == 128 and memory.stored_tokens == 40
    assert memory.used_blocks == memory.total_blocks == 8


def test_the_first_hole_that_is_long_enough_is_taken() -> None:
    memory, (_, b, _, d) = filled(128, 32)
    memory.release(d)
    memory.release(b)
    newcomer = sequence(9)
    assert admit(memory, newcomer) and newcomer.held == (32, 32)


def test_external_fragmentation_worked_by_hand() -> None:
    memory, (a, b, c, d) = filled(128, 32)
    assert memory.external_fragmentation == 0  # nothing is free
    memory.release(a)
    assert memory.external_fragmentation == 0  # one hole
    memory.release(c)
    assert memory.external_fragmentation == 0.5  # 32 of 64
    memory.release(d)
    assert memory.external_fragmentation == pytest.approx(1 - 64 / 96)  # c's and d's have merged
    memory.release(b)
    assert memory.external_fragmentation == 0


def test_a_remainder_too_short_for_a_sequence_is_never_used() -> None:
    memory, members = filled(112, 32)
    assert len(members) == 3
    assert memory.reserved_tokens == 96 and memory.used_blocks == 6
    memory.release(members[0])
    assert memory.external_fragmentation == pytest.approx(1 - 32 / 48)


def test_decoders_store_more_in_slots_they_have() -> None:
    memory, members = filled(128, 32)
    for one in members[:2]:
        memory.join(one)
    memory.advance(5)
    assert memory.stored_tokens == 40 + 10 and memory.reserved_tokens == 128
    assert memory.steps_until_full(1 << 40) == 1 << 40
    assert memory.blocks_after(1000) == memory.used_blocks
    round_ = memory.round()
    assert round_.grow_decoders() and round_.grow(members[0], 15)


def test_a_round_that_preempts_gives_the_extent_to_another() -> None:
    memory, members = filled(128, 32)
    newcomer = sequence(9)
    round_ = memory.round()
    assert not round_.admit(newcomer, 7, alone=False)
    round_.release(members[1], 10)
    assert round_.admit(newcomer, 7, alone=False)
    assert newcomer.held is None  # a draft so far
    memory.commit(round_)
    assert newcomer.held == (32, 32) and members[1].held is None
    assert memory.stored_tokens == 37
    memory.check_integrity()


def test_a_model_longer_than_the_memory_never_fits() -> None:
    memory = ContiguousAllocator(MemorySurroundings(8, 16, 129))
    assert not memory.fits(1)
    memory = ContiguousAllocator(MemorySurroundings(8, 16, 128))
    assert memory.fits(128) and not memory.fits(129)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.one_of(st.just(-1), st.integers(0, 20)), max_size=60), st.integers(1, 40), st.sampled_from([5, 16, 33])
)
def test_extents_never_overlap_and_all_slots_are_accounted_for(
    operations: list[int], num_blocks: int, extent: int
) -> None:
    memory = ContiguousAllocator(MemorySurroundings(num_blocks, 16, extent))
    members: list[Sequence] = []
    for index, operation in enumerate(operations):
        if operation < 0:
            newcomer = sequence(index)
            admitted = admit(memory, newcomer, 3)
            owners = sorted(one.held for one in members)
            ends, starts = [0, *map(sum, owners)], [*(start for start, _ in owners), num_blocks * 16]
            assert admitted == any(start - end >= extent for end, start in zip(ends, starts, strict=True))
            members += [newcomer] * admitted
        elif members:
            memory.release(members.pop(operation % len(members)))
        memory.check_integrity()
        slots = [slot for one in members for slot in range(one.held[0], sum(one.held))]
        assert len(slots) == len(set(slots)) == memory.reserved_tokens
        assert all(0 <= slot < num_blocks * 16 for slot in slots)
        assert memory.external_fragmentation == pytest.approx(fragmentation(slots, num_blocks * 16))


def fragmentation(taken: list[int], slots: int) -> float:
    """From a map of all slots, one by one."""
    largest = run = free = 0
    occupied = set(taken)
    for slot in range(slots):
        run = 0 if slot in occupied else run + 1
        free += slot not in occupied
        largest = max(largest, run)
    return 1 - largest / free if free else 0.0


def test_broken_books_are_our_bug() -> None:
    memory, _ = filled(128, 32)
    memory.reserved_tokens = 64
    with pytest.raises(SimulationError, match="0 free \\+ 64 reserved slots of 128"):
        memory.check_integrity()
