"""A tier that policies swap to: places, streams of copies, and what becomes of those who turn round."""

from __future__ import annotations

from typing import Any

import pytest
import simpy

from servsim.errors import CapacityError, SimulationError
from servsim.hardware import LinkSpec, Tier
from servsim.memory.surroundings import KvShape
from servsim.memory.swap_space import SwapSpace
from servsim.request import Sequence

KV = KvShape(num_layers=2, row_bytes=25, bytes_per_token=100)
BLOCK_BYTES = 400  # 4 tokens


def link(bytes_per_s: float = 400.0, **spec: Any) -> LinkSpec:
    defaults = {"duplex": "full", "latency_s": 0.0, "launch_s": 0.0, "sources": {"made up": "for a test"}}
    both = {"read_bandwidth_bytes_per_s": bytes_per_s, "write_bandwidth_bytes_per_s": bytes_per_s}
    return LinkSpec.model_validate({"name": "wire", "kind": "link", **both, **defaults, **spec})


def space(blocks: int = 10, kv: KvShape = KV, granularity: Any = "blocks", **spec: Any) -> SwapSpace:
    """A block takes a second."""
    tier = Tier("cpu", "cpu", blocks * BLOCK_BYTES, link(**spec))
    made = SwapSpace(simpy.Environment(), tier, kv, 4, granularity=granularity)
    made.changed = made.check_integrity
    return made


def sequence(number: int = 0) -> Sequence:
    return Sequence(number, 0.0, 10, 10, 0, 0, 0, ())


def until(made: SwapSpace, time_s: float | None = None) -> float:
    """Let time pass, or everything come to its end; the time then."""
    made.link.env.run(time_s)
    made.check_integrity()
    return float(made.link.env.now)


def come(made: SwapSpace, one: Sequence) -> bool:
    coming = made.call_back(one)
    made.start_held(lambda blocks: True)
    made.check_integrity()
    return coming


def test_a_place_is_taken_at_once_and_given_back_when_the_copy_in_has_ended() -> None:
    made, one = space(), sequence()
    made.send_out(one, 3)
    assert (made.free_blocks, made.leaving_blocks, made.leaving(one)) == (7, 3, True)
    assert until(made) == 3.0
    assert (made.free_blocks, made.leaving_blocks, made.leaving()) == (7, 0, False)
    assert come(made, one)
    assert until(made, 5.9) == 5.9
    assert (made.free_blocks, made.coming(one), made.arrived()) == (7, True, [])
    assert until(made) == 6.0
    assert (made.free_blocks, made.coming(), made.arrived(), made.arrived()) == (10, False, [one], [])
    assert made.report() == {"copied_in_bytes_cpu": 1200, "copied_out_bytes_cpu": 1200}


def test_copies_one_way_follow_each_other_and_both_ways_go_at_once() -> None:
    made, one, two, three = space(), sequence(0), sequence(1), sequence(2)
    made.send_out(one, 3)
    until(made)
    come(made, one)
    made.send_out(two, 1)
    made.send_out(three, 1)
    until(made, 4.5)
    assert (made.leaving(two), made.leaving(three), made.coming(one)) == (False, True, True)
    until(made, 5.5)
    assert (made.leaving(), made.coming()) == (False, True)
    assert until(made) == 6.0


def test_the_launches_of_all_copies_one_way_add_up() -> None:
    # Two layers of keys and values for every block: 4 launches of 1/8 s each, block by block, or once for all.
    for granularity, launches in (("blocks", 4 * 5), ("groups", 4 * 2)):
        made = space(granularity=granularity, launch_s=0.125)
        made.send_out(sequence(0), 3)
        made.send_out(sequence(1), 2)
        assert until(made) == 5 + launches / 8
        assert made.round_trip_s(3) == 2 * (3 + (12 if granularity == "blocks" else 4) / 8)


def test_each_device_copies_its_share_and_the_tier_holds_them_all() -> None:
    made = space(kv=KvShape(num_layers=2, row_bytes=25, bytes_per_token=100, devices=2))
    assert made.total_blocks == 5
    made.send_out(sequence(), 3)
    assert until(made) == 3.0
    assert made.report()["copied_out_bytes_cpu"] == 2400


def test_one_that_is_called_back_before_it_has_left_is_there_at_once() -> None:
    made, one, two = space(), sequence(0), sequence(1)
    made.send_out(one, 3)
    made.send_out(two, 2)
    until(made, 1.0)
    assert not made.call_back(one)
    assert (made.used_blocks, made.leaving_blocks, made.keeps(one)) == (2, 2, False)
    assert until(made) == 3.0  # the second had the stream from then on
    assert made.report()["copied_out_bytes_cpu"] == 800


def test_one_that_waits_in_line_to_leave_can_be_called_back_too() -> None:
    made, one, two = space(), sequence(0), sequence(1)
    made.send_out(one, 3)
    made.send_out(two, 2)
    assert not made.call_back(two)
    assert until(made) == 3.0
    assert made.used_blocks == 3


def test_one_that_is_sent_away_again_before_it_is_back_moves_nothing() -> None:
    made, one = space(blocks=3), sequence()
    made.send_out(one, 3)
    until(made)
    come(made, one)
    until(made, 4.0)
    made.send_out(one, 3)  # and takes no other place
    assert (made.used_blocks, made.leaving_blocks, made.transfers) == (3, 0, 0)
    assert made.arrived() == []
    come(made, one)
    assert until(made) == 7.0
    assert made.arrived() == [one]


def test_copies_in_begin_when_they_are_let_and_in_order() -> None:
    made, one, two = space(), sequence(0), sequence(1)
    for each in (one, two):
        made.send_out(each, 2)
    until(made)
    made.call_back(one)
    made.call_back(two)
    assert (made.held_blocks, made.transfers, made.holds) == (4, 0, True)
    asked: list[int] = []
    made.start_held(lambda blocks: asked.append(blocks) or len(asked) < 2)  # type: ignore[func-returns-value]
    assert (made.held_blocks, asked) == (2, [2, 2])
    made.send_out(two, 2)  # it had not begun
    assert (made.held_blocks, made.coming(two), made.keeps(two)) == (0, False, True)
    until(made)
    assert made.arrived() == [one]


def test_more_than_the_tier_holds_is_an_error_and_so_is_a_tier_without_a_block() -> None:
    made = space(blocks=2)
    with pytest.raises(SimulationError, match="3 blocks of request 0 do not fit the tier 'cpu'"):
        made.send_out(sequence(), 3)
    with pytest.raises(CapacityError, match="the tier 'cpu' of 0 bytes does not hold one block"):
        space(blocks=0)


def test_worked_swap_of_2000_tokens_takes_21_ms_and_101_ms_block_by_block() -> None:
    # algorithms: 128 KiB a token, 25 GB/s each way, 32 layers, 5 us a launch.
    kv = KvShape(num_layers=32, row_bytes=2048, bytes_per_token=131072)
    for granularity, launch_s, expected in (("blocks", 0.0, 0.020972), ("blocks", 5e-6, 0.100972)):
        tier = Tier("cpu", "cpu", 1 << 40, link(25e9, launch_s=launch_s))
        made = SwapSpace(simpy.Environment(), tier, kv, 16, granularity=granularity)  # type: ignore[arg-type]
        assert made.round_trip_s(125) == pytest.approx(expected, abs=1e-6)
        one = sequence()
        made.send_out(one, 125)
        until(made)
        come(made, one)
        assert until(made) == pytest.approx(expected, abs=1e-6)
