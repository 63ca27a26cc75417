"""SGLang's prefix tree as an allocator: hits, locks, duplicates, evictions, and whole simulations with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from whole_runs import strided_equals_single

from servsim.memory.radix import RadixAllocator
from servsim.memory.radix_protocol import PrefixTree
from servsim.memory.surroundings import MemorySurroundings
from servsim.request import Sequence


def allocator(pages: int = 100, page: int = 1, unit: int | None = 1, **parameters: Any) -> RadixAllocator:
    settings = RadixAllocator.Parameters(**parameters)
    return RadixAllocator(MemorySurroundings(pages, page, 1 << 20, settings, tokens_per_hash=unit))


class Driver:
    """An engine's part by hand: admit, let steps pass, end; the books are checked after every change."""

    def __init__(self, memory: RadixAllocator) -> None:
        self.memory = memory
        self.count = 0

    def wait(self, *ids: int, prompt: int | None = None, priority: int = 0) -> Sequence:
        prompt = len(ids) if prompt is None else prompt
        sequence = Sequence(self.count, 0.0, prompt, 1 << 30, 0, 0, priority, ids, session=0 if ids else -1)
        self.count += 1
        return sequence

    def admit(self, *sequences: Sequence) -> None:
        """All in one round, and their prefill step passes."""
        round_ = self.memory.round()
        chunks = []
        for one in sequences:
            chunks.append((one, round_.lacking(one)))
            assert round_.admit(one, round_.lacking(one), alone=False)
        self.memory.commit(round_)
        self.memory.check_integrity()
        for one, tokens in chunks:
            one.kv_tokens += tokens
            assert one.kv_tokens == one.total_tokens
            one.generated_tokens += 1
            self.memory.join(one)
            self.memory.check_integrity()

    def decode(self, steps: int, *sequences: Sequence) -> None:
        self.memory.advance(steps)
        self.memory.check_integrity()
        for one in sequences:
            one.generated_tokens += steps
            one.kv_tokens += steps

    def end(self, sequence: Sequence) -> None:
        self.memory.leave(sequence)
        self.memory.release(sequence)
        self.memory.check_integrity()

    def preempt(self, sequence: Sequence) -> None:
        round_ = self.memory.round()
        round_.release(sequence, sequence.kv_tokens)
        freed = round_.free_blocks
        self.memory.leave(sequence)
        self.memory.commit(round_)
        assert freed == self.memory.free_blocks
        self.memory.check_integrity()
        sequence.kv_tokens = 0
        sequence.preemptions += 1


def test_it_answers_what_orders_ask() -> None:
    assert isinstance(allocator(), PrefixTree)


def test_the_next_turn_finds_prompt_and_answer() -> None:
    run = Driver(allocator())
    first = run.wait(*range(12), prompt=8)
    run.admit(first)
    run.decode(4, first)
    run.end(first)
    second = run.wait(*range(12), 50, 51, 52)
    assert run.memory.cached_tokens(second) == 12
    assert run.memory.used_blocks == 0
    run.admit(second)
    assert run.memory.report()["hit_tokens"] == 12
    assert run.memory.used_blocks == run.memory.stored_tokens == 15


def test_a_token_is_always_left_to_compute() -> None:
    run = Driver(allocator(page=4))
    run.admit(first := run.wait(*range(16)))
    run.end(first)
    assert run.memory.cached_tokens(run.wait(*range(16))) == 12
    assert run.memory.round().lacking(run.wait(*range(16))) == 4


def test_running_sequences_share_a_prefix_and_each_page_counts_once() -> None:
    run = Driver(allocator())
    run.admit(run.wait(1, 2, 3, 4, 5))
    run.admit(run.wait(1, 2, 3, 4, 6, 7))
    assert run.memory.used_blocks == run.memory.stored_tokens == 7


