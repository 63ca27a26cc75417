"""KV in page groups: what a group holds, which slot keeps its pages, and what mapping costs."""

from __future__ import annotations

from typing import Any

import pytest
import whole_runs
from hypothesis import given, settings
from hypothesis import strategies as st

from servsim.errors import CapacityError, ScenarioError, SimulationError
from servsim.memory.surroundings import KvShape, MemorySurroundings
from servsim.memory.vattention import VAttentionAllocator
from servsim.memory.vattention_pages import MAP_S, page_groups
from servsim.memory.vattention_slots import Slots
from servsim.request import Sequence
from servsim.scenario import load_scenario

KIB, MIB = 1 << 10, 1 << 20
LLAMA_8B = KvShape(32, 2048, 2 * 32 * 2048)
LLAMA_8B_TP2 = KvShape(32, 1024, 2 * 32 * 1024, devices=2)
LLAMA_70B_TP8 = KvShape(80, 256, 2 * 80 * 256, devices=8)
SIZES = (64 * KIB, 128 * KIB, 256 * KIB, 2 * MIB)


@pytest.mark.parametrize(
    ("kv", "tokens", "group_bytes", "single_tensor"),
    [
        (LLAMA_8B, (32, 64, 128, 1024), 128 * MIB, 32),
        (LLAMA_8B_TP2, (64, 128, 256, 2048), 128 * MIB, 64),
        (LLAMA_70B_TP8, (256, 512, 1024, 8192), 320 * MIB, 102),
    ],
)
def test_the_table_of_page_groups(kv: KvShape, tokens: tuple[int, ...], group_bytes: int, single_tensor: int) -> None:
    groups = [page_groups(kv, size) for size in SIZES]
    assert tuple(group.tokens for group in groups) == tokens
    assert groups[-1].size_bytes == group_bytes
    assert not any(group.remainder_bytes for group in groups)
    one = page_groups(kv, 2 * MIB, single_tensor=True)
    assert one.tokens == single_tensor and one.pages == 2 and one.size_bytes == 4 * MIB


def test_a_token_that_does_not_divide_a_page_leaves_a_remainder() -> None:
    group = page_groups(LLAMA_70B_TP8, 2 * MIB, single_tensor=True)
    assert group.remainder_bytes == 2 * MIB - 102 * 20480 == 8192


@pytest.mark.parametrize("size", [4 * KIB, 100_000, 4 * MIB])
def test_a_page_size_that_no_driver_maps_is_refused(size: int) -> None:
    with pytest.raises(ScenarioError, match=f"page_size is {size} bytes"):
        page_groups(LLAMA_8B, size)


def test_a_scenario_with_such_a_page_size_is_refused_at_its_place() -> None:
    with pytest.raises(ScenarioError) as refused:
        load_scenario(lone(None, page_size="1 MiB"))
    assert "instance.memory.page_size: there are no pages of 1048576 bytes" in str(refused.value)
    assert "64 KiB, 128 KiB, 256 KiB or 2 MiB" in str(refused.value)


def test_a_page_that_holds_no_token_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"64\.00 KiB does not hold the 128\.00 KiB of one token"):
        page_groups(KvShape(32, 4096, 2 * 32 * 4096), 64 * KIB, single_tensor=True)


def test_memory_below_one_group_is_refused_with_the_numbers() -> None:
    with pytest.raises(CapacityError, match=r"100\.00 MiB of KV, and a page group has 128\.00 MiB: 64 pages of 2"):
        VAttentionAllocator(MemorySurroundings(50, 16, 1 << 20, kv=LLAMA_8B))


