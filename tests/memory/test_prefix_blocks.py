"""The prefix cache: worked numbers, a pool that keeps every block apart, strides, and the stack property of LRU."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from cached_runs import Run, Scene, one_after_the_other, same_bits, scenes
from hypothesis import given, settings
from hypothesis import strategies as st

from servsim.errors import SimulationError
from servsim.memory.prefix_blocks import PrefixBlocksAllocator
from servsim.memory.surroundings import MemorySurroundings
from servsim.request import Sequence

SIZE = 4


def allocator(usable_blocks: int, block_size: int = SIZE, **parameters: Any) -> PrefixBlocksAllocator:
    settings_ = PrefixBlocksAllocator.Parameters(**parameters)
    return PrefixBlocksAllocator(
        MemorySurroundings(usable_blocks + 1, block_size, 1 << 20, settings_, tokens_per_hash=block_size)
    )


def sequence(number: int, prompt: int, hash_ids: Iterable[int] = (), session: int = -1) -> Sequence:
    return Sequence(number, 0.0, prompt, 1 << 20, 0, 0, 0, tuple(hash_ids), session=session)


def prefill(memory: PrefixBlocksAllocator, *sequences: Sequence) -> list[int]:
    """Admit in one round, and prefill at once; the hits."""
    round_ = memory.round()
    for one in sequences:
        assert round_.admit(one, round_.lacking(one), alone=True)
    memory.commit(round_)
    hits = [one.kv_tokens for one in sequences]
    for one in sequences:
        one.kv_tokens = one.total_tokens
        one.generated_tokens += 1
        memory.join(one)
    memory.check_integrity()
    return hits


def decode(memory: PrefixBlocksAllocator, sequences: Iterable[Sequence], steps: int) -> None:
    assert memory.steps_until_full(steps) == steps
    memory.advance(steps)
    for one in sequences:  # an engine writes this when they stop
        one.kv_tokens += steps
        one.generated_tokens += steps
    memory.check_integrity()


def finish(memory: PrefixBlocksAllocator, one: Sequence) -> None:
    memory.leave(one)
    memory.release(one)
    memory.check_integrity()


def preempt(memory: PrefixBlocksAllocator, one: Sequence) -> None:
    round_ = memory.round()
    round_.release(one, one.kv_tokens)
    memory.leave(one)
    memory.commit(round_)
    one.kv_tokens = 0
    one.preemptions += 1
    memory.check_integrity()


def test_of_a_prompt_that_is_cached_whole_the_last_block_is_computed_again() -> None:
    """Algorithm T4: P = 64, BS = 16: 48 cached, 16 computed."""
    memory = allocator(20, block_size=16)
    first, second = sequence(0, 64, range(4)), sequence(1, 64, range(4))
    assert prefill(memory, first) == [0]
    finish(memory, first)
    assert memory.cached_tokens(second) == 48
    assert memory.round().lacking(second) == 16
    assert prefill(memory, second) == [48]
    assert memory.report()["hit_tokens"] == 48


def three_in_six_blocks() -> tuple[PrefixBlocksAllocator, list[Sequence]]:
    memory = allocator(6)
    sequences = [sequence(number, prompt) for number, prompt in enumerate((8, 8, 6))]
    prefill(memory, *sequences)
    assert memory.used_blocks == 6
    return memory, sequences


def test_the_first_block_of_a_preempted_sequence_is_reused_last() -> None:
    """Algorithm T5, example 3: A gets c1, B gets c0; C finds nothing, needs 2 blocks and waits."""
    memory, (a, b, c) = three_in_six_blocks()
    round_ = memory.round()
    assert not round_.grow(a, 8)
    round_.release(c, 6)
    assert round_.grow(a, 8) and round_.grow(b, 8)
    memory.leave(c)
    memory.commit(round_)
    c.kv_tokens = 0
    assert memory.cached_tokens(c) == 4  # the blocks are taken when the step has passed
    decode(memory, (a, b), 1)
    assert memory.used_blocks == 6
    assert memory.round().lacking(c) == 7
    assert not memory.round().admit(c, 7, alone=False)


def test_a_preempted_sequence_finds_what_is_left_of_it() -> None:
    memory, (a, b, c) = three_in_six_blocks()
    preempt(memory, c)
    finish(memory, b)
    decode(memory, (a,), 1)  # takes c1
    assert memory.round().lacking(c) == 3
    assert prefill(memory, c) == [4]
    assert memory.report()["rehit_tokens"] == 4


def test_a_preempted_sequence_finds_all_blocks_that_it_filled() -> None:
    memory = allocator(20)
    one = sequence(0, 6)
    prefill(memory, one)
    decode(memory, (one,), 7)  # 13 tokens stored, 14 in all
    preempt(memory, one)
    assert memory.used_blocks == 0
    assert prefill(memory, one) == [12]
    assert (memory.used_blocks, memory.stored_tokens) == (4, 14)


def test_a_shared_prefix_is_held_once_and_stays_as_long_as_somebody_holds_it() -> None:
    memory = allocator(20)
    one, other = sequence(0, 12, (1, 2, 3)), sequence(1, 14, (1, 2, 9))
    assert prefill(memory, one, other) == [0, 8]
    assert (memory.used_blocks, memory.stored_tokens) == (3 + 2, 12 + 6)
    finish(memory, one)
    assert (memory.used_blocks, memory.stored_tokens) == (4, 14)
    finish(memory, other)
    assert (memory.used_blocks, memory.stored_tokens) == (0, 0)


def test_what_an_earlier_admission_of_the_round_computes_is_found_but_not_what_it_evicts() -> None:
    memory = allocator(6)
    old, other = sequence(0, 13, (1, 2, 3)), sequence(1, 7, (8, 9))
    prefill(memory, old)
    finish(memory, old)
    assert memory.cached_tokens(sequence(2, 13, (1, 2, 3))) == 12
    round_ = memory.round()
    assert round_.admit(other, 7, alone=True)  # two blocks: those that were never used
    assert round_.lacking(sequence(2, 13, (1, 2, 3))) == 1
    big = sequence(3, 6, (8, 7))
    assert round_.lacking(big) == 2  # what the one before computes
    assert round_.admit(big, 2, alone=True)  # one block, and old's open one goes
    third = sequence(4, 3)
    assert round_.admit(third, 3, alone=True)  # old's third block goes
    assert round_.lacking(sequence(2, 13, (1, 2, 3))) == 5
    memory.commit(round_)
    memory.check_integrity()
    assert memory.cached_tokens(sequence(2, 13, (1, 2, 3))) == 8


def test_free_blocks_that_are_found_count_against_free_memory() -> None:
    """Admission: new blocks + found blocks that are free + watermark <= free."""
    memory = allocator(8, watermark=0.2)  # of 9 blocks: one stays free
    old, runs = sequence(0, 9, (1, 2)), sequence(1, 12)
    prefill(memory, old)
    finish(memory, old)
    prefill(memory, runs)  # 3 blocks; 5 are free, 2 of them with old's content
    assert memory.round().admit(sequence(2, 16, (1, 2)), 8, alone=False)  # 2 found + 2 new + 1 <= 5
    assert not memory.round().admit(sequence(3, 17, (1, 2)), 9, alone=False)
    assert memory.round().admit(sequence(3, 17, (1, 2)), 9, alone=True)


def test_a_dropped_round_leaves_no_trace() -> None:
    memory = allocator(6)
    one = sequence(0, 12, (1, 2, 3))
    prefill(memory, one)
    finish(memory, one)
    for _ in range(2):
        round_ = memory.round()
        again = sequence(1, 12, (1, 2, 3))
        assert round_.lacking(again) == 4 and round_.admit(again, 4, alone=True)
        assert round_.lacking(again) == 4  # as it was when it was admitted
        memory.check_integrity()
        assert memory.used_blocks == 0


def test_the_answer_of_a_turn_is_found_by_the_next_one() -> None:
    memory = allocator(20)
    turn = sequence(0, 6, (1, 2, 3), session=0)
    prefill(memory, turn)
    decode(memory, (turn,), 5)  # 11 tokens stored: two full blocks
    finish(memory, turn)
    assert memory.cached_tokens(sequence(1, 14, (1, 2, 4), session=0)) == 8


class Naive:
    """vLLM's pool told plainly: every block has a number, a content and holders; the free queue is a list."""

    def __init__(self, blocks: int) -> None:
        self.free = list(range(blocks))
        self.content: dict[int, Any] = {}
        self.holders = [0] * blocks
        self.registered: list[int] = []  # in order
        self.tables: dict[Sequence, list[int]] = {}

    def contents(self, one: Sequence) -> list[Any]:
        known = list(one.hash_ids[: one.prompt_tokens // SIZE])
        count = one.total_tokens // SIZE + 1
        return [(*known[: i + 1], *[(one.request_id, j) for j in range(len(known), i + 1)]) for i in range(count)]

    def hit(self, one: Sequence) -> list[int]:
        found: list[int] = []
        for content in self.contents(one)[: (one.total_tokens - 1) // SIZE]:
            block = next((number for number in self.registered if self.content[number] == content), None)
            if block is None:
                break
            found.append(block)
        return found

    def admit(self, one: Sequence) -> int:
        found = self.hit(one)
        for block in found:
            if not self.holders[block]:
                self.free.remove(block)
            self.holders[block] += 1
        self.tables[one] = list(found)
        self.grow(one, one.total_tokens)
        self.fill(one, one.total_tokens)
        return len(found) * SIZE

    def grow(self, one: Sequence, tokens: int) -> None:
        table = self.tables[one]
        while len(table) * SIZE < tokens:
            block = self.free.pop(0)
            if block in self.content:
                del self.content[block]
                self.registered.remove(block)
            self.holders[block] = 1
            table.append(block)

    def fill(self, one: Sequence, tokens: int) -> None:
        for block, content in zip(self.tables[one][: tokens // SIZE], self.contents(one), strict=False):
            if block not in self.content:
                self.content[block] = content
                self.registered.append(block)

    def leave(self, one: Sequence) -> None:
        self.fill(one, one.kv_tokens)
        for block in reversed(self.tables.pop(one)):
            self.holders[block] -= 1
            if not self.holders[block]:
                self.free.append(block)


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["admit", "admit", "decode", "finish", "preempt"]), st.integers(0, 99), st.integers(1, 30)
    ),
    min_size=5,
    max_size=60,
)


@settings(max_examples=250, deadline=None, derandomize=True, database=None)
@given(OPERATIONS, st.integers(4, 25))
def test_it_finds_and_evicts_what_a_plain_pool_does(operations: list[Any], blocks: int) -> None:
    memory, naive = allocator(blocks), Naive(blocks)
    running: list[Sequence] = []
    waiting: list[Sequence] = []
    for number, (what, pick, size) in enumerate(operations):
        if what == "admit":
            ids = [pick >> bit & 1 for bit in range(min(5, -(-size // SIZE)))] if pick % 3 else []
            one = waiting.pop(pick % len(waiting)) if waiting and pick % 2 else sequence(number, size, ids)
            found = naive.hit(one)
            assert memory.cached_tokens(one) == len(found) * SIZE
            claims = sum(not naive.holders[block] for block in found)
            new = -(-one.total_tokens // SIZE) - len(found)
            round_ = memory.round()
            fits = round_.admit(one, round_.lacking(one), alone=True)
            assert fits == (new + claims <= len(naive.free))
            if fits:
                memory.commit(round_)
                assert one.kv_tokens == naive.admit(one)
                one.kv_tokens = one.total_tokens
                one.generated_tokens += 1
                memory.join(one)
                running.append(one)
            elif one.preemptions:
                waiting.append(one)
        elif what == "decode":
            steps = memory.steps_until_full(size)
            memory.advance(steps)
            for one in running:
                one.kv_tokens += steps
                one.generated_tokens += steps
                naive.grow(one, one.kv_tokens)
        elif running:
            one = running.pop(pick % len(running))
            naive.leave(one)
            if what == "finish":
                finish(memory, one)
            else:
                preempt(memory, one)
                waiting.append(one)
        memory.check_integrity()
        assert memory.used_blocks == blocks - len(naive.free)


POLICIES = ["fcfs", "sjf", "srpt", "sglang", "sarathi", "past_future", "vllm_v0", "priority_trace", "fastserve"]


@pytest.mark.parametrize("policy", POLICIES)
def test_strides_and_single_steps_are_equal_to_the_bit(policy: str) -> None:
    @settings(max_examples=25, deadline=None, derandomize=True, database=None)
    @given(scenes(policy))
    def hold(scene: Scene) -> None:
        strided = Run(scene)
        records = strided.run(strided.memory.check_integrity)
        same_bits(records, Run(scene, single=True).run())
        assert (strided.memory.used_blocks, strided.memory.stored_tokens) == (0, 0)

    hold()


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_without_content_that_repeats_it_is_paged_memory(data: Any) -> None:
    """Where nothing is preempted either: a preempted sequence would find its own blocks again."""
    scene = data.draw(scenes("fcfs"))
    scene = replace(scene, requests=tuple(one._replace(hash_ids=()) for one in scene.requests), num_blocks=500)
    records, paged = Run(scene).run(), Run(replace(scene, allocator="paged")).run()
    assert records.memory.pop("queried_tokens") > 0
    assert set(records.memory.values()) == {0}
    records.memory.clear()
    same_bits(records, paged)


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_without_overlap_more_memory_never_finds_less(data: Any) -> None:
    """LRU has the stack property; each request by itself, and down to the smallest memory that holds the largest."""
    requests = one_after_the_other(data.draw)
    longest = max(-(-(one.prompt + one.output) // SIZE) for one in requests)
    before: list[int] = []
    for blocks in (longest, longest + 1, longest + 3, longest + 10, longest + 40, 1000):
        hits = Run(Scene(requests, num_blocks=blocks + 1, max_num_batched_tokens=2000)).run().requests["cached_tokens"]
        assert all(hit >= old for hit, old in zip(hits, before or hits, strict=True))
        before = hits.tolist()


def test_broken_books_are_our_bug() -> None:
    memory = allocator(6)
    one = sequence(0, 8, (1, 2))
    prefill(memory, one)
    one.held.blocks[0].holders = 2
    with pytest.raises(SimulationError, match="a block with 1 holders counts 2"):
        memory.check_integrity()
    one.held.blocks[0].holders = 1
    memory.used_blocks -= 1
    memory.stored_tokens = 1
    with pytest.raises(SimulationError, match="1 used \\+ 4 free blocks, but 6 in all"):
        memory.check_integrity()