def test_prompts_of_one_batch_find_nothing_of_each_other_and_duplicates_are_freed_after_it() -> None:
    run = Driver(allocator())
    one, other = run.wait(1, 2, 3, 4, 5), run.wait(1, 2, 3, 4, 6)
    round_ = run.memory.round()
    assert round_.admit(one, 5, alone=False)
    assert round_.lacking(other) == 5
    assert round_.free_blocks == 95
    run.admit(one, other)
    assert run.memory.used_blocks == 6
    assert run.memory.report()["duplicate_blocks"] == 4


def test_a_refused_or_dropped_draft_leaves_no_trace() -> None:
    run = Driver(allocator(pages=10))
    run.admit(first := run.wait(*range(8)))
    run.end(first)
    nodes, version = run.memory.tree.nodes, run.memory.cache_version
    round_ = run.memory.round()
    assert round_.admit(run.wait(0, 1, 2, 99), 1, alone=False)
    assert not round_.admit(run.wait(*range(100, 108)), 8, alone=False)
    assert (run.memory.tree.nodes, run.memory.cache_version, run.memory.used_blocks) == (nodes, version, 0)


def test_what_is_found_counts_as_free_until_it_is_locked() -> None:
    run = Driver(allocator(pages=10))
    run.admit(first := run.wait(*range(8)))
    run.end(first)
    one, other = run.wait(*range(6), 99), run.wait(*range(8), 98)
    assert run.memory.claimed_tokens([one]) == 6
    assert run.memory.claimed_tokens([one, other]) == 8
    round_ = run.memory.round()
    assert round_.admit(one, 1, alone=False) and round_.free_blocks == 3
    assert round_.admit(other, 1, alone=False) and round_.free_blocks == 0


def test_a_chunk_can_be_found_when_its_step_has_passed() -> None:
    run = Driver(allocator())
    long, other = run.wait(*range(10)), run.wait(0, 1, 2, 3, 99)
    round_ = run.memory.round()
    assert round_.admit(long, 6, alone=True)
    run.memory.commit(round_)
    assert run.memory.cached_tokens(other) == 0
    long.kv_tokens += 6
    assert run.memory.cached_tokens(other) == 4


def test_a_preempted_sequence_keeps_its_prompt_and_finds_it_again() -> None:
    run = Driver(allocator())
    run.admit(one := run.wait(prompt=8))
    run.decode(3, one)
    assert run.memory.used_blocks == 11
    run.preempt(one)
    assert run.memory.used_blocks == 0
    assert run.memory.cached_tokens(one) == 8
    run.admit(one)
    assert run.memory.report()["rehit_tokens"] == 8


def test_lightllm_inserts_at_the_end_and_at_a_pause_all_of_it() -> None:
    run = Driver(allocator(insert="at_end"))
    run.admit(one := run.wait(1, 2, 3, 4))
    assert run.memory.cached_tokens(run.wait(1, 2, 3, 4, 5)) == 0
    run.decode(3, one)
    run.preempt(one)
    assert run.memory.cached_tokens(one) == 7
    assert run.memory.cached_tokens(run.wait(1, 2, 3, 4, 5)) == 4


def test_decoders_evict_leaves_in_one_stride_as_in_single_steps() -> None:
    def after(*strides: int) -> tuple[Any, ...]:
        run = Driver(allocator(pages=40))
        for start in (0, 100, 200):
            run.admit(one := run.wait(*range(start, start + 8)))
            run.end(one)
        run.admit(one := run.wait(prompt=6))
        for steps in strides:
            run.decode(steps, one)
        tree = run.memory.tree
        return tree.evicted_pages, tree.nodes, run.memory.used_blocks, tree.version, tree._clock

    assert after(15) == after(*[1] * 15) == after(7, 8)
    assert after(15)[0] == 8
    assert after(10)[0] == 0


def test_steps_until_eviction_are_those_into_empty_memory() -> None:
    run = Driver(allocator(pages=40))
    assert run.memory.steps_until_eviction(1 << 60) == 1 << 60
    run.admit(one := run.wait(*range(8)))
    run.end(one)
    run.admit(run.wait(prompt=6), run.wait(prompt=4))
    assert run.memory.steps_until_eviction(1 << 60) == 11  # 22 of 40 - 8 - 10 pages
    assert run.memory.steps_until_eviction(5) == 5
    assert run.memory.steps_until_full(100) == 15


