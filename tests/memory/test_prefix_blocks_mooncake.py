"""Prefix blocks on the Mooncake trace, one request at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from cached_runs import counted_from_file

import servsim


def mooncake(data: Path, **memory: Any) -> dict[str, Any]:
    """Its requests one at a time, those above 65,536 tokens rejected."""
    return {
        "model": "llama-3.1-8b",
        "instance": {
            "hardware": "h100-sxm",
            "max_model_len": 65_536,
            "scheduler": {"policy": "fcfs", "max_num_seqs": 1, "max_num_batched_tokens": 8192},
            "memory": {"allocator": "prefix_blocks", "block_size": 512, **memory},
        },
        "workload": {
            "trace": str(data / "traces" / "mooncake_synthetic.jsonl"),
            "format": "mooncake",
            "time_scale": 1000.0,
        },
    }


def test_without_limits_and_overlap_the_hits_are_those_counted_from_the_mooncake_trace(servsim_data: Path) -> None:
    records = servsim.simulate(mooncake(servsim_data, num_blocks=1_000_000)).records
    asked, hit = counted_from_file(servsim_data / "traces" / "mooncake_synthetic.jsonl", 65_536)
    assert hit > 0
    assert (records.memory["queried_tokens"], records.memory["hit_tokens"]) == (asked, hit)


def test_more_memory_never_finds_less_on_the_mooncake_trace(servsim_data: Path) -> None:
    """Request by request, on the device and with host memory below it."""
    before = 0
    for blocks in (200, 1_000, 5_000, 25_000):
        hits = servsim.simulate(mooncake(servsim_data, num_blocks=blocks)).records.requests["cached_tokens"]
        assert (hits >= before).all() and hits.sum() > np.sum(before)
        before = hits
    before = 0
    for capacity in ("64 GiB", "256 GiB", "1 TiB"):
        cpu = {"capacity": capacity, "link": "pcie-gen5-x16"}
        records = servsim.simulate(mooncake(servsim_data, num_blocks=200, tiers={"cpu": cpu})).records
        hits = records.requests["cached_tokens"]
        assert (hits >= before).all() and hits.sum() > np.sum(before)
        before = hits
