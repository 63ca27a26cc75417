"""FastSwitch's workload: priorities change, and whoever falls out of the top set makes room."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from assembly import Assembly
from case import Asked, Case
from drawn import cases
from hardened import hardened, strides_are_exact
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from servsim import registry
from servsim.cost.fixed import FixedCost
from servsim.memory import PagedAllocator
from servsim.memory.surroundings import MemorySurroundings
from servsim.request import Sequence
from servsim.scheduler import Running, Surroundings
from servsim.scheduler.host_copies import CopyParameters, HostCopies
from servsim.scheduler.urgency.priority_trace import PriorityTrace, _neighbours


class Told:
    """A stream that draws what it is told to, and 0.5 then."""

    def __init__(self, *drawn: float) -> None:
        self.drawn = list(drawn)

    def random(self, count: int | None = None) -> Any:
        if count is None:
            return self.drawn.pop(0) if self.drawn else 0.5
        return np.array([self.random() for _ in range(count)])


def policy_of(stream: Any, **parameters: Any) -> Any:
    kind = hardened(PriorityTrace, PriorityTrace.Parameters(**parameters), kv_bytes=1)
    return lambda surroundings: kind(replace(surroundings, stream=lambda name: stream))


def run(case: Case, policy: Any) -> Any:
    registry._registered["schedulers"]["hardened"] = policy
    try:
        return Assembly(replace(case, policy="hardened")).run().requests
    finally:
        del registry._registered["schedulers"]["hardened"]


TWO = Case((Asked(0.0, 4, 40, 40), Asked(0.0, 4, 10, 10)), FixedCost(0.25, 0.125), max_num_seqs=1)


def copies(**parameters: Any) -> dict[str, Any]:
    """A block of 16 bytes takes 1/2 s one way."""
    return {"copy_bandwidth_gb_per_s": 32e-9, "copy_launch_s": 0.0, **parameters}


def test_priorities_change_after_25_decode_steps_and_the_loser_is_swapped_out_and_back() -> None:
    # At arrival 0 goes first; at the update 1 does; at the next one (never reached by 1) nothing changes.
    rows = run(TWO, policy_of(Told(0.1, 0.9, 0.9, 0.1), **copies()))
    # 0: prefill, 25 steps, 26 tokens, 29 stored in two blocks: out, 1 s. 1: prefill and 9 steps.
    first_end = 0.25 + 25 * 0.125 + 1.0 + 0.25 + 9 * 0.125
    assert rows["finish_s"].tolist() == [first_end + 1.0 + 14 * 0.125, first_end]
    assert rows["preemptions"].tolist() == [1, 0]
    assert rows["transfer_wait_s"].tolist() == [1.0, 0.0]


def test_with_recomputation_the_loser_prefills_again() -> None:
    rows = run(TWO, policy_of(Told(0.1, 0.9, 0.9, 0.1), **copies(preemption="recompute")))
    first_end = 0.25 + 25 * 0.125 + 0.25 + 9 * 0.125
    assert rows["finish_s"].tolist() == [first_end + 0.25 + 13 * 0.125, first_end]


def test_a_full_swap_space_recomputes_too() -> None:
    rows = run(TWO, policy_of(Told(0.1, 0.9, 0.9, 0.1), **copies(swap_space_gib=16 / 2**30)))
    assert rows["finish_s"][0] == rows["finish_s"][1] + 0.25 + 13 * 0.125


def test_half_the_frequency_changes_them_after_50_steps() -> None:
    rows = run(TWO, policy_of(Told(0.1, 0.9, 0.9, 0.1), **copies(updates_per_iteration=0.02)))
    assert rows["finish_s"].tolist() == [0.25 + 39 * 0.125, 0.25 + 39 * 0.125 + 0.25 + 9 * 0.125]


def test_it_is_fcfs_with_one_level() -> None:
    fcfs = run(TWO, registry.resolve("schedulers", "fcfs"))
    alike = run(TWO, policy_of(Told(), levels=1))
    assert fcfs["finish_s"].tolist() == alike["finish_s"].tolist()


def test_a_newcomer_with_a_higher_priority_displaces_nobody_before_the_update() -> None:
    case = replace(TWO, requests=(Asked(0.0, 4, 20, 20), Asked(0.3, 4, 1, 1)))
    rows = run(case, policy_of(Told(0.9, 0.1)))
    assert rows["scheduled_s"][1] == 0.25 + 19 * 0.125


def test_a_markov_chain_keeps_or_moves_to_a_neighbour() -> None:
    down_and_up = np.array([False, True])
    for level, levels, beside in ((0, 8, [1, 1]), (7, 8, [6, 6]), (3, 8, [2, 4]), (0, 1, [0, 0])):
        assert _neighbours(np.array([level, level]), down_and_up, levels).tolist() == beside
    policy = policy_of(Told(), pattern="markov")(_surroundings())
    sequences = [Sequence(number, 0.0, 4, 4, 0, 0, 0, ()) for number in range(4000)]
    policy._stream = np.random.default_rng(0)
    for one in sequences:
        policy.add(one)
    before = policy._line.levels
    policy._update()
    moved = policy._line.levels - before
    assert set(np.abs(moved).tolist()) == {0, 1}
    assert (moved == 0).mean() == pytest.approx(0.8, abs=0.03)


def _surroundings(kv_bytes: int = 0, block_size: int = 16) -> Surroundings:
    memory = PagedAllocator(MemorySurroundings(1000, block_size, 1000))
    return Surroundings(Running(), memory, 4, 2048, None, lambda name: None, kv_bytes_per_token=kv_bytes)  # type: ignore[arg-type, return-value]


def test_block_by_block_copies_take_as_long_as_worked_by_hand() -> None:
    # 2,000 tokens of 128 KiB, 25 GB/s: 21.0 ms both ways, and 80 ms for 16,000 launches of 5 us.
    surroundings = _surroundings(kv_bytes=128 * 1024)
    copying = 2 * HostCopies(surroundings, CopyParameters(copy_launch_s=0.0)).copy_s(125)
    assert copying == pytest.approx(21.0e-3, rel=2e-3)
    launched = 2 * HostCopies(surroundings, CopyParameters()).copy_s(125)
    assert launched == pytest.approx(101e-3, rel=2e-3)
    grouped = 2 * HostCopies(surroundings, CopyParameters(blocks_per_copy=25)).copy_s(125)
    assert grouped - copying == pytest.approx(80e-3 / 25)


@examples(25)
@given(cases(), st.data())
def test_strides_are_exact_and_nothing_is_lost(case: Case, data: Any) -> None:
    draw = data.draw
    settings = PriorityTrace.Parameters(
        pattern=draw(st.sampled_from(["random", "markov"])),
        levels=draw(st.sampled_from([1, 2, 8])),
        updates_per_iteration=draw(st.sampled_from([1, 0.3, 0.1, 0.04])),
        preemption=draw(st.sampled_from(["swap", "recompute"])),
        swap_space_gib=draw(st.sampled_from([0, 20, 60, 1000])) / 2**30,
    )
    for one in strides_are_exact(case, hardened(PriorityTrace, settings, kv_bytes=draw(st.sampled_from([0, 1])))):
        assert one.swap.used_blocks == 0
