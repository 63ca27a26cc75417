"""KV below the device: written back, evicted, fetched, and all of it exact in strides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import simpy
from cached_runs import (
    BLOCK_BYTES,
    KV,
    Asked,
    Run,
    Scene,
    link,
    one_after_the_other,
    same_bits,
    scenes,
    tier,
)
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from test_prefix_blocks import SIZE, finish, preempt, prefill, sequence

from servsim.errors import CapacityError, SimulationError
from servsim.hardware import Tier
from servsim.memory.prefix_blocks import PrefixBlocksAllocator
from servsim.memory.surroundings import MemorySurroundings
from servsim.memory.tiers_store import Kept, TierStore

# A block is 400 bytes and goes over the link in 0.05 s.
A, C, B = Asked(0.0, 13, 1, (1, 2, 3, 4)), Asked(10.0, 16, 1), Asked(20.0, 13, 1, (1, 2, 3, 4))
REVISITED = Scene((A, C, B), num_blocks=5, tiers=(tier(20),))
"""C drives A's blocks off the device, and B wants three of them again."""


def allocator(usable_blocks: int, *tiers: Tier, **parameters: Any) -> tuple[simpy.Environment, PrefixBlocksAllocator]:
    env = simpy.Environment()
    own = PrefixBlocksAllocator.Parameters(**parameters)
    surroundings = MemorySurroundings(
        usable_blocks + 1, SIZE, 1 << 20, own, kv=KV, tokens_per_hash=SIZE, tiers=tiers, env=env
    )
    return env, PrefixBlocksAllocator(surroundings)


@pytest.mark.parametrize(
    ("fetch", "first_token_s", "waited_s"),
    [
        ("async", 20.40, 0.15),  # three blocks come, then the step begins
        ("blocking", 20.40, 0.15),
        ("layers", 20.325, 0.075),  # 0.25 s of computation, and half of the copy before its second layer
    ],
)
def test_what_the_device_has_lost_is_fetched_from_the_tier(fetch: str, first_token_s: float, waited_s: float) -> None:
    run = Run(replace(REVISITED, settings={"fetch": fetch}))
    records = run.run(run.memory.check_integrity)
    assert records.requests["cached_tokens"].tolist() == [0, 0, 12]
    assert records.requests["first_token_s"][2] == pytest.approx(first_token_s, abs=1e-12)
    assert records.requests["transfer_wait_s"].tolist() == pytest.approx([0, 0, waited_s], abs=1e-12)
    told = records.memory
    assert told["hit_tokens"] == told["hit_tokens_cpu"] == 12
    assert told["copied_in_bytes_cpu"] == 3 * BLOCK_BYTES
    assert told["copied_out_bytes_cpu"] == (3 + 4) * BLOCK_BYTES  # of B nothing: the tier has it
    assert told["evicted_blocks"] == 3


@pytest.mark.parametrize("policy", ["fastserve", "priority_trace", "vllm_v0"])
def test_policies_that_swap_compute_the_rest_when_the_fetched_part_is_there(policy: str) -> None:
    records = Run(replace(REVISITED, policy=policy)).run()
    assert records.requests["cached_tokens"].tolist() == [0, 0, 12]
    assert records.requests["first_token_s"][2] == pytest.approx(20.40, abs=1e-12)


def test_a_refused_head_is_asked_again_when_a_copy_has_made_room() -> None:
    late = Asked(10.25, 13, 1)  # when C has ended; it finds no room until C's blocks are written to the tier
    scene = Scene((C, late), num_blocks=6, policy="priority_trace", tiers=(tier(20),))
    records = Run(scene).run()
    assert records.requests["scheduled_s"][1] == pytest.approx(10.25 + 0.20, abs=1e-12)


def test_a_fetch_from_the_second_tier_goes_through_the_first() -> None:
    scene = replace(REVISITED, tiers=(tier(4), tier(20, name="ssd")))  # C takes all of the first
    records = Run(scene).run()
    assert records.requests["first_token_s"][2] == pytest.approx(20 + 2 * 0.15 + 0.25, abs=1e-12)
    told = records.memory
    assert told["hit_tokens_ssd"] == 12 and told["hit_tokens_cpu"] == 0
    assert told["copied_in_bytes_ssd"] == told["copied_in_bytes_cpu"] == 3 * BLOCK_BYTES
    assert told["evicted_blocks_cpu"] == 3 + 3  # A's by C's; of C's those that make room for B's