def test_unknown_content_is_one_node_a_chunk_whatever_its_length() -> None:
    run = Driver(allocator(pages=1 << 20))
    run.admit(one := run.wait(prompt=100_000))
    run.decode(50_000, one)
    run.end(one)
    assert run.memory.tree.nodes == 2


def test_the_least_urgent_go_first_where_the_policy_says_so() -> None:
    run = Driver(allocator(pages=20, eviction_policy="priority"))
    for start, priority in ((0, 0), (100, 7), (200, 1)):
        run.admit(one := run.wait(*range(start, start + 5), priority=priority))
        run.end(one)
    run.admit(run.wait(prompt=6))
    assert [run.memory.cached_tokens(run.wait(*range(start, start + 6))) for start in (0, 100, 200)] == [5, 0, 5]


def scenario(
    folder: Path, rows: list[dict[str, Any]], policy: str, memory: dict[str, Any], unit: int
) -> dict[str, Any]:
    path = folder / "trace.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    own: dict[str, Any] = {"policy": policy}
    if policy.startswith("sglang "):
        own = {"policy": "sglang", "schedule_policy": policy.split()[1]}
    if policy == "priority":
        own = {"policy": "vllm_v1", "scheduling_policy": "priority"}
    if policy == "swap":
        own = {"policy": "vllm_v0", "preemption_mode": "swap"}
    return {
        "name": "radix",
        "model": "llama-3.1-8b",
        "instance": {
            "hardware": "h100-sxm",
            "max_model_len": 256,
            "cost": {"law": "fixed", "prefill_s": 0.25, "decode_s": 0.125},
            "scheduler": {**own, "max_num_seqs": 4, "max_num_batched_tokens": 24},
            "memory": {"allocator": "radix", **memory},
        },
        "workload": {"trace": str(path), "format": "mooncake", "tokens_per_hash": unit, "max_tokens": 40},
    }


@st.composite
def traces(draw: Any) -> tuple[list[dict[str, Any]], int]:
    """Requests of a few families with common beginnings."""
    unit = draw(st.sampled_from([4, 1, 3]))
    now, rows = 0, []
    for _ in range(draw(st.integers(3, 14))):
        now += draw(st.sampled_from([0, 0, 125, 250, 260, 3000]))
        family, shared = draw(st.integers(0, 2)), draw(st.integers(0, 30))
        length = draw(st.integers(1, 40))
        own = draw(st.integers(0, 3))
        ids = [
            family * 100 + place if place * unit < shared else 1000 * own + place for place in range(-(-length // unit))
        ]
        output = draw(st.sampled_from([1, 2, 7, 20, 40]))
        rows.append({"timestamp": now, "input_length": length, "output_length": output, "hash_ids": ids})
    return rows, unit


POLICIES = [
    "fcfs", "vllm_v1", "priority", "vllm_v0", "swap", "sarathi", "past_future", "lightllm", "srpt", "sglang fcfs",
    "sglang lpm", "sglang dfs-weight", "sglang shortest-prefill-first",
]  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES)
def test_strides_are_exact(policy: str, tmp_path: Path) -> None:
    @examples(12)
    @given(
        traces(),
        st.sampled_from([1, 4, 6]),
        st.integers(80, 160),
        st.sampled_from(["lru", "lfu", "mru"]),
        st.sampled_from(["after_chunks", "at_end"]),
    )
    def hold(trace: tuple[list[dict[str, Any]], int], page: int, tokens: int, eviction: str, insert: str) -> None:
        rows, unit = trace
        memory = {"block_size": page, "num_blocks": -(-tokens // page), "eviction_policy": eviction, "insert": insert}
        records = strided_equals_single(scenario(tmp_path, rows, policy, memory, unit))
        assert len(records.requests["request_id"]) == len(rows)

    hold()
