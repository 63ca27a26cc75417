"""Swap or recompute, by the numbers of a 2,000-token sequence of a model with 32 layers."""

import pytest

from servsim.hardware import Route
from servsim.memory.swap_cost import copy_operations, prefers_swap, swap_cost_s

TOKENS, TOKEN_BYTES, BANDWIDTH = 2000, 128 * 1024, 25e9
BLOCKS = TOKENS // 16


def test_out_and_in_again_takes_21_ms() -> None:
    assert swap_cost_s(TOKENS, TOKEN_BYTES, BANDWIDTH) == pytest.approx(21.0e-3, rel=2e-3)


def test_block_by_block_16_000_launches_add_80_ms() -> None:
    operations = 2 * copy_operations(BLOCKS, layers=32)
    assert operations == 16_000
    found_s = swap_cost_s(TOKENS, TOKEN_BYTES, BANDWIDTH, operations=operations, launch_s=5e-6)
    assert found_s == pytest.approx(101e-3, rel=1e-3)


def test_one_run_of_adjacent_blocks_needs_hardly_any_launches() -> None:
    operations = 2 * copy_operations(1, layers=32)
    found_s = swap_cost_s(TOKENS, TOKEN_BYTES, BANDWIDTH, operations=operations, launch_s=5e-6)
    assert found_s == pytest.approx(20.97e-3 + 128 * 5e-6, rel=1e-3)


def test_what_computation_hides_costs_nothing_but_launches_are_never_hidden() -> None:
    assert swap_cost_s(TOKENS, TOKEN_BYTES, BANDWIDTH, hidden=1) == 0
    assert swap_cost_s(TOKENS, TOKEN_BYTES, BANDWIDTH, hidden=0.5) == pytest.approx(10.486e-3, rel=1e-3)
    assert swap_cost_s(TOKENS, TOKEN_BYTES, BANDWIDTH, operations=100, launch_s=5e-6, hidden=1) == 5e-4


def test_the_formula_is_that_of_a_round_trip_over_an_idle_link() -> None:
    route = Route(BANDWIDTH, BANDWIDTH, launch_s=5e-6)
    each_way = copy_operations(BLOCKS, layers=32)
    found_s = swap_cost_s(TOKENS, TOKEN_BYTES, BANDWIDTH, operations=2 * each_way, launch_s=5e-6)
    assert route.round_trip_s(TOKENS * TOKEN_BYTES, each_way) == pytest.approx(found_s, rel=1e-12)


@pytest.mark.parametrize(
    ("swap_s", "free_blocks", "swaps"),
    [(21e-3, BLOCKS, True), (101e-3, BLOCKS, True), (110e-3, BLOCKS, False), (21e-3, BLOCKS - 1, False)],
)
def test_against_a_prefill_of_110_ms_swap_wins_while_it_is_cheaper_and_fits(
    swap_s: float, free_blocks: int, swaps: bool
) -> None:
    assert prefers_swap(swap_s, 110e-3, needed_blocks=BLOCKS, free_blocks=free_blocks) is swaps