def test_a_fetch_without_room_in_the_first_tier_passes_through() -> None:
    env, memory = allocator(12, tier(3), tier(40, name="ssd"))
    old, pinning = sequence(0, 13, (1, 2, 3)), sequence(1, 12)
    prefill(memory, old)
    finish(memory, old)
    env.run()
    prefill(memory, pinning)
    finish(memory, pinning)
    env.run(until=env.now + 0.16)  # the first tier is full of what is on its way to the second
    fillers = [sequence(2, 3 + 9 * 4)]
    prefill(memory, *fillers)
    again = sequence(3, 13, (1, 2, 3))
    assert memory.cached_tokens(again) == 12
    finish(memory, fillers[0])
    memory.check_integrity()
    env.run()
    memory.check_integrity()
    assert memory.report()["refused_blocks_cpu"] > 0


@pytest.mark.parametrize(("bytes_per_s", "hit"), [(8000, 12), (4801, 12), (4800, 0), (1000, 0)])
def test_auto_fetches_what_is_copied_faster_than_computed(bytes_per_s: float, hit: int) -> None:
    """1,200 bytes against a prefill of 0.25 s; a tie is computed."""
    scene = replace(REVISITED, tiers=(tier(20, bytes_per_s),), settings={"fetch_or_recompute": "auto"})
    assert Run(scene).run().requests["cached_tokens"][2] == hit


def test_recompute_leaves_what_the_tier_has() -> None:
    records = Run(replace(REVISITED, settings={"fetch_or_recompute": "recompute"})).run()
    assert records.requests["cached_tokens"][2] == 0


@pytest.mark.parametrize(("granularity", "operations"), [("groups", 4), ("blocks", 12)])
def test_every_copy_is_launched(granularity: str, operations: int) -> None:
    """Keys and values of two layers, for three adjacent blocks together or for each."""
    scene = replace(REVISITED, tiers=(tier(20, launch_s=0.01),), settings={"copy_granularity": granularity})
    assert Run(scene).run().requests["transfer_wait_s"][2] == pytest.approx(0.15 + operations * 0.01, abs=1e-12)


def test_one_that_ended_holds_its_blocks_until_they_are_written() -> None:
    env, memory = allocator(6, tier(20))
    one = sequence(0, 9, (1, 2))
    prefill(memory, one)
    finish(memory, one)
    assert (memory.used_blocks, memory.transfers) == (3, 1)
    assert memory.cached_tokens(sequence(1, 9, (1, 2))) == 8
    env.run(until=0.0999)
    assert memory.used_blocks == 3
    env.run()
    memory.check_integrity()
    assert (memory.used_blocks, memory.stored_tokens, memory.transfers) == (0, 0, 0)


def test_one_that_is_preempted_frees_its_blocks_and_the_next_step_waits_for_the_copy() -> None:
    env, memory = allocator(3, tier(20))
    one = sequence(0, 9)
    prefill(memory, one)
    preempt(memory, one)
    assert memory.used_blocks == 0
    (wait,) = memory.exposed()
    ended: list[float] = []
    wait.on_end(lambda: ended.append(env.now))
    env.run()
    assert (wait.sequence, ended) == (one, [0.1])
    assert memory.exposed() == []
    other = sequence(1, 12)
    prefill(memory, other)
    finish(memory, other)
    env.run()
    began_s = env.now
    round_ = memory.round()
    assert round_.lacking(one) == 2
    assert round_.admit(one, 2, alone=True)
    memory.commit(round_)
    assert list(memory.loading) == [one] and one.kv_tokens == 8 and memory.used_blocks == 2
    assert memory.round().extend(one, 2)  # it has no part in a step yet, whoever asks
    env.run()
    assert env.now == pytest.approx(began_s + 0.1)
    assert memory.loaded() == [one] and not memory.loading
    memory.check_integrity()


