"""The buddy system: powers of two, split and merged."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from servsim.memory.buddy import Buddy


def test_a_block_is_split_until_it_is_small_enough_and_merges_again() -> None:
    free = Buddy(64)
    first, second = free.take(5), free.take(16)
    assert (first, second) == ((0, 8), (16, 16))
    assert free.extents() == [(8, 8), (32, 32)] and free.free == 40 and free.largest == 32
    free.give((0, 8))
    assert free.extents() == [(0, 16), (32, 32)]  # the half that is taken stays apart
    free.give((16, 16))
    assert free.extents() == [(0, 64)]


def test_the_smallest_block_that_suffices_is_split() -> None:
    free = Buddy(64)
    taken = [free.take(8) for _ in range(8)]
    free.give((8, 8))
    free.give((32, 8))
    free.give((40, 8))
    assert free.take(4) == (8, 4)
    assert len(set(taken)) == 8


def test_a_size_that_is_no_power_of_two_is_a_row_of_blocks() -> None:
    free = Buddy(100)
    assert free.extents() == [(0, 64), (64, 32), (96, 4)]
    assert free.take(65) is None and free.take(33) == (0, 64)
    free.give((0, 64))
    assert free.extents() == [(0, 64), (64, 32), (96, 4)]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(-20, 40).filter(bool), max_size=60), st.integers(1, 200))
def test_blocks_are_aligned_disjoint_and_merged_as_far_as_they_can_be(operations: list[int], slots: int) -> None:
    free = Buddy(slots)
    whole = free.extents()
    taken: list[tuple[int, int]] = []
    for operation in operations:
        if operation > 0:
            largest = free.largest
            extent = free.take(operation)
            assert (extent is None) == (1 << (operation - 1).bit_length() > largest)
            if extent is not None:
                assert operation <= extent[1] < 2 * operation
                taken.append(extent)
        elif taken:
            free.give(taken.pop(operation % len(taken)))
        extents = sorted([*free.extents(), *taken])
        assert all(start % length == 0 for start, length in extents)
        assert [slot for start, length in extents for slot in range(start, start + length)] == list(range(slots))
        assert sum(length for _, length in free.extents()) == free.free
        starts = dict(free.extents())
        top = dict(whole)
        for start, length in starts.items():
            assert starts.get(start ^ length) != length or top.get(start) == length
    draft = free.copy()
    draft.take(1)
    assert free.free == slots - sum(length for _, length in taken)
    for extent in taken:
        free.give(extent)
    assert free.extents() == whole


def test_nothing_free_is_no_block() -> None:
    free = Buddy(1)
    assert free.take(1) == (0, 1) and free.take(1) is None and free.largest == 0
