"""Blocks that the members of a sequence group share, against block tables with reference counts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import Tables

from servsim.errors import SimulationError
from servsim.memory import PagedAllocator
from servsim.memory.forks import ForkTree, held_blocks, most_blocks, next_blocks
from servsim.memory.surroundings import MemorySurroundings
from servsim.request import Request, Sequence

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 9), st.just(0)),
        st.tuples(st.just("replace"), st.integers(0, 6), st.integers(0, 6)),
        st.tuples(st.just("drop"), st.integers(0, 6), st.just(0)),
    ),
    max_size=40,
)
SIZES = st.sampled_from([1, 2, 4, 16])


def group(width: int, prompt: int) -> Sequence:
    return Sequence(0, 0.0, prompt, 1 << 30, 0, 0, 0, (), width=width)


def allocator(usable_blocks: int, block_size: int = 4) -> PagedAllocator:
    return PagedAllocator(MemorySurroundings(usable_blocks + 1, block_size, 1 << 20))


def prefilled(memory: PagedAllocator, width: int, prompt: int) -> Sequence:
    """A group at the end of its prefill."""
    newcomer = group(width, prompt)
    round_ = memory.round()
    assert round_.admit(newcomer, prompt, alone=True)
    memory.commit(round_)
    newcomer.kv_tokens = prompt
    memory.join(newcomer)
    memory.check_integrity()
    return newcomer


def paused(memory: PagedAllocator, sequence: Sequence, steps: int) -> None:
    """A group that has taken so many steps stops to decode."""
    sequence.kv_tokens += steps
    memory.leave(sequence)


def test_three_answers_to_six_tokens_take_four_blocks_of_four() -> None:
    """The worked example: two blocks for all, two copies with the first token, four blocks in place of six."""
    memory = allocator(10)
    answers = prefilled(memory, 3, 6)
    assert (memory.used_blocks, memory.stored_tokens) == (2, 6)
    assert memory.blocks_after(0) == 2
    assert memory.blocks_after(1) == 4  # two copies; the third child owns the block by then and writes in place
    assert next_blocks(answers, 6, 4) == 2
    assert memory.steps_until_full(100) == 2 + 2 * 4  # 4, then 7 blocks from the 9th token on, 10 from the 13th
    memory.advance(1)
    memory.check_integrity()
    assert (memory.used_blocks, memory.stored_tokens) == (4, 4 + 3 * 3)
    assert 3 * -(-7 // 4) == 6  # without sharing
    memory.advance(1)
    assert memory.used_blocks == 4
    memory.advance(1)
    assert memory.used_blocks == 7
    paused(memory, answers, 3)
    memory.release(answers)
    assert (memory.used_blocks, memory.stored_tokens) == (0, 0)
    # Three steps with 7, 8 and 9 tokens: 6, 6 and 9 blocks without sharing, of which two are saved each time.
    assert memory.report() == {"forks": 2, "copied_blocks": 2, "group_block_steps": 21, "saved_block_steps": 6}


def test_a_prompt_that_fills_its_blocks_is_never_copied() -> None:
    memory = allocator(20)
    prefilled(memory, 3, 8)
    assert memory.blocks_after(1) == 2 + 3
    memory.advance(1)
    assert memory.report()["copied_blocks"] == 0


def test_a_pending_copy_that_finds_no_block_stops_the_decoders_at_once() -> None:
    memory = allocator(3)
    answers = prefilled(memory, 3, 6)
    assert memory.steps_until_full(10) == 0
    round_ = memory.round()
    assert not round_.grow_decoders() and not round_.grow(answers, 6)
    assert round_.free_blocks == 1
    memory = allocator(4)
    prefilled(memory, 3, 6)
    assert memory.steps_until_full(10) == 2


def test_an_output_that_ends_before_the_first_copy_saves_that_copy() -> None:
    memory = allocator(10)
    answers = prefilled(memory, 3, 6)
    paused(memory, answers, 0)
    memory.end_outputs(answers, 1)
    answers.width = 2
    memory.join(answers)
    memory.check_integrity()
    assert (memory.used_blocks, memory.blocks_after(1)) == (2, 3)


def test_the_last_output_is_a_plain_sequence_again() -> None:
    memory = allocator(10)
    answers = prefilled(memory, 3, 6)
    memory.advance(3)
    paused(memory, answers, 3)
    memory.end_outputs(answers, 2)
    answers.width = 1
    assert answers.held is None
    assert (memory.used_blocks, memory.stored_tokens) == (3, 9)
    memory.join(answers)
    memory.advance(3)
    paused(memory, answers, 3)
    memory.release(answers)
    assert (memory.used_blocks, memory.stored_tokens) == (0, 0)


def test_a_beam_that_forks_shares_its_partial_block_until_the_next_token() -> None:
    memory = allocator(20)
    beams = prefilled(memory, 2, 4)
    memory.advance(2)  # one full block in common, and a partial one each
    assert memory.used_blocks == 3
    paused(memory, beams, 2)
    memory.replace_beam(beams, 0, 1)
    memory.join(beams)
    memory.check_integrity()
    assert (memory.used_blocks, memory.stored_tokens) == (2, 6)
    memory.advance(1)
    assert (memory.used_blocks, memory.stored_tokens) == (3, 4 + 2 * 3)


@settings(max_examples=300, deadline=None)
@given(operations=OPERATIONS, size=SIZES, width=st.integers(2, 6), prompt=st.integers(1, 40))
def test_the_tree_is_block_tables_with_reference_counts(
    operations: list[tuple[str, int, int]], size: int, width: int, prompt: int
) -> None:
    tree, tables, tokens = ForkTree(size, width, prompt), Tables(size, width, prompt), prompt
    for what, first, second in operations:
        if what == "append":
            for _ in range(first):
                expected = tree.copies(tokens)
                assert tables.append() == expected
                tokens += 1
        elif what == "drop" and tree.width > 1:
            member = first % tree.width
            tree.drop(member)
            tables.drop(member)
        elif what == "replace" and tree.width > 1:
            member = first % tree.width
            source = (member + 1 + second % (tree.width - 1)) % tree.width
            tree.replace(member, source, tokens)
            tables.replace(member, source)
        tree.check_integrity()
        assert (tree.blocks(tokens), tree.tokens(tokens)) == (tables.blocks, tables.stored)
        unshared = tree.width * -(-tokens // size)
        assert tree.saved_blocks == unshared - tables.blocks - tree.copies(tokens)


@settings(max_examples=150, deadline=None)
@given(
    operations=OPERATIONS,
    size=SIZES,
    widths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    prompts=st.lists(st.integers(1, 20), min_size=4, max_size=4),
)
def test_the_allocator_counts_what_tables_count(
    operations: list[tuple[str, int, int]], size: int, widths: list[int], prompts: list[int]
) -> None:
    """Groups and plain sequences side by side; a group leaves and comes back for whatever happens to it."""
    memory = allocator(100_000, size)
    books = {
        prefilled(memory, width, prompt): Tables(size, width, prompt)
        for width, prompt in zip(widths, prompts, strict=False)
    }
    copied = forked = 0
    for what, first, second in operations:
        one = list(books)[second % len(books)]
        tables = books[one]
        if what == "append":
            after = [memory.blocks_after(steps) for steps in range(first + 1)]
            for steps in range(first):
                assert after[steps] == sum(table.blocks for table in books.values())
                copied += sum(table.append() for table in books.values())
            assert after[first] == sum(table.blocks for table in books.values())
            memory.advance(first)
        elif one.width > 1:
            paused(memory, one, tables.tokens - one.kv_tokens)
            if what == "drop" and one.width > 2:
                memory.end_outputs(one, 2)
                one.width -= 2
                tables.drop(one.width + 1)
                tables.drop(one.width)
            elif what == "replace":
                dropped = first % one.width
                source = (dropped + 1 + second % (one.width - 1)) % one.width
                memory.replace_beam(one, dropped, source)
                tables.replace(dropped, source)
                forked += 1
            memory.join(one)
        memory.check_integrity()
        assert memory.used_blocks == sum(table.blocks for table in books.values())
        assert memory.stored_tokens == sum(table.stored for table in books.values())
    for one, tables in books.items():
        assert held_blocks(one, tables.tokens, size) == tables.blocks
        needed = memory.round()
        free = needed.free_blocks
        assert needed.grow(one, tables.tokens)
        before = tables.blocks
        tables.append()
        assert free - needed.free_blocks == tables.blocks - before
        needed.release(one, tables.tokens - 1)
        assert needed.free_blocks == free + before
    report = memory.report()
    if any(width > 1 for width in widths):
        expected = forked + sum(width - 1 for width in widths)
        assert (report["forks"], report["copied_blocks"]) == (expected, copied)
    else:
        assert report == {}


@settings(max_examples=150, deadline=None)
@given(size=SIZES, prompt=st.integers(1, 20), outputs=st.lists(st.integers(1, 30), min_size=2, max_size=5))
def test_the_most_that_a_group_takes_is_what_it_comes_to(size: int, prompt: int, outputs: list[int]) -> None:
    longest, *further = sorted(outputs, reverse=True)
    request = Request(0, 0.0, prompt, longest, longest, further_outputs=tuple(further))
    tables = Tables(size, len(outputs), prompt)
    most = tables.blocks
    for emitted in range(1, longest):
        while sum(output > emitted for output in outputs) < len(tables.tables):
            tables.drop(0)
        tables.append()
        most = max(most, tables.blocks)
    assert most_blocks(request, size) == most
    beams = Request(0, 0.0, prompt, longest, longest, beam_width=3)
    tables = Tables(size, 3, prompt)
    for _ in range(1, longest):
        tables.append()
    assert most_blocks(beams, size) == max(tables.blocks, -(-prompt // size))


def test_a_group_goes_out_and_comes_back_with_what_it_shares() -> None:
    memory = allocator(6)
    answers = prefilled(memory, 3, 6)
    memory.advance(1)
    paused(memory, answers, 1)
    round_ = memory.round()
    round_.release(answers, 7)
    assert round_.free_blocks == 6
    memory.commit(round_)
    assert memory.used_blocks == 0
    round_ = memory.round()
    assert round_.restore(answers)
    assert round_.free_blocks == 2
    memory.commit(round_)
    memory.join(answers)
    memory.check_integrity()
    assert (memory.used_blocks, memory.stored_tokens) == (4, 13)
    assert memory.blocks_after(2) == 7


def broken(**changed: Any) -> ForkTree:
    tree = ForkTree(4, 3, 6)
    tree.replace(0, 1, 9)
    tree.check_integrity()
    for name, value in changed.items():
        setattr(tree, name, value)
    return tree


@pytest.mark.parametrize(
    "changed", [{"_closed": 1}, {"saved_blocks": 1}, {"_pending": 0}, {"_starts": [2, 1, 1]}, {"_parents": [None] * 3}]
)
def test_a_broken_tree_is_our_bug(changed: dict[str, Any]) -> None:
    with pytest.raises(SimulationError):
        broken(**changed).check_integrity()


def test_books_of_groups_that_do_not_agree_are_our_bug() -> None:
    memory = allocator(10)
    prefilled(memory, 3, 6)
    memory._copies = 1
    with pytest.raises(SimulationError, match="1 copies are pending, but groups have 2"):
        memory.check_integrity()
    memory = allocator(10)
    prefilled(memory, 3, 6).held.drop(0)
    with pytest.raises(SimulationError, match="2 tables for 3 sequences"):
        memory.check_integrity()