def test_preempted_while_it_waits_for_its_blocks_it_gives_them_up() -> None:
    env, memory = allocator(4, tier(20))
    one, other = sequence(0, 13, (1, 2, 3)), sequence(1, 16)
    for each in (one, other):
        prefill(memory, each)
        finish(memory, each)
        env.run()
    again = sequence(2, 13, (1, 2, 3))
    round_ = memory.round()
    assert round_.admit(again, round_.lacking(again), alone=True)
    memory.commit(round_)
    env.run(until=env.now + 0.07)
    assert memory.transfers == 1
    round_ = memory.round()
    round_.release(again, again.kv_tokens)
    memory.commit(round_)
    again.kv_tokens = 0
    memory.check_integrity()
    assert (memory.used_blocks, memory.transfers, memory.stored_tokens) == (0, 0, 0)
    env.run()
    assert memory.loaded() == []
    assert memory.cached_tokens(again) == 12  # the tier has it still


POLICIES = ["fcfs", "sjf", "srpt", "sglang", "sarathi", "past_future", "priority_trace", "fastserve"]


@pytest.mark.parametrize("policy", ["fcfs", "sjf", "srpt", "sarathi"])
def test_with_a_tier_a_preemption_is_a_swap(policy: str) -> None:
    requests = (Asked(0.0, 12, 20), Asked(0.0, 12, 20))
    with_tier = Scene(requests, num_blocks=9, policy=policy, tiers=(tier(40, 80_000.0),))
    swapped = Run(with_tier).run()
    assert swapped.requests["preemptions"].sum() > 0
    assert swapped.memory["copied_in_bytes_cpu"] > 0
    assert swapped.memory["rehit_tokens"] > 0
    assert swapped.requests["transfer_wait_s"].max() > 0


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.tuples(st.lists(st.integers(0, 9), unique=True, max_size=6), st.integers(0, 5)), max_size=25), st.data()
)
def test_a_tier_never_holds_more_than_it_can(prefixes: list[tuple[list[int], int]], data: Any) -> None:
    capacity = data.draw(st.integers(1, 12))
    store = TierStore(capacity)
    own: list[Kept | None] = [None, None]
    under_way: list[tuple[Kept, int]] = []
    for keys, own_blocks in prefixes:
        whose = len(keys) % 2
        lacking = sum(store.find(key) is None for key in keys)
        new, own[whose] = store.keep(keys, own[whose], own_blocks)
        under_way += [(kept, kept.arriving[-1]) for _, kept in new]
        assert sum(kept.key is not None for _, kept in new) <= lacking
        while under_way and data.draw(st.booleans()):
            store.arrived(*under_way.pop(0))
        store.check_integrity("cpu")
        for kept, _ in under_way:
            assert kept.blocks  # not evicted


def test_the_least_recent_prefix_goes_first_and_from_its_end() -> None:
    store = TierStore(5)
    for keys in ([1, 2, 3], [7, 8], [1, 2, 3]):
        for _, kept in store.keep(keys, None, 0)[0]:
            store.arrived(kept, 0)
    for expected, key in (([1, 2, 3, 7], 20), ([1, 2, 3], 21), ([1, 2], 22)):
        for _, kept in store.keep([key], None, 0)[0]:
            store.arrived(kept, 0)
        assert [one for one in (1, 2, 3, 7, 8) if store.find(one)] == expected


def test_a_prefix_that_is_too_long_is_kept_from_its_front() -> None:
    store = TierStore(4)
    new, own = store.keep([1, 2, 3], None, 5)
    assert [place for place, _ in new] == [0, 1, 2, 3]
    assert own is not None and own.blocks == 1
    store.check_integrity("cpu")


@st.composite
def tiers(draw: Any) -> tuple[Tier, ...]:
    first = tier(
        draw(st.sampled_from([1, 6, 20, 200])),
        draw(st.sampled_from([200.0, 1000.0, 8000.0, 1e6])),
        launch_s=draw(st.sampled_from([0.0, 0.001])),
        duplex=draw(st.sampled_from(["full", "half"])),
    )
    if draw(st.booleans()):
        return (first,)
    second = link(draw(st.sampled_from([400.0, 4000.0, 40_000.0])), latency_s=0.01, queue_depth=draw(st.integers(1, 3)))
    return (first, Tier("ssd", "remote", draw(st.sampled_from([2, 30, 400])) * BLOCK_BYTES, second))


