"""FastServe: levels that are joined, sunk through and left again; and whose KV is moved."""

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
from servsim.request import Sequence
from servsim.scheduler.lengths.fastserve import FastServe
from servsim.scheduler.lengths.feedback_queue import FeedbackQueue, Place, join_level

MS = 1e-3


@pytest.mark.parametrize(("first_ms", "level"), [(35, 2), (8, 0), (20, 1), (10, 0), (80.1, 4)])
def test_a_job_joins_the_first_level_whose_quantum_covers_its_first_iteration(first_ms: float, level: int) -> None:
    assert join_level(first_ms * MS, 10 * MS) == level


def started(queue: FeedbackQueue, number: int, first_s: float, now_s: float) -> Any:
    job = queue.join(Sequence(number, now_s, 10, 10, 0, 0, 0, ()), first_s)
    queue.move(job, Place.RUNNING)
    queue.serve(job, now_s)
    return job


def test_a_job_is_demoted_when_it_was_charged_more_than_its_quantum() -> None:
    queue = FeedbackQueue(10 * MS)
    job = started(queue, 0, 35 * MS, 0.0)
    for now_ms, level in ((35, 2), (38, 2), (41, 3), (44, 3), (121, 3), (122, 4)):
        queue.advance(now_ms * MS)
        assert job.level == level
    assert job.charged_s == 0.0


def test_a_job_sinks_one_level_however_long_the_iteration() -> None:
    queue = FeedbackQueue(10 * MS)
    job = started(queue, 0, 0.0, 0.0)
    queue.advance(1.0)
    assert job.level == 1


def test_a_job_that_rests_keeps_what_it_was_charged() -> None:
    queue = FeedbackQueue(10 * MS)
    job = started(queue, 0, 0.0, 0.0)
    queue.advance(6 * MS)
    queue.rest(job, 6 * MS)
    queue.advance(1.0)
    queue.serve(job, 1.0)
    queue.advance(1.0 + 3 * MS)
    assert job.level == 0
    queue.advance(1.0 + 5 * MS)
    assert job.level == 1


def test_those_who_are_stalled_are_not_charged_and_those_who_stall_them_are() -> None:
    queue = FeedbackQueue(10 * MS)
    stalled = started(queue, 0, 0.0, 0.0)
    new = queue.join(Sequence(1, 0.0, 10, 10, 0, 0, 0, ()), 0.0)
    queue.advance(5 * MS)
    queue.move(new, Place.RUNNING)
    queue.stall([new], 5 * MS)
    queue.advance(17 * MS)
    assert (stalled.level, new.level) == (0, 1)
    queue.advance(23 * MS)
    assert stalled.level == 1  # 5 + 6 ms


def test_demoted_jobs_go_to_the_front_of_their_new_level_in_their_order() -> None:
    queue = FeedbackQueue(10 * MS)
    old = started(queue, 0, 15 * MS, 0.0)
    first, second = started(queue, 1, 0.0, 0.0), started(queue, 2, 0.0, 0.0)
    queue.advance(11 * MS)
    assert [job for _, _, job in queue.started] == [first, second, old]


def test_starving_jobs_go_to_the_first_level_and_end_up_in_reverse() -> None:
    queue = FeedbackQueue(10 * MS)
    waiting = [queue.join(Sequence(number, 0.0, 10, 10, 0, 0, 0, ()), 15 * MS) for number in range(3)]
    late = queue.join(Sequence(3, 2.0, 10, 10, 0, 0, 0, ()), 15 * MS)
    queue.advance(3.0)
    assert queue.promote(3.0, 3.0)
    assert [job for _, _, job in queue.fresh] == [*waiting[::-1], late]  # late is starved since its arrival only
    assert [job.level for job in (*waiting, late)] == [0, 0, 0, 1]


def run(case: Case, policy: Any) -> Any:
    registry._registered["schedulers"]["hardened"] = policy
    try:
        return Assembly(replace(case, policy="hardened")).run()
    finally:
        del registry._registered["schedulers"]["hardened"]


def finishes(case: Case, policy: Any) -> list[float]:
    return run(case, policy).requests["finish_s"].tolist()  # type: ignore[no-any-return]


def test_a_short_newcomer_overtakes_a_long_job_that_has_sunk_as_fcfs_never_lets_it() -> None:
    # One place, steps of 1/8 s, prefills of 1/4 s. The long one has sunk from level 0 (quantum 0.3 s) when, at 0.6 s,
    # the short one comes: it joins level 0, and goes at the next boundary.
    case = Case((Asked(0.0, 4, 20, 20), Asked(0.6, 4, 3, 3)), FixedCost(0.25, 0.125), max_num_seqs=1)
    policy = hardened(FastServe, FastServe.Parameters(quantum_s=0.3))
    # 0.625: prefill to 0.875, tokens at 1.0 and 1.125 (charged 0.5 > 0.3 by then). The long one has four tokens
    # at 0.625, at 0.25 + 3/8, and needs 16 steps more.
    assert finishes(case, policy) == [1.125 + 16 * 0.125, 1.125]
    assert finishes(case, registry.resolve("schedulers", "fcfs")) == [2.625, 3.125]


