"""Paged blocks counted by phase, against an allocator that looks at every sequence."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servsim.errors import SimulationError
from servsim.memory import PagedAllocator
from servsim.memory.surroundings import MemorySurroundings
from servsim.request import Sequence


def sequence(index: int = 0, kv_tokens: int = 0, prompt: int = 1) -> Sequence:
    return Sequence(index, 0.0, prompt, 1 << 30, 0, 0, 0, (), kv_tokens=kv_tokens)


def allocator(usable_blocks: int, block_size: int = 4, **parameters: Any) -> PagedAllocator:
    return PagedAllocator(
        MemorySurroundings(usable_blocks + 1, block_size, 1 << 20, PagedAllocator.Parameters(**parameters))
    )


def decode(memory: PagedAllocator, index: int, kv_tokens: int) -> Sequence:
    """A sequence whose prefill of so many tokens is done, among the decoders."""
    newcomer = sequence(index, prompt=kv_tokens)
    round_ = memory.round()
    assert round_.admit(newcomer, kv_tokens, alone=True)
    memory.commit(round_)
    newcomer.kv_tokens = kv_tokens
    memory.join(newcomer)
    return newcomer


class BruteForce:
    """Every sequence has its own number of tokens, and blocks are counted afresh whenever somebody asks."""

    def __init__(self, usable_blocks: int, block_size: int) -> None:
        self.usable_blocks, self.block_size = usable_blocks, block_size
        self.tokens: dict[Sequence, int] = {}

    def blocks(self, steps: int = 0) -> int:
        return sum(-(-(tokens + steps) // self.block_size) for tokens in self.tokens.values())

    def steps_until_full(self, at_most: int) -> int:
        return next((steps for steps in range(at_most) if self.blocks(steps + 1) > self.usable_blocks), at_most)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.integers(1, 40)),
        st.tuples(st.just("advance"), st.integers(1, 30)),
        st.tuples(st.just("leave"), st.integers(0, 50)),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(operations=OPERATIONS, block_size=st.sampled_from([1, 2, 4, 16]), usable_blocks=st.integers(1, 60))
def test_counting_by_phase_is_counting_every_sequence(
    operations: list[tuple[str, int]], block_size: int, usable_blocks: int
) -> None:
    memory, brute = allocator(usable_blocks, block_size), BruteForce(usable_blocks, block_size)
    for index, (what, number) in enumerate(operations):
        if what == "join" and -(-number // block_size) <= memory.free_blocks:
            brute.tokens[decode(memory, index, number)] = number
        elif what == "advance":
            steps = memory.steps_until_full(number)
            memory.advance(steps)
            brute.tokens = {one: tokens + steps for one, tokens in brute.tokens.items()}
        elif what == "leave" and brute.tokens:
            leaver = list(brute.tokens)[number % len(brute.tokens)]
            leaver.kv_tokens = brute.tokens.pop(leaver)
            memory.leave(leaver)
            memory.release(leaver)
        memory.check_integrity()
        assert memory.used_blocks == brute.blocks()
        assert memory.stored_tokens == sum(brute.tokens.values())
        assert memory.reserved_tokens == brute.blocks() * block_size
        for steps in (0, 1, 2, block_size - 1, block_size, block_size + 1, 37):
            assert memory.blocks_after(steps) == brute.blocks(steps)
        for at_most in (1, 2, 5, 17, 100):
            assert memory.steps_until_full(at_most) == (brute.steps_until_full(at_most) if brute.tokens else at_most)


@settings(max_examples=100, deadline=None)
@given(
    contexts=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    victims=st.integers(0, 8),
    spare=st.integers(0, 6),
)
def test_a_round_that_grows_one_by_one_grants_what_all_at_once_would_need(
    contexts: list[int], victims: int, spare: int
) -> None:
    size = 4
    held = sum(-(-tokens // size) for tokens in contexts)
    memory = allocator(held + spare, size)
    decoders = [decode(memory, index, tokens) for index, tokens in enumerate(contexts)]
    needed = sum(tokens % size == 0 for tokens in contexts)
    assert memory.round().grow_decoders() == (needed <= spare)
    round_ = memory.round()
    granted = [round_.grow(one, tokens) for one, tokens in zip(decoders, contexts, strict=True)]
    assert sum(ok and tokens % size == 0 for ok, tokens in zip(granted, contexts, strict=True)) == min(needed, spare)
    for one, tokens in list(zip(decoders, contexts, strict=True))[:victims]:
        round_.release(one, tokens)  # grown in this round or not: everything comes back
    left = sum(-(-tokens // size) for tokens in contexts[victims:])
    grown = sum(ok and tokens % size == 0 for ok, tokens in list(zip(granted, contexts, strict=True))[victims:])
    assert round_.free_blocks == held + spare - left - grown


def test_a_round_that_is_dropped_leaves_no_trace() -> None:
    memory = allocator(10)
    round_ = memory.round()
    assert round_.admit(sequence(prompt=20), 20, alone=True)
    assert memory.used_blocks == 0
    assert memory.round().admit(sequence(prompt=40), 40, alone=True)


def test_one_block_of_the_pool_is_the_null_block() -> None:
    memory = PagedAllocator(MemorySurroundings(11, 4, 1 << 20))
    assert memory.total_blocks == 10
    assert memory.fits(40) and not memory.fits(41)


def test_a_chunk_takes_the_blocks_that_the_last_one_left_open_first() -> None:
    memory = allocator(10)
    one = sequence(prompt=15)
    round_ = memory.round()
    assert round_.admit(one, 6, alone=True)
    memory.commit(round_)
    one.kv_tokens = 6
    assert memory.used_blocks == 2
    round_ = memory.round()
    assert round_.extend(one, 9)  # 15 tokens: 4 blocks, 2 more
    memory.commit(round_)
    assert memory.used_blocks == 4 and memory.stored_tokens == 15


def test_the_whole_prompt_must_fit_unless_it_is_not_asked_for() -> None:
    for whole, admitted in ((True, False), (False, True)):
        memory = allocator(3, reserve_full_isl=whole)
        assert memory.round().admit(sequence(prompt=20), 8, alone=True) == admitted


def test_the_watermark_is_a_share_of_all_blocks_and_does_not_bind_a_lone_sequence() -> None:
    memory = allocator(19, watermark=0.1)  # 20 blocks in all: 2 stay free
    assert memory.watermark_blocks == 2
    assert memory.round().admit(sequence(prompt=68), 68, alone=False)  # 17 blocks
    assert not memory.round().admit(sequence(prompt=69), 69, alone=False)
    assert memory.round().admit(sequence(prompt=76), 76, alone=True)


def test_internal_fragmentation_is_what_stands_open_in_last_blocks() -> None:
    memory = allocator(100, 16)
    for index, tokens in enumerate((1, 16, 17, 40)):
        decode(memory, index, tokens)
    assert memory.reserved_tokens - memory.stored_tokens == 15 + 0 + 15 + 8
    assert memory.external_fragmentation == 0


def test_steps_until_full_over_cycles_worked_by_hand() -> None:
    memory = allocator(10, 4)
    decode(memory, 0, 4)  # needs a block at once, then every 4 steps
    decode(memory, 1, 6)  # needs one after 2 steps
    assert memory.free_blocks == 7
    # Blocks at steps 1, 3, 5, 7, 9, 11, 13, and an eighth at 15.
    assert memory.steps_until_full(1000) == 14
    assert memory.steps_until_full(9) == 9


def test_broken_books_are_our_bug() -> None:
    memory = allocator(10)
    memory.used_blocks = 11
    memory.stored_tokens = 44
    with pytest.raises(SimulationError, match="44 tokens stored in 11 of 10 blocks"):
        memory.check_integrity()
    memory = allocator(10)
    memory.join(sequence(kv_tokens=3))
    memory._phases[0] += 1
    with pytest.raises(SimulationError, match="decoders"):
        memory.check_integrity()