@st.composite
def scenes_with_tiers(draw: Any, policy: str) -> Scene:
    scene: Scene = draw(scenes(policy))
    own = {
        "fetch": draw(st.sampled_from(["async", "async", "layers", "blocking"])),
        "fetch_or_recompute": draw(st.sampled_from(["fetch", "fetch", "auto"])),
        "copy_granularity": draw(st.sampled_from(["blocks", "groups"])),
    }
    return replace(scene, tiers=draw(tiers()), settings=scene.settings | own)


@pytest.mark.parametrize("policy", POLICIES)
def test_strides_and_single_steps_are_equal_to_the_bit_with_transfers_in_flight(policy: str) -> None:
    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(scenes_with_tiers(policy))
    def hold(scene: Scene) -> None:
        strided = Run(scene)
        records = strided.run(strided.memory.check_integrity)
        same_bits(records, Run(scene, single=True).run())
        memory = strided.memory
        assert (memory.used_blocks, memory.stored_tokens, memory.transfers) == (0, 0, 0)

    hold()


@pytest.mark.parametrize("policy", ["fcfs", "sglang", "sarathi"])
def test_planning_leaves_no_trace(policy: str) -> None:
    @settings(max_examples=25, deadline=None, derandomize=True, database=None)
    @given(scenes_with_tiers(policy))
    def hold(scene: Scene) -> None:
        run = Run(scene)
        plan = run.instance.policy.plan

        def twice(now_s: float) -> Any:
            first, second = plan(now_s), plan(now_s)
            assert first._replace(round=None) == second._replace(round=None)
            return second

        run.instance.policy.plan = twice  # type: ignore[method-assign]
        same_bits(run.run(), Run(scene).run())

    hold()


@pytest.mark.parametrize(
    "event",
    ["preempted", "waited for a copy", "hit below the device", "hit in the second tier", "found again", "no room"],
)
def test_the_drawn_scenes_reach(event: str) -> None:
    class FoundError(Exception):
        pass

    @settings(max_examples=600, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
    @given(scenes_with_tiers("fcfs"))
    def search(scene: Scene) -> None:
        records = Run(scene).run()
        happened = {
            "preempted": records.requests["preemptions"].any(),
            "waited for a copy": (records.requests["transfer_wait_s"] > 0).any(),
            "hit below the device": records.memory["hit_tokens_cpu"] > 0,
            "hit in the second tier": records.memory.get("hit_tokens_ssd", 0) > 0,
            "found again": records.memory["rehit_tokens"] > 0,
            "no room": records.memory["refused_blocks_cpu"] > 0,
        }
        if happened[event]:
            raise FoundError

    with pytest.raises(FoundError):
        search()


@pytest.mark.parametrize("which", ["cpu", "ssd"])
def test_without_overlap_a_larger_tier_never_finds_less(which: str) -> None:
    @settings(max_examples=15, deadline=None, derandomize=True, database=None)
    @given(st.data())
    def hold(data: Any) -> None:
        requests = one_after_the_other(data.draw)
        longest = max(-(-(one.prompt + one.output) // SIZE) for one in requests)
        before: list[int] = []
        for blocks in (1, 4, 9, 20, 60, 500):
            below = (tier(blocks),) if which == "cpu" else (tier(12), tier(blocks, name="ssd"))
            run = Run(Scene(requests, num_blocks=longest + 1, max_num_batched_tokens=2000, tiers=below))
            hits = run.run().requests["cached_tokens"].tolist()
            assert all(hit >= old for hit, old in zip(hits, before or hits, strict=True))
            before = hits

    hold()


def test_a_tier_that_holds_no_block_is_named() -> None:
    with pytest.raises(CapacityError, match="the tier 'cpu' of 399 bytes does not hold one block of 400 bytes"):
        allocator(4, Tier("cpu", "cpu", BLOCK_BYTES - 1, link()))


def test_a_tier_counts_the_shares_of_all_devices() -> None:
    two = MemorySurroundings(5, SIZE, 100, kv=replace(KV, devices=2))
    memory = PrefixBlocksAllocator(replace(two, tiers=(tier(9),), env=simpy.Environment()))
    assert memory._tiers is not None
    assert memory._tiers.stores[0].total_blocks == 4


def test_broken_books_are_our_bug() -> None:
    store = TierStore(4)
    store.keep([1, 2], None, 0)
    store.used_blocks = 1
    with pytest.raises(SimulationError, match="the tier cpu counts 1 blocks of 4 and 2 pinned, but holds 2 and 2"):
        store.check_integrity("cpu")
