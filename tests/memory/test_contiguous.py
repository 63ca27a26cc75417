"""Contiguous reservations: first fit, merging holes, and what they waste."""

from __future__ import annotations

from typing import Any

import pytest
import whole_runs
from hypothesis import given, settings
from hypothesis import strategies as st

from servsim.errors import SimulationError
from servsim.memory import ContiguousAllocator
from servsim.memory.surroundings import MemorySurroundings
from servsim.request import Sequence
from servsim.simulation import simulate


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


def reserving(slots: int, **parameters: Any) -> ContiguousAllocator:
    settings = ContiguousAllocator.Parameters(**parameters)
    return ContiguousAllocator(MemorySurroundings(slots, 1, 2048, settings))


def predicted(prompt: int, output: float, index: int = 0, declared: int = 500) -> Sequence:
    return Sequence(index, 0.0, prompt, declared, 0, 0, 0, (), output)


def decoding(memory: ContiguousAllocator, newcomer: Sequence) -> Sequence:
    """Admitted and prefilled whole, with its first token out."""
    assert admit(memory, newcomer, newcomer.prompt_tokens)
    newcomer.generated_tokens = 1
    newcomer.decoding = True
    memory.join(newcomer)
    return newcomer


@pytest.mark.parametrize(
    ("reserve", "placement", "slots"),
    [
        ("max", "first_fit", 2048),
        ("declared", "first_fit", 600),
        ("pow2", "first_fit", 164),
        ("oracle", "first_fit", 160),
        ("predicted", "first_fit", 160),
        ("max", "buddy", 2048),
        ("pow2", "buddy", 256),
        ("oracle", "buddy", 256),
    ],
)
def test_what_100_and_60_tokens_reserve(reserve: str, placement: str, slots: int) -> None:
    memory = reserving(4096, reserve=reserve, placement=placement)
    newcomer = decoding(memory, predicted(100, 60.0))
    memory.advance(59)
    assert memory.reserved_tokens == slots and memory.stored_tokens == 159
    memory.leave(newcomer)
    newcomer.kv_tokens = 159
    memory.release(newcomer)
    told = memory.report()
    assert told["released_tokens_reserved"] == slots and told["released_tokens_unused"] == slots - 159
    assert told["relocations"] == 0
    if reserve == "max":
        assert round(100 * (1 - 160 / slots)) == 92


def test_who_outgrows_a_prediction_moves_and_its_output_share_doubles() -> None:
    memory = reserving(40, reserve="predicted")
    first, second = decoding(memory, predicted(10, 4.0)), decoding(memory, predicted(10, 8.0, 1))
    assert (first.held, second.held) == ((0, 14), (14, 18))
    assert memory.steps_until_full(100) == 4
    memory.advance(4)
    assert memory.steps_until_full(100) == 0  # 8 slots at the end, and 14 of its own, but 18 are asked for
    assert memory.blocks_after(1) > memory.total_blocks
    assert not memory.round().grow_decoders() and not memory.round().grow(first, 14)
    assert memory.round().grow(second, 14)
    with pytest.raises(SimulationError, match="request 0"):
        memory.advance(1)


def test_a_victim_makes_room_for_who_outgrew_its_extent() -> None:
    memory = reserving(40, reserve="predicted")
    first, second = decoding(memory, predicted(10, 4.0)), decoding(memory, predicted(10, 8.0, 1))
    memory.advance(4)
    round_ = memory.round()
    assert not round_.grow(first, 14)
    round_.release(second, 14)
    assert round_.grow(first, 14)
    memory.leave(second)
    second.kv_tokens, second.decoding = 14, False
    memory.commit(round_)
    memory.advance(1)
    memory.check_integrity()
    assert first.held == (0, 18) and memory.stored_tokens == 15
    assert memory.report()["relocations"] == 1 and memory.report()["relocated_tokens"] == 14
    second.kv_tokens, second.generated_tokens = 0, 5
    assert memory.reservation(second, second.total_tokens + 1) == 18  # room for one more at the least
    second.generated_tokens = 8
    assert memory.reservation(second, second.total_tokens + 1) == 26


def test_a_lone_sequence_may_use_all_memory_whatever_was_predicted() -> None:
    memory = reserving(40, reserve="pow2")
    assert memory.fits(40) and not memory.fits(41)
    lone = decoding(memory, predicted(10, 3.0))
    for _ in range(30):
        assert memory.steps_until_full(1) == 1
        memory.advance(1)
        memory.check_integrity()
    assert lone.held == (0, 40) and memory.stored_tokens == 40
    assert memory.steps_until_full(1) == 0


