"""SGLang's orders that look at the prefix tree, and its admission rule with one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from by_hand import Constant

from servsim.memory.radix import RadixAllocator
from servsim.memory.surroundings import MemorySurroundings
from servsim.request import Sequence
from servsim.scheduler import Plan, Running, Surroundings
from servsim.scheduler.engines.sglang import Sglang, SglangAdmission
from servsim.scheduler.engines.sglang_cache_orders import (
    CacheOrder,
    DfsWeightOrder,
    LongestPrefixOrder,
    ShortestPrefillOrder,
)
from servsim.scheduler.orders import Order


class Bench:
    """A tree of pages of one token, and an order that looks at it."""

    def __init__(self, kind: Any, pages: int = 10_000) -> None:
        self.memory = RadixAllocator(MemorySurroundings(pages, 1, 1 << 20, None, tokens_per_hash=1))
        self.running = Running()
        self.surroundings = Surroundings(self.running, self.memory, 256, 8192, None, lambda name: Constant(0.5))
        self.made: Any = kind(self.surroundings)
        self.count = 0

    def sequence(self, *ids: int, prompt: int | None = None) -> Sequence:
        prompt = len(ids) if prompt is None else prompt
        self.count += 1
        return Sequence(self.count, float(self.count), prompt, 10, 0, 0, 0, ids, session=0)

    def keep(self, *ids: int) -> None:
        """What a sequence that has ended left behind."""
        one = self.sequence(*ids)
        round_ = self.memory.round()
        assert round_.admit(one, round_.lacking(one), alone=True)
        self.memory.commit(round_)
        one.kv_tokens = len(ids)
        self.memory.release(one)

    def line(self) -> list[int]:
        """Ids in the order of the line."""
        order: Order = self.made
        order.refresh(0.0)
        return [order.peek(place).request_id for place in range(len(order))]

    def wait(self, *ids: int, prompt: int | None = None) -> int:
        sequence = self.sequence(*ids, prompt=prompt)
        self.made.push(sequence)
        return sequence.request_id


def ids(start: int, count: int) -> range:
    return range(start, start + count)


class Unranked(CacheOrder):
    """A kind that does not say how it ranks."""


def test_an_order_that_does_not_rank_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="ranked"):
        Bench(Unranked)


def test_lpm_serves_the_longest_prefix_first_and_ties_as_they_came() -> None:
    bench = Bench(LongestPrefixOrder)
    bench.keep(*ids(0, 100))
    none = bench.wait(*ids(500, 50))
    some = bench.wait(*ids(0, 40), 900)
    most = bench.wait(*ids(0, 80), 901)
    other = bench.wait(*ids(700, 50))
    assert bench.line() == [most, some, none, other]


def test_lpm_defers_who_would_compute_the_same_32_tokens_at_once() -> None:
    bench = Bench(LongestPrefixOrder)
    first = bench.wait(*ids(0, 40), 800)
    second = bench.wait(*ids(0, 32), 801)
    unlike = bench.wait(*ids(0, 31), 802, 803)
    assert bench.line() == [first, unlike, second]
    bench.keep(*ids(0, 33))  # of the first one 33 tokens are found now, of the others 32 and 31
    assert bench.line() == [first, second, unlike]
    bench.keep(*ids(0, 32), 801, 900)
    assert bench.line() == [first, second, unlike]


def test_32_tokens_found_may_be_deferred_and_33_may_not() -> None:
    for found, deferred in ((32, True), (33, False)):
        bench = Bench(LongestPrefixOrder)
        bench.keep(*ids(0, found))
        first = bench.wait(*ids(0, 40), 800)
        second = bench.wait(*ids(0, 40), 801)
        third = bench.wait(*ids(600, 40))
        assert bench.line() == ([first, third, second] if deferred else [first, second, third])


def test_lpm_is_first_come_first_served_while_more_than_128_wait() -> None:
    bench = Bench(LongestPrefixOrder)
    bench.keep(*ids(0, 100))
    waiting = [bench.wait(*ids(1000 * place, 50)) for place in range(1, 128)]
    hit = bench.wait(*ids(0, 80), 901)
    assert bench.line() == [hit, *waiting]
    late = bench.wait(*ids(0, 90), 902)
    assert bench.line() == [*waiting, hit, late]
    bench.made.drop(1)
    assert bench.line()[:2] == [late, hit]


def test_dfs_weight_goes_down_where_most_wait() -> None:
    bench = Bench(DfsWeightOrder)
    bench.keep(1, 2, 3)
    bench.keep(1, 2, 4, 5)
    bench.keep(7, 8)
    at_seven = bench.wait(7, 8, 90)
    at_three = bench.wait(1, 2, 3, 91)
    at_two = bench.wait(1, 2, 92)
    at_five = [bench.wait(1, 2, 4, 5, 93), bench.wait(1, 2, 4, 5, 94)]
    nowhere = bench.wait(95, 96)
    assert bench.line() == [*at_five, at_three, at_two, at_seven, nowhere]


def test_shortest_prefill_counts_what_the_cache_lacks() -> None:
    bench = Bench(ShortestPrefillOrder)
    long = bench.wait(*ids(0, 90), 900)
    short = bench.wait(*ids(500, 20))
    assert bench.line() == [short, long]
    bench.keep(*ids(0, 90))
    assert bench.line() == [long, short]


def test_the_admitted_leave_the_line_as_it_was_planned_though_the_tree_has_changed() -> None:
    bench = Bench(LongestPrefixOrder)
    bench.keep(*ids(0, 50))
    bench.keep(*ids(100, 40))
    less = bench.wait(*ids(100, 40), 900)
    more = bench.wait(*ids(0, 50), 901)
    assert bench.line() == [more, less]
    bench.keep(*ids(100, 40), 900, 901)  # as a commit may change it, before the policy is told
    bench.made.drop(1)
    assert bench.line() == [less]


def test_the_order_holds_until_decoders_evict() -> None:
    bench = Bench(LongestPrefixOrder, pages=100)
    bench.keep(*ids(0, 50))
    bench.wait(*ids(0, 50), 1)
    bench.wait(*ids(0, 50), 2)
    decoder = bench.sequence(prompt=10)
    round_ = bench.memory.round()
    assert round_.admit(decoder, 10, alone=True)
    bench.memory.commit(round_)
    decoder.kv_tokens = 10
    bench.memory.join(decoder)
    assert bench.made.stable_steps() == 40
    bench.memory.advance(40)
    assert bench.made.stable_steps() == 1


def test_what_is_found_is_not_needed_but_is_free_no_more_once_it_is_locked() -> None:
    # 100 pages, of which 60 are kept for nobody. 61 tokens of which 60 are found, and 10 to come: 11 < 100, but
    # once 60 are locked, 11 < 40. With 30 held by a running one whose output may take 9 x 0.7, 11 < 3.7 is wrong.
    bench = Bench(SglangAdmission, pages=100)
    bench.keep(*ids(0, 60))
    rule: SglangAdmission = bench.made
    head = bench.sequence(*ids(0, 60), 900)
    other = bench.sequence(prompt=30)
    round_ = bench.memory.round()
    assert round_.admit(other, 30, alone=True)
    bench.memory.commit(round_)
    bench.running.admit(other)
    rule.began(Plan([(other, 30)], 1, round=round_))
    other.kv_tokens, other.generated_tokens = 30, 1
    del bench.running.prefilling[other]
    bench.running.join(other)
    bench.memory.join(other)
    assert bench.memory.cached_tokens(head) == 60
    assert not rule.admits(head, 0)  # 70 free - 9 x 0.7 = 63.7 of which 60 would be locked: 11 >= 3.7
    rule = SglangAdmission(bench.surroundings)
    rule.began(Plan([(other, 30)], 1, round=round_))
    assert rule.admits(bench.sequence(*ids(0, 40), 901), 0)  # 11 < 63.7 - 40


def test_sglang_makes_its_orders_with_the_tree() -> None:
    for name, kind in (("lpm", LongestPrefixOrder), ("dfs-weight", DfsWeightOrder)):
        bench = Bench(lambda surroundings: None)
        made = Sglang(replace(bench.surroundings, parameters=Sglang.Parameters(schedule_policy=name)))
        assert isinstance(made.queue, kind)