def test_a_long_prompt_skips_the_levels_that_it_would_not_fit() -> None:
    # By hardened's measure 32 tokens take 1 s: level 2 of 0.3, 0.6, 1.2. So it waits for the job that is in level 1.
    requests = (Asked(0.0, 4, 9, 9), Asked(0.3, 32, 2, 2))
    case = Case(requests, FixedCost(0.25, 0.125), max_num_seqs=1)
    policy = hardened(FastServe, FastServe.Parameters(quantum_s=0.3), prefill=True)
    assert finishes(case, policy)[0] < finishes(case, policy)[1]
    alike = hardened(FastServe, FastServe.Parameters(quantum_s=0.3))
    assert finishes(case, alike)[0] > finishes(case, alike)[1]


def test_without_room_the_last_in_line_is_swapped_out_and_comes_back_with_its_kv() -> None:
    # 5 usable blocks of 4 tokens; KV of 1 byte a token at 8 bytes/s: a block takes 1/2 s one way.
    case = Case(
        (Asked(0.0, 8, 8, 8), Asked(0.6, 8, 2, 2)),
        FixedCost(0.25, 0.125), max_num_seqs=1, num_blocks=6, block_size=4, max_model_len=20,
    )  # fmt: skip
    settings = FastServe.Parameters(quantum_s=0.3, copy_bandwidth_gb_per_s=8e-9, proactive=False)
    # The long one has four tokens at 0.625, and 11 stored in 3 blocks; the newcomer needs 2, and then 3.
    records = run(case, hardened(FastServe, settings, kv_bytes=1))
    # 0.625 + prefill 0.25; the newcomer's first decode needs a third block: 3 blocks out, 1.5 s, and 0.125.
    assert records.requests["finish_s"][1] == pytest.approx(0.875 + 1.5 + 0.125)
    # Then the copy back, and four tokens.
    assert records.requests["finish_s"][0] == pytest.approx(2.5 + 1.5 + 4 * 0.125)
    assert records.requests["transfer_wait_s"][0] == pytest.approx(1.5)


def test_where_the_swap_space_is_full_kv_is_computed_again() -> None:
    case = Case(
        (Asked(0.0, 8, 8, 8), Asked(0.6, 8, 2, 2)),
        FixedCost(0.25, 0.125), max_num_seqs=1, num_blocks=6, block_size=4, max_model_len=20,
    )  # fmt: skip
    settings = FastServe.Parameters(quantum_s=0.3, swap_space_gib=0, proactive=False)
    # It prefills again, which emits its fifth token.
    assert finishes(case, hardened(FastServe, settings, kv_bytes=1)) == [1.0 + 0.25 + 3 * 0.125, 1.0]


def test_new_jobs_are_held_back_while_the_swap_space_is_nearly_full() -> None:
    settings = FastServe.Parameters(swap_space_gib=12 / 2**30, quantum_s=0.3, proactive=False)
    policy_kind = hardened(FastServe, settings, kv_bytes=1)
    seen = []

    def change(policy: Any) -> None:
        batch = policy._batch

        def watched() -> Any:
            found = batch()
            if policy.swap.free_blocks < 0.1 * policy.swap.total_blocks and policy.queue.fresh:
                seen.append([job for job in found if job.place is Place.FRESH])
            return found

        policy._batch = watched

    requests = (Asked(0.0, 8, 8, 8), Asked(0.6, 8, 6, 6), Asked(1.0, 8, 6, 6))
    case = Case(requests, FixedCost(0.25, 0.125), max_num_seqs=1, num_blocks=6, block_size=4, max_model_len=20)
    registry._registered["schedulers"]["hardened"] = policy_kind
    try:
        Assembly(replace(case, policy="hardened"), change=change).run()
    finally:
        del registry._registered["schedulers"]["hardened"]
    assert seen and not any(seen)


def test_short_requests_among_long_ones_finish_earlier_than_first_come_first_served() -> None:
    requests = tuple(Asked(0.05 * number, 8, 4 if number % 4 else 60, 60) for number in range(40))
    case = Case(requests, FixedCost(0.25, 0.125), max_num_seqs=4)
    fast = np.array(finishes(case, hardened(FastServe, FastServe.Parameters(quantum_s=0.3))))
    fcfs = np.array(finishes(case, registry.resolve("schedulers", "fcfs")))
    short = np.arange(40) % 4 > 0
    assert fast[short].mean() < 0.7 * fcfs[short].mean()
    assert fast.mean() < fcfs.mean()


@examples(25)
@given(cases(), st.data())
def test_strides_are_exact_and_nothing_is_lost(case: Case, data: Any) -> None:
    draw = data.draw
    settings = FastServe.Parameters(
        quantum_s=draw(st.sampled_from([0.01, 0.1, 0.5, 1.0])),
        starving_s=draw(st.sampled_from([0.5, 3.0])),
        promotion_iterations=draw(st.sampled_from([3, 20, 1000])),
        proactive=draw(st.booleans()),
        swap_space_gib=draw(st.sampled_from([0, 20, 60, 1000])) / 2**30,
    )
    policy = hardened(FastServe, settings, kv_bytes=draw(st.sampled_from([0, 1])), prefill=draw(st.booleans()))
    for one in strides_are_exact(case, policy):
        assert one.swap.used_blocks == 0
