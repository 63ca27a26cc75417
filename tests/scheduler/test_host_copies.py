"""Swap or recompute, as a policy reckons it."""

from __future__ import annotations

from typing import Any

import pytest

from servsim.memory import PagedAllocator
from servsim.memory.surroundings import MemorySurroundings
from servsim.request import Sequence
from servsim.scheduler import Running, Surroundings
from servsim.scheduler.host_copies import CopyParameters, HostCopies


def copies(recompute_s: float, *, engines: int = 1, **settings: Any) -> HostCopies:
    """128 KiB a token in blocks of 16; all prefills take the same."""
    memory = PagedAllocator(MemorySurroundings(1000, 16, 1 << 20))
    surroundings = Surroundings(
        Running(), memory, 8, 64, None, lambda name: None,  # type: ignore[arg-type, return-value]
        prefill_s=lambda tokens: recompute_s, kv_bytes_per_token=131072, engines=engines,
    )  # fmt: skip
    return HostCopies(surroundings, CopyParameters(**settings))


VICTIM = Sequence(0, 0.0, 2000, 10, 0, 0, 0, ())


def test_worked_2000_tokens_are_swapped_in_21_ms_rather_than_computed_in_110_ms() -> None:
    assert copies(0.110, copy_launch_s=0.0).is_cheaper(VICTIM, 2000, 1000)
    assert copies(0.0211, copy_launch_s=0.0).is_cheaper(VICTIM, 2000, 1000)
    assert not copies(0.0209, copy_launch_s=0.0).is_cheaper(VICTIM, 2000, 1000)


@pytest.mark.parametrize(("granularity", "nearly_s"), [("blocks", 0.1010), ("groups", 0.0216)])
def test_launches_count_block_by_block_or_once(granularity: str, nearly_s: float) -> None:
    assert copies(nearly_s + 1e-4, copy_granularity=granularity).is_cheaper(VICTIM, 2000, 1000)
    assert not copies(nearly_s - 1e-4, copy_granularity=granularity).is_cheaper(VICTIM, 2000, 1000)


def test_without_room_it_is_computed_again() -> None:
    assert copies(1.0).is_cheaper(VICTIM, 2000, 125)
    assert not copies(1.0).is_cheaper(VICTIM, 2000, 124)


def test_what_stores_nothing_is_computed_again() -> None:
    assert not copies(1.0).is_cheaper(VICTIM, 0, 1000)


def test_virtual_engines_share_host_memory() -> None:
    """2 MiB a block: 512 of them in a GiB, and what is left over by the engines is nobody's."""
    assert copies(1.0, swap_space_gib=1.0).total_blocks == 512
    assert copies(1.0, swap_space_gib=1.0, engines=3).total_blocks == 170