def memory(groups: int, *, seqs: int = 4, size: int = 64 * KIB, spare_bytes: int = 0, **rest: Any) -> Any:
    """Of a model with 2 layers and 8 KiB rows: 8 tokens in a page of 64 KiB, 4 pages in a group."""
    kv = KvShape(2, 8192, 4 * 8192)
    parameters = VAttentionAllocator.Parameters(page_size=size, **{"watermark": 0.0, **rest})
    tokens = groups * (size // 8192)
    return VAttentionAllocator(MemorySurroundings(tokens, 1, 1 << 20, parameters, max_num_seqs=seqs, kv=kv))


def sequence(prompt: int, index: int = 0) -> Sequence:
    return Sequence(index, 0.0, prompt, 1000, 0, 0, 0, ())


def start(held: VAttentionAllocator, newcomer: Sequence, tokens: int | None = None) -> Sequence:
    """Admit it with so many tokens; with all of its prompt it decodes."""
    round_ = held.round()
    tokens = newcomer.prompt_tokens if tokens is None else tokens
    assert round_.admit(newcomer, tokens, alone=False)
    held.commit(round_)
    held.exposed()
    newcomer.kv_tokens = tokens
    if tokens == newcomer.prompt_tokens:
        newcomer.generated_tokens = 1
        held.join(newcomer)
    held.check_integrity()
    return newcomer


def end(held: VAttentionAllocator, sequence_: Sequence, steps: int = 0) -> None:
    """It ends ``steps`` steps after it began to decode."""
    sequence_.kv_tokens += steps
    held.leave(sequence_)
    held.release(sequence_)
    held.check_integrity()


def test_waste_of_1000_and_1025_tokens_in_pages_of_2_mib() -> None:
    held = VAttentionAllocator(MemorySurroundings(1024, 16, 1 << 20, kv=LLAMA_8B))
    assert (held.block_size, held.total_blocks) == (1024, 16)
    start(held, sequence(1000))
    assert held.used_blocks == 1 and held.reserved_tokens - held.stored_tokens == 24
    start(held, sequence(1025, 1))
    assert held.used_blocks == 3 and held.reserved_tokens - held.stored_tokens == 24 + 1023


def test_the_first_idle_slot_is_taken_unless_a_later_one_fits_with_fewer_pages() -> None:
    slots = Slots(4)
    slots.idle, slots.spare, slots.spare_groups = [0, 1, 3], [5, 3, 0, 4], 12
    assert slots.take(3) == 1  # 5, then 3, which suffice; 4 is more than 3
    slots.check_integrity()
    slots.idle, slots.spare, slots.spare_groups = [0, 1, 3], [0, 3, 0, 4], 7
    assert slots.take(3) == 0  # no pages at all, and yet nothing is smaller
    slots.idle, slots.spare, slots.spare_groups = [0, 1, 3], [5, 2, 0, 4], 11
    assert slots.take(3) == 3  # 2 do not suffice


def test_spare_groups_are_taken_back_from_the_highest_slot_down() -> None:
    slots = Slots(4)
    slots.spare, slots.spare_groups = [2, 3, 0, 1], 6
    slots.reclaim(3)
    assert slots.spare == [2, 1, 0, 0] and slots.spare_groups == 3
    with pytest.raises(SimulationError, match="1 page groups are needed"):
        slots.reclaim(4)


def test_a_finished_sequence_leaves_its_pages_to_the_next_in_its_slot() -> None:
    held = memory(10)
    first = start(held, sequence(24))  # 3 groups
    assert held.report()["waited_groups"] == 3
    end(held, first)
    assert held.used_blocks == 0 and held.slots.spare[0] >= 3
    start(held, sequence(16, 1))
    assert held.report()["waited_groups"] == 3 and held.report()["remapped_groups"] == 2
    assert held.used_blocks == 2 and held.slots.spare_groups == held.slots.spare[0] >= 1


def test_without_deferred_reclamation_pages_go_with_their_sequence() -> None:
    held = memory(10, deferred_reclamation=False)
    end(held, start(held, sequence(24)))
    assert held.slots.spare_groups == 0
    start(held, sequence(16, 1))
    assert held.report()["waited_groups"] == 5


def test_pages_of_idle_slots_are_free_for_whoever_needs_them() -> None:
    held = memory(6)
    one, two = start(held, sequence(20)), start(held, sequence(24, 1))
    end(held, one)
    end(held, two)
    assert held.slots.spare_groups == 6
    start(held, sequence(44, 2))  # all 6
    assert held.used_blocks == 6 and held.slots.spare_groups == 0
    assert held.report()["reclaimed_groups"] == 3
    assert held.report()["mapped_groups"] == 9


@pytest.mark.parametrize(("decoded", "spare"), [(0, 2), (6, 2), (7, 2), (8, 3)])
def test_the_background_maps_nine_steps_ahead(decoded: int, spare: int) -> None:
    """16 tokens to a group, one of them full: the next is needed at once, and the one after that 16 steps later."""
    held = memory(20, size=128 * KIB)
    newcomer = start(held, sequence(16))
    held.advance(decoded)
    end(held, newcomer, decoded)
    assert held.slots.spare[0] == spare


def test_no_more_than_two_groups_a_step_are_mapped_ahead() -> None:
    held = memory(100, seqs=40, size=128 * KIB)
    members = [start(held, sequence(24, index)) for index in range(20)]  # all need a group in 9 steps
    for one in members:
        end(held, one)
    assert held.slots.spare_groups == 20 * 2 + 2  # the background has had a step's time: two, when two were left


def test_the_slots_bound_who_is_admitted() -> None:
    held = memory(100, seqs=2)
    one = start(held, sequence(8))
    start(held, sequence(8, 1))
    round_ = held.round()
    assert not round_.admit(sequence(8, 2), 8, alone=False)
    round_.release(one, 8)
    assert round_.admit(sequence(8, 2), 8, alone=False) and not round_.admit(sequence(8, 3), 8, alone=False)


def test_one_percent_stays_free_when_a_request_is_admitted() -> None:
    held = memory(200, watermark=0.01)
    start(held, sequence(8 * 197))
    assert not held.round().admit(sequence(16, 1), 16, alone=False)
    assert held.round().admit(sequence(8, 1), 8, alone=False)


def lone(map_s: float | None, **memory_: Any) -> dict[str, Any]:
    """One request: a prefill step of 0.5 s, and 40 decode steps of 0.25 s."""
    given_map = {} if map_s is None else {"map_s": map_s}
    return {
        "model": "llama-3.1-8b",
        "instance": {
            "hardware": "h100-sxm",
            "max_model_len": 1024,
            "cost": {"law": "fixed", "prefill_s": 0.5, "decode_s": 0.25},
            "memory": {"allocator": "vattention", "num_blocks": 200, "page_size": "64 KiB", **given_map, **memory_},
        },
        "workload": {
            "arrivals": {"process": "closed_loop", "concurrency": 1},
            "lengths": {
                "prompt_tokens": {"distribution": "fixed", "value": 48},
                "output_tokens": {"distribution": "fixed", "value": 41},
            },
            "num_requests": 2,
        },
    }


def test_a_prefill_waits_for_its_pages_and_decoders_do_not() -> None:
    records = whole_runs.strided_equals_single(lone(0.001))
    times = records.requests
    assert times["first_token_s"][0] == pytest.approx(0.5 + 2 * 64 * 0.001)  # 2 groups of 2 x 32 pages
    assert times["finish_s"][0] == pytest.approx(0.628 + 40 * 0.25)
    assert times["first_token_s"][1] - times["arrival_s"][1] == pytest.approx(0.5)  # mapped already
    assert records.memory["mapping_wait_s"] == pytest.approx(0.128)
    assert not times["transfer_wait_s"].any()


def test_without_the_background_decoders_wait_at_each_boundary() -> None:
    records = whole_runs.strided_equals_single(lone(0.001, background_mapping=False))
    times = records.requests
    # 48 tokens in 2 groups, 88 in 3: one boundary
    assert times["finish_s"][0] == pytest.approx(0.628 + 40 * 0.25 + 64 * 0.001)
    rows = records.strides
    assert rows["steps"][:4].tolist() == [1, 16, 1, 23]
    assert rows["first_step_s"][2] == pytest.approx(0.314)
    assert records.memory["waited_groups"] == 3 and records.memory["remapped_groups"] == 3


def test_a_group_of_one_tensor_is_two_pages_and_maps_as_fast() -> None:
    records = whole_runs.run(lone(0.001, page_size="2 MiB", single_tensor=True))
    assert records.requests["first_token_s"][0] == pytest.approx(0.5 + 2 * 2 * 0.001)
    paper = whole_runs.run(lone(None))
    assert paper.memory["mapping_wait_s"] == pytest.approx(2 * 64 * MAP_S[64 * KIB])


def test_memory_that_comes_free_after_a_step_is_too_late_for_its_background() -> None:
    held = memory(5)
    first, second = start(held, sequence(13)), start(held, sequence(22, 1))  # 2 and 3 groups
    held.advance(2)
    assert held.used_blocks == 5 and held.steps_until_full(9) == 0  # the second needs a fourth group
    end(held, first, 2)
    assert held.stalls and held.steps_until_full(9) == 9
    held.exposed()
    assert held.report()["waited_groups"] == 5 + 1
    held.advance(1)
    second.kv_tokens += 3
    assert not held.stalls


def crowded(policy: str, **memory_: Any) -> dict[str, Any]:
    lengths = {"distribution": "lognormal", "median": 60, "sigma": 1.0, "max": 400}
    return {
        "model": "llama-3.1-8b",
        "instance": {
            "hardware": "h100-sxm",
            "max_model_len": 1024,
            "scheduler": {"policy": policy, "max_num_seqs": 16, "max_num_batched_tokens": 1024},
            "memory": {"allocator": "vattention", "num_blocks": 70, "page_size": "64 KiB", **memory_},
        },
        "workload": {
            "arrivals": {"process": "gamma", "rate_per_s": 40, "burstiness": 0.3},
            "lengths": {"prompt_tokens": lengths, "output_tokens": lengths},
            "num_requests": 60,
        },
    }


@pytest.mark.parametrize("policy", ["vllm_v1", "vllm_v0", "sglang", "sarathi", "past_future", "srpt", "fastserve"])
@pytest.mark.parametrize(
    "settings_", [{}, {"background_mapping": False, "single_tensor": True, "page_size": "2 MiB"}], ids=["plain", "bare"]
)
def test_tight_memory_stays_exact(policy: str, settings_: dict[str, Any]) -> None:
    records = whole_runs.strided_equals_single(crowded(policy, **settings_))
    assert records.memory["remapped_groups"] > 0
    if policy.startswith("vllm"):  # others are too cautious to run short
        assert records.memory["reclaimed_groups"] > 0
    assert records.memory["waited_groups"] <= records.memory["mapped_groups"]
    if settings_:
        assert records.memory["waited_groups"] == records.memory["mapped_groups"]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 30)), min_size=1, max_size=25),
    st.integers(4, 14),
    st.booleans(),
)
def test_groups_are_those_of_a_memory_that_counts_sequence_by_sequence(
    operations: list[tuple[int, int]], groups: int, deferred: bool
) -> None:
    """``k`` steps at once, k single ones, and a plain sum over sequences say the same."""
    memories = [memory(groups, deferred_reclamation=deferred) for _ in range(2)]
    rows: list[list[Sequence]] = []
    for index, (what, amount) in enumerate(operations):
        if what == 0 and rows:
            chosen = rows.pop(amount % len(rows))
            for held, one in zip(memories, chosen, strict=True):
                end(held, one)
        elif what == 1:
            if all(held.round().admit(sequence(amount), amount, alone=False) for held in memories):
                rows.append([start(held, sequence(amount, index)) for held in memories])
        elif rows:
            steps = memories[0].steps_until_full(amount)
            memories[0].advance(steps)
            for _ in range(steps):
                memories[1].advance(1)
            for one in (one for row in rows for one in row):
                one.kv_tokens += steps
        one, other = memories
        assert one.used_blocks == sum(-(-row[0].kv_tokens // 8) for row in rows)
        assert one.slots.spare == other.slots.spare and one.slots.idle == other.slots.idle
        assert one.report() == other.report()
        one.check_integrity()
        assert len(one.slots.idle) + len(rows) == 4
