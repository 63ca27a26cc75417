"""First come, first served on vLLM v1's batching, step by step."""

from __future__ import annotations

from by_hand import ByHand

from servsim.scheduler.engines.fcfs import Fcfs


def test_a_long_prompt_fills_the_budget_and_the_next_step_takes_its_rest_and_the_one_behind() -> None:
    engine = ByHand(Fcfs, budget=512)
    r1, r2 = engine.arrive(8), engine.arrive(8)
    engine.step()
    w1, w2 = engine.arrive(600), engine.arrive(100)
    assert engine.step() == {r1: 1, r2: 1, w1: 510}
    assert engine.policy.waiting == 1
    assert engine.step() == {r1: 1, r2: 1, w1: 90, w2: 100}
    assert [engine.running.generated_tokens(one) for one in (w1, w2)] == [1, 1]  # both emitted their first


def test_the_budget_goes_in_order_of_admission_and_not_to_decoders_first() -> None:
    engine = ByHand(Fcfs, budget=10)
    first = engine.arrive(4)
    engine.step()
    long, last = engine.arrive(20), engine.arrive(3)
    assert engine.step() == {first: 1, long: 9}
    assert engine.step() == {first: 1, long: 9}
    assert engine.step() == {first: 1, long: 2, last: 3}


def test_without_memory_the_newest_is_preempted_and_nothing_is_admitted_in_that_step() -> None:
    engine = ByHand(Fcfs, usable_blocks=6, block_size=4)
    a, b, c = engine.arrive(8), engine.arrive(8), engine.arrive(6)
    assert engine.step() == {a: 8, b: 8, c: 6}
    assert engine.memory.used_blocks == 6
    engine.arrive(1)  # would fit in nothing either, but is not even tried
    assert engine.step() == {a: 1, b: 1}
    assert list(engine.last.preempted) == [c]
    assert engine.last.admitted == 0
    assert engine.memory.used_blocks == 6
    assert engine.policy.head() is c  # at the front of the queue again
    assert c.total_tokens == 7 and c.kv_tokens == 0  # its emitted token is kept, its KV is not
    assert engine.step() == {a: 1, b: 1}  # c needs 2 blocks, none is free: it waits
    assert engine.policy.waiting == 2


def test_a_preempted_sequence_goes_on_where_it_was_when_memory_is_free_again() -> None:
    engine = ByHand(Fcfs, usable_blocks=6, block_size=4)
    a, b, c = engine.arrive(8), engine.arrive(8), engine.arrive(6)
    engine.step()
    engine.step()
    engine.finish(a)
    assert engine.step() == {b: 1, c: 7}  # the prompt and the token it had emitted, at once
    assert engine.running.generated_tokens(c) == 2


def test_a_head_that_does_not_fit_is_not_skipped() -> None:
    engine = ByHand(Fcfs, usable_blocks=6, block_size=4)
    a = engine.arrive(8)
    engine.step()
    big, small = engine.arrive(20), engine.arrive(2)
    assert engine.step() == {a: 1}
    assert engine.policy.head() is big and engine.policy.waiting == 2
    engine.finish(a)
    assert engine.step() == {big: 20, small: 2}


def test_max_num_seqs_bounds_the_running_list() -> None:
    engine = ByHand(Fcfs, max_num_seqs=2)
    a, b, c = engine.arrive(4), engine.arrive(4), engine.arrive(4)
    assert engine.step() == {a: 4, b: 4}
    assert not engine.policy.arrival_matters(c)
    engine.finish(a)
    assert engine.step() == {b: 1, c: 4}


def test_the_first_chunk_alone_decides_where_the_whole_prompt_is_not_asked_for() -> None:
    for whole, expected in ((True, 0), (False, 8)):
        engine = ByHand(Fcfs, usable_blocks=6, block_size=4, budget=9, memory={"reserve_full_isl": whole})
        engine.arrive(8)
        engine.step()
        long = engine.arrive(18)  # 5 blocks, 3 are free; a chunk of 8 takes 2
        given = engine.step()
        assert given.get(long, 0) == expected


def test_the_watermark_holds_back_newcomers_but_not_a_lone_one() -> None:
    engine = ByHand(Fcfs, usable_blocks=9, block_size=4, memory={"watermark": 0.3})
    a = engine.arrive(32)  # 8 blocks: 9 - 8 < 3, and yet it goes in alone
    assert engine.step() == {a: 32}
    engine = ByHand(Fcfs, usable_blocks=9, block_size=4, memory={"watermark": 0.3})
    a, b, c = engine.arrive(16), engine.arrive(8), engine.arrive(4)
    assert engine.step() == {a: 16, b: 8}  # 6 blocks used, 3 stay free
    assert engine.policy.head() is c


def test_a_prefill_at_the_tail_gives_way_and_is_not_let_in_again_in_that_step_though_it_would_fit() -> None:
    engine = ByHand(Fcfs, usable_blocks=6, block_size=4, budget=10, memory={"reserve_full_isl": False})
    a = engine.arrive(7)
    engine.step()
    long = engine.arrive(30)
    engine.step()  # 9 tokens of it: a has 2 blocks, long 3
    assert engine.step() == {a: 1}  # a needs a third, long 3 more
    assert list(engine.last.preempted) == [long] and engine.last.admitted == 0
    assert engine.memory.free_blocks == 3  # enough for the first 9 tokens of it
    assert engine.step() == {a: 1, long: 9}
