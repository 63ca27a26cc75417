"""Sarathi-Serve: decodes first, chunks beside them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from by_hand import ByHand
from case import Asked, Case
from checks import nothing_is_lost, planning_leaves_no_trace, strided_equals_single
from drawn import cases
from hypothesis import given
from profiles import examples
from variants import variant

from servsim.cost.fixed import FixedCost
from servsim.metrics.token_times import token_times
from servsim.scheduler.engines.fcfs import Fcfs
from servsim.scheduler.engines.sarathi import Sarathi, SarathiParameters, chunk_schedule


def test_a_long_prompt_takes_what_three_decoders_leave_of_each_step() -> None:
    engine = ByHand(Sarathi)
    decoders = [engine.arrive(8) for _ in range(3)]
    engine.step()
    long = engine.arrive(1200)
    chunks = []
    for _ in range(3):
        given_ = engine.step()
        assert all(given_[one] == 1 for one in decoders)
        chunks.append(given_[long])
    assert chunks == [509, 509, 182]
    assert engine.running.generated_tokens(long) == 1
    assert [engine.running.generated_tokens(one) for one in decoders] == [4, 4, 4]


def test_where_decodes_exceed_the_chunk_size_prefills_wait_and_nothing_is_negative() -> None:
    engine = ByHand(Sarathi, parameters=SarathiParameters(chunk_size=6))
    shorts = [engine.arrive(3), engine.arrive(3)]
    engine.step()
    long = engine.arrive(9)
    engine.step()  # four of its tokens
    third = engine.arrive(1)
    assert engine.step() == {shorts[0]: 1, shorts[1]: 1, long: 4}
    assert engine.step() == {shorts[0]: 1, shorts[1]: 1, long: 1, third: 1}
    fuller = ByHand(Sarathi, parameters=SarathiParameters(chunk_size=2))
    a, b = fuller.arrive(1), fuller.arrive(1)
    fuller.step()
    late = fuller.arrive(4)
    assert fuller.step() == {a: 1, b: 1}
    assert fuller.plan().plain and fuller.policy.head() is late
    fuller.finish(a)
    assert fuller.step() == {b: 1, late: 1}


def test_a_newcomer_needs_the_blocks_of_its_whole_prompt_where_fcfs_may_ask_for_a_chunk() -> None:
    parameters = SarathiParameters(chunk_size=8, watermark=0.0)
    engine = ByHand(Sarathi, usable_blocks=8, block_size=4, parameters=parameters)
    long = engine.arrive(20)  # five blocks, of which the first chunk fills two
    engine.step()
    behind = engine.arrive(14)  # four blocks: six are free in name, three in truth
    assert engine.memory.free_blocks == 6
    assert engine.step() == {long: 8}
    assert engine.step() == {long: 4}
    assert engine.policy.head() is behind
    fcfs = ByHand(Fcfs, usable_blocks=8, block_size=4, budget=8, memory={"reserve_full_isl": False})
    long = fcfs.arrive(20)
    for _ in range(2):
        fcfs.step()
    behind = fcfs.arrive(14)
    assert fcfs.step() == {long: 4, behind: 4}


def test_the_watermark_stays_free_at_admission_but_a_lone_request_goes_in() -> None:
    parameters = SarathiParameters(watermark=0.2)
    engine = ByHand(Sarathi, usable_blocks=10, block_size=4, parameters=parameters)
    a = engine.arrive(16)
    b, c = engine.arrive(16), engine.arrive(1)
    assert engine.step() == {a: 16, b: 16}  # two blocks stay free
    assert engine.policy.head() is c
    alone = ByHand(Sarathi, usable_blocks=10, block_size=4, parameters=parameters)
    whole = alone.arrive(36)
    assert alone.step() == {whole: 36}


def test_without_a_free_block_the_youngest_goes_though_it_still_prefills() -> None:
    parameters = SarathiParameters(chunk_size=9, watermark=0.0)
    engine = ByHand(Sarathi, usable_blocks=7, block_size=4, parameters=parameters)
    a = engine.arrive(7)
    engine.step()
    long = engine.arrive(20)  # takes the five that are left
    assert engine.step() == {a: 1, long: 8}
    assert engine.memory.free_blocks == 3  # all pledged to the rest of the prompt
    assert engine.step() == {a: 1}
    assert list(engine.last.preempted) == [long] and engine.last.admitted == 0
    assert engine.policy.head() is long
    assert engine.step() == {a: 1}  # five blocks, four are free


def test_a_block_must_be_free_even_where_none_is_needed() -> None:
    parameters = SarathiParameters(watermark=0.0)
    engine = ByHand(Sarathi, usable_blocks=4, block_size=4, parameters=parameters)
    a, b = engine.arrive(5), engine.arrive(5)
    engine.step()
    assert engine.memory.free_blocks == 0
    assert engine.step() == {a: 1}  # both have room for their next token
    assert list(engine.last.preempted) == [b]
    fcfs = ByHand(Fcfs, usable_blocks=4, block_size=4)
    a, b = fcfs.arrive(5), fcfs.arrive(5)
    fcfs.step()
    assert fcfs.step() == {a: 1, b: 1}


def test_decodes_come_before_chunks_where_v1_goes_down_its_list() -> None:
    def given_(policy: type, **settings: object) -> list[int]:
        engine = ByHand(policy, budget=6, **settings)  # type: ignore[arg-type]
        long = engine.arrive(40)
        engine.step()
        return [engine.step()[long]]

    assert given_(Sarathi, parameters=SarathiParameters(chunk_size=4)) == [4]
    assert given_(Fcfs) == [6]


def test_the_dynamic_schedule_has_even_steps_rounded_to_32() -> None:
    assert chunk_schedule(2048, 512, 4) == (2048, 1536, 1024, 512)
    assert chunk_schedule(1000, 300, 3) == (992, 640, 288)
    assert chunk_schedule(100, 10, 2) == (100, 10)
    assert chunk_schedule(512, 512, 1) == (512,)


def test_chunks_shrink_as_the_prompt_gets_done() -> None:
    parameters = SarathiParameters(
        enable_dynamic_chunking_schedule=True,
        high_chunk_size=128,
        low_chunk_size=32,
        chunk_schedule_max_tokens=256,
        chunk_schedule_stages=4,
    )
    engine = ByHand(Sarathi, parameters=parameters)
    decoder = engine.arrive(8)
    engine.step()
    long = engine.arrive(400)
    chunks = [engine.step()[long] for _ in range(8)]
    # done 0 | 127 (stage 1 of 64 tokens: 96) | 222 (stage 3, the last) ...
    assert chunks == [127, 95, 31, 31, 31, 31, 31, 23]
    assert engine.running.generated_tokens(decoder) == 9


def test_no_decoder_ever_waits_for_a_prompt() -> None:
    """What the paper promises: a gap is never longer than one step of chunk_size tokens; vLLM v0 stalls."""
    requests = (Asked(0.0, 4, 40, 40), Asked(0.3, 300, 2, 2), Asked(0.3, 300, 2, 2))
    kinds = {"sarathi": (Sarathi, SarathiParameters(chunk_size=16), 1000)}
    case = Case(requests, LinearCost(), num_blocks=1000)
    longest = {}
    with variant(kinds) as names:
        for policy in (names["sarathi"], "vllm_v0"):
            times_s = token_times(run(replace(case, policy=policy)), 0)
            longest[policy] = max(later - earlier for earlier, later in pairwise(times_s))
        assert longest[names["sarathi"]] == pytest.approx(1 / 64 * 16)
        assert longest["vllm_v0"] == pytest.approx(1 / 64 * 601)


def test_a_run_worked_by_hand() -> None:
    """A step with prefill takes 1/4 s, one without 1/8 s."""
    requests = (Asked(0.0, 4, 6, 6), Asked(0.3, 20, 2, 2))
    with variant({"sarathi": (Sarathi, SarathiParameters(chunk_size=11), 1000)}) as names:
        records = run(Case(requests, FixedCost(1 / 4, 1 / 8), policy=names["sarathi"]))
    assert token_times(records, 0).tolist() == [0.25, 0.375, 0.625, 0.875, 1.0, 1.125]
    assert token_times(records, 1).tolist() == [0.875, 1.0]  # two chunks of ten


def run(case: Case):  # type: ignore[no-untyped-def]
    from assembly import Assembly

    return Assembly(case).run()


class LinearCost(FixedCost):
    """Every step takes 1/64 s a token."""

    def __init__(self) -> None:
        super().__init__(1 / 64, 1 / 64)

    def step_s(self, chunks, emitting, decoders, context_tokens):  # type: ignore[no-untyped-def]
        return (sum(tokens for tokens, _ in chunks) + decoders) / 64


KINDS = {
    "plain": (Sarathi, SarathiParameters(watermark=0.0), 1000),
    "small": (Sarathi, SarathiParameters(chunk_size=5, watermark=0.1), 1000),
    "tiny": (Sarathi, SarathiParameters(chunk_size=1, watermark=0.0), 1000),
    "dynamic": (
        Sarathi,
        SarathiParameters(
            enable_dynamic_chunking_schedule=True,
            high_chunk_size=12,
            low_chunk_size=3,
            chunk_schedule_max_tokens=20,
            chunk_schedule_stages=3,
        ),
        1000,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_strides_are_exact_and_nothing_is_lost(kind: str) -> None:
    @examples(20)
    @given(cases(policy="fcfs"))
    def hold(case: Case) -> None:
        case = replace(case, policy=names[kind])
        strided_equals_single(case)
        nothing_is_lost(case)
        planning_leaves_no_trace(case)

    with variant(KINDS) as names:
        hold()
