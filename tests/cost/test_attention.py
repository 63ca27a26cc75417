"""Attention as a step costs it, against measured kernels: straight pieces and packed chunks lose little."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from servsim.calibration import Work, read_tables, works
from servsim.cost.attention import DecodeAttention, PrefillAttention
from servsim.cost.pieces import at_least, raised, through, upper_envelope
from servsim.hardware import Device, load_device
from servsim.model.operators import Attention

ROOT = Path(__file__).parents[2]
H100, A100 = (load_device(ROOT / "hardware" / f"{name}.yaml") for name in ("h100-sxm", "a100-80gb-sxm"))


def attention(heads: int, kv_heads: int) -> Attention:
    """One layer with heads of 128 and KV in bf16."""
    return Attention(
        1, "bf16", 512.0 * heads, 512.0 * heads, 512.0 * kv_heads, 512.0 * heads, "bf16", heads, kv_heads, 128
    )


def held_back(data: Path, kind: str) -> tuple[Work, np.ndarray]:
    tables = read_tables([data / "kernels" / "h100_sxm" / f"{kind}_attention_perf.parquet"])
    work = next(work for work in works(tables, H100) if work.dtype == "bf16")
    return work, np.flatnonzero(work.held_back)


def test_decode_attention_of_a_step_against_measured_kernels(servsim_data: Path) -> None:
    work, rows = held_back(servsim_data, "generation")
    errors = []
    for row in rows:
        length, group = work.axes["length"][row], work.axes["group"][row]
        # The work is sequences x key-value heads: what one sequence of so many heads does, so do many of one.
        kv_heads = int(min(8, work.axes["work"][row]))
        decoders = int(work.axes["work"][row] / kv_heads)
        layer = DecodeAttention(attention(round(group * kv_heads), kv_heads), H100)
        attended = decoders * length
        pieces = layer.pieces(decoders)
        constant, slope = next((c, s) for limit, c, s in pieces if attended <= limit)
        errors.append(abs((constant + slope * attended) / work.seconds[row] - 1))
    assert np.median(errors) <= 0.05 and np.percentile(errors, 90) <= 0.15


def test_prefill_attention_of_a_step_against_measured_kernels(servsim_data: Path) -> None:
    work, rows = held_back(servsim_data, "context")
    errors = []
    for row in rows[::5]:
        length, group, both, kv_heads = (work.axes[name][row] for name in ("length", "group", "work", "kv_heads"))
        heads = round(group * kv_heads)
        sequences = both / heads
        layer = PrefillAttention(attention(heads, int(kv_heads)), H100)
        new = round(sequences * length)
        found = layer.time_s(new, new, sequences * length * length / 2)
        errors.append(abs(found / work.seconds[row] - 1))
    assert np.median(errors) <= 0.05 and np.percentile(errors, 90) <= 0.16


def test_a_chunk_with_a_prefix_costs_more_than_one_without_and_less_than_the_whole() -> None:
    layer = PrefillAttention(attention(32, 8), H100)

    def chunk(new: int, stored: int) -> float:
        return layer.time_s(new, new + stored, new * stored + 0.5 * new * new)

    assert chunk(512, 0) < chunk(512, 4096) < chunk(4608, 0)
    assert chunk(2048, 100_000) > 2.5 * chunk(2048, 30_000)  # beyond the longest that was measured as well


def test_pieces_by_hand() -> None:
    pieces = through([(0.0, 1.0), (10.0, 1.0), (20.0, 3.0)], 0.5)
    assert pieces == [(10.0, 1.0, 0.0), (20.0, -1.0, pytest.approx(0.2)), (float("inf"), -7.0, 0.5)]
    assert through([(0.0, 2.0), (10.0, 1.0)], 0.0)[0] == (10.0, 2.0, 0.0)  # never falling
    assert raised([(10.0, 1.0, 0.5)], 3.0, 2.0) == [(10.0, 5.0, 1.0)]
    assert at_least(pieces, 0.5) == pieces
    assert at_least(pieces, 2.0)[0] == (pytest.approx(15.0), 2.0, 0.0)
    assert at_least([(float("inf"), 1.0, 0.0)], 2.0) == [(float("inf"), 2.0, 0.0)]
    assert upper_envelope([(1.0, 0.0), (0.0, 0.1)]) == [(10.0, 1.0, 0.0), (float("inf"), 0.0, 0.1)]


def with_extras(**extras: float) -> Device:
    """A device whose decode attention follows a plain maximum with some constants on top."""
    plain = H100.efficiency("attention_decode", "bf16").model_copy(update={"correction": None, "covers": {}} | extras)
    others = tuple(entry for entry in H100.efficiencies if entry.operator != "attention_decode")
    return H100.model_copy(update={"efficiencies": (*others, plain)})


def constant_s(device: Device, heads: int, kv_heads: int, decoders: int) -> float:
    return DecodeAttention(attention(heads, kv_heads), device).pieces(decoders)[0][1]


@pytest.mark.parametrize(
    ("heads", "kv_heads", "decoders", "regrouped", "several"),
    [(32, 8, 4, 1, 1), (32, 8, 1, 0, 1), (8, 8, 4, 0, 1), (8, 1, 4, 0, 0), (1, 1, 1, 0, 0)],
)
def test_copies_of_queries_and_several_key_value_heads_cost_a_constant_each(
    heads: int, kv_heads: int, decoders: int, regrouped: int, several: int
) -> None:
    plain = constant_s(with_extras(), heads, kv_heads, decoders)
    copied = constant_s(with_extras(regrouping_s=4e-6), heads, kv_heads, decoders)
    both = constant_s(with_extras(regrouping_s=4e-6, several_heads_s=1e-6), heads, kv_heads, decoders)
    assert copied - plain == pytest.approx(4e-6 * regrouped, abs=1e-12)
    assert both - copied == pytest.approx(1e-6 * several, abs=1e-12)


def test_prefill_of_few_key_value_heads_goes_by_their_own_correction() -> None:
    found = [
        PrefillAttention(attention(heads, heads), A100).time_s(tokens, tokens, tokens * 256)
        for heads, tokens in ((4, 16 * 512), (32, 2 * 512))
    ]
    # As many heads of as many prompts of 512 tokens: the tables have 150 us for 16 x 4 heads and 78 us for 2 x 32.
    assert found[0] / found[1] == pytest.approx(150.2 / 78.5, rel=0.2)