def test_who_asks_first_does_not_decide_who_fits() -> None:
    memory = reserving(100, reserve="predicted")
    members = [decoding(memory, predicted(10, 2.0, index)) for index in range(5)]
    memory.advance(2)
    whole, one_by_one = memory.round(), memory.round()
    assert whole.grow_decoders()
    assert all(one_by_one.grow(one, 12) for one in reversed(members))
    assert whole.moved == one_by_one.moved and whole.free.extents() == one_by_one.free.extents()
    assert [one.held for one in members] == [(start, 12) for start in range(0, 60, 12)]  # drafts
    blocks = memory.blocks_after(1)
    memory.advance(1)
    assert {one: one.held for one in members} == whole.moved and blocks == memory.used_blocks == 70


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 9)), min_size=1, max_size=6),
    st.integers(40, 160),
    st.sampled_from(["first_fit", "buddy"]),
    st.sampled_from(["pow2", "predicted"]),
)
def test_many_steps_at_once_are_as_many_single_ones(
    lengths: list[tuple[int, int]], slots: int, placement: str, reserve: str
) -> None:
    """Against a memory that asks a round for every step, and never looks ahead."""
    memories = [reserving(slots, reserve=reserve, placement=placement) for _ in range(2)]
    for memory in memories:
        for index, (prompt, output) in enumerate(lengths):
            if memory.round().admit(newcomer := predicted(prompt, output, index), prompt, alone=False):
                decoding(memory, newcomer)
    ahead, single = memories
    for _ in range(40):
        steps = ahead.steps_until_full(7)
        after = ahead.blocks_after(max(1, steps))
        for _ in range(steps):
            round_ = single.round()
            assert round_.grow_decoders()
            single.commit(round_)
            single.advance(1)
        if not steps:
            assert after > ahead.total_blocks and not single.round().grow_decoders()
            break
        ahead.advance(steps)
        assert after == ahead.used_blocks
        assert ahead.free.extents() == single.free.extents()
        assert (ahead.stored_tokens, ahead.reserved_tokens) == (single.stored_tokens, single.reserved_tokens)
        assert ahead.report() == single.report()
        ahead.check_integrity()


def crowded(policy: str, predictor: Any = "oracle", **memory: Any) -> dict[str, Any]:
    lengths = {"distribution": "lognormal", "median": 60, "sigma": 1.0, "max": 400}
    return {
        "model": "llama-3.1-8b",
        "instance": {
            "hardware": "h100-sxm",
            "max_model_len": 1024,
            "scheduler": {
                "policy": policy, "max_num_seqs": 16, "max_num_batched_tokens": 1024, "predictor": predictor
            },
            "memory": {"allocator": "contiguous", **memory},
        },
        "workload": {
            "arrivals": {"process": "gamma", "rate_per_s": 40, "burstiness": 0.3},
            "lengths": {"prompt_tokens": lengths, "output_tokens": lengths},
            "num_requests": 60,
        },
    }  # fmt: skip


NOISE = {"name": "lognormal_noise", "sigma": 1.0}


@pytest.mark.parametrize("policy", ["vllm_v1", "vllm_v0", "sglang", "sarathi", "past_future", "srpt", "fastserve"])
@pytest.mark.parametrize("placement", ["first_fit", "buddy"])
def test_wrong_predictions_in_tight_memory_stay_exact(policy: str, placement: str) -> None:
    scenario = crowded(policy, NOISE, reserve="predicted", placement=placement, num_blocks=55)
    records = whole_runs.strided_equals_single(scenario)
    assert records.memory["relocations"] > 0
    assert records.strides["steps"].max() > 1
    assert set(records.requests["status"].tolist()) <= {0, 1}


@pytest.mark.parametrize("reserve", ["max", "declared", "oracle"])
def test_a_right_reservation_preempts_nobody_and_moves_nothing(reserve: str) -> None:
    records = whole_runs.run(crowded("vllm_v1", reserve=reserve, num_blocks=130))
    assert not records.requests["preemptions"].any() and records.memory["relocations"] == 0
    assert records.memory["released_extents"] == 60


def test_shorter_reservations_let_more_requests_run() -> None:
    together = [
        simulate(crowded("vllm_v1", reserve=reserve, num_blocks=130)).strides["decode_seqs"].max()
        for reserve in ("max", "pow2", "oracle")
    ]
    assert together[0] == 2 and together[0] < together[1] < together[2]


def test_broken_books_are_our_bug() -> None:
    memory, _ = filled(128, 32)
    memory.reserved_tokens = 64
    with pytest.raises(SimulationError, match="0 free \\+ 64 reserved slots of 128"):
        memory.check_integrity()
