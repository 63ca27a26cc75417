"""What an engine adds to its kernels: hidden or waited for, padded, launched layer by layer."""

from __future__ import annotations

from pathlib import Path

import pytest

from servsim.cost.host import HostWork
from servsim.cost.launching import as_launched
from servsim.cost.roofline import RooflineCost
from servsim.hardware import load_device
from servsim.model import load_model
from servsim.model.operators import step_operators

ROOT = Path(__file__).parents[2]
H100 = load_device(ROOT / "hardware" / "h100-sxm.yaml")
OPERATORS = step_operators(load_model(ROOT / "models" / "llama-3.1-8b.yaml"), 1, "bf16", "none", "bf16")


def cost(host: HostWork | None = None, **effects: float) -> RooflineCost:
    return RooflineCost(OPERATORS, H100, host, **effects)


def decode_s(of: RooflineCost, decoders: int = 20, context: int = 20_000) -> float:
    return of.decode_stride(0.0, decoders, context).first_s


def test_asynchronous_scheduling_hides_host_work_up_to_the_device_s_time_but_never_the_gap() -> None:
    bare_s = decode_s(cost())
    hidden = HostWork(0.5 * bare_s, gap_s=0.001, sequence_gap_s=1e-5)
    assert decode_s(cost(hidden)) == pytest.approx(bare_s + 0.001 + 20e-5)
    longer = HostWork(3 * bare_s, gap_s=0.001)
    assert decode_s(cost(longer)) == pytest.approx(3 * bare_s)
    in_series = HostWork(0.5 * bare_s, 1e-5, asynchronous=False, gap_s=0.001)
    assert decode_s(cost(in_series)) == pytest.approx(1.5 * bare_s + 20e-5 + 0.001)


def test_a_batch_is_padded_to_the_next_captured_size_and_not_beyond_the_last() -> None:
    host = HostWork(capture_sizes=(1, 2, 4, 8, 16, 24))
    assert [host.padded(rows) for rows in (1, 3, 17, 24, 25, 300)] == [1, 4, 24, 24, 25, 300]
    plain, padded = cost(), cost(host)
    assert decode_s(padded, 17) > decode_s(plain, 17)
    # Attention and the LM head see the real sequences: only what runs on every row grows.
    assert decode_s(padded, 17) < 1.005 * decode_s(plain, 24)
    assert decode_s(padded, 24) == decode_s(plain, 24)


def test_a_step_with_prefill_takes_no_less_than_launching_its_layers() -> None:
    plain, eager = cost(), cost(HostWork(eager_layer_s=1e-3))
    short, long = [(16, 0)], [(8000, 0)]
    assert eager.step_s(short, 1, 0, 0) == pytest.approx(32 * 1e-3)
    assert eager.step_s(long, 1, 0, 0) == plain.step_s(long, 1, 0, 0) > 32 * 1e-3
    assert decode_s(eager) == decode_s(plain)


def test_attention_is_longer_over_ragged_contexts_and_where_prefill_and_decodes_share_a_call() -> None:
    plain, ragged, mixed = cost(), cost(ragged_attention=1.2), cost(mixed_attention=1.5)
    read_s = decode_s(plain, 20, 400_000) - decode_s(plain, 20, 200_000)
    assert decode_s(ragged, 20, 400_000) - decode_s(ragged, 20, 200_000) == pytest.approx(1.2 * read_s)
    assert decode_s(mixed) == decode_s(plain)
    assert mixed.step_s([(64, 0)], 1, 0, 0) == plain.step_s([(64, 0)], 1, 0, 0)
    assert mixed.step_s([(64, 0)], 1, 20, 20_000) > plain.step_s([(64, 0)], 1, 20, 20_000)


def test_a_graph_s_launches_replace_overheads_measured_alone_and_nothing_else() -> None:
    launched = as_launched(H100, 1e-6, 5e-6)
    assert launched.efficiency("elementwise").overhead_s == 1e-6
    assert launched.efficiency("elementwise").memory == H100.efficiency("elementwise").memory
    assert launched.efficiency("gemm", "fp8").overhead_s == 5e-6
    assert launched.efficiency("gemm", "bf16") == H100.efficiency("gemm", "bf16")
    assert as_launched(H100, None, None).efficiencies == H100.efficiencies
