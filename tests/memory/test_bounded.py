"""KV that is kept in part: budgets, windows, and what attention reads of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import whole_runs
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from servsim.cost.decode_extra import DecodeExtra
from servsim.cost.fixed import FixedCost
from servsim.errors import ScenarioError
from servsim.hardware import load_link
from servsim.memory.bounded import BoundedAllocator
from servsim.memory.kept import KvBounds
from servsim.memory.surroundings import KvShape, MemorySurroundings
from servsim.request import Sequence
from servsim.scenario import catalogue, load_scenario
from servsim.simulation import simulate


def memory(blocks: int = 100, block_size: int = 4, window: int | None = None, **parameters: Any) -> BoundedAllocator:
    settings = BoundedAllocator.Parameters(**parameters)
    kv = KvShape(sliding_window=window)
    return BoundedAllocator(MemorySurroundings(blocks + 1, block_size, 1 << 20, settings, kv=kv))


def prefilled(held: BoundedAllocator, prompt_tokens: int) -> Sequence:
    sequence = Sequence(0, 0.0, prompt_tokens, 1000, 0, 0, 0, ())
    round_ = held.round()
    assert round_.admit(sequence, prompt_tokens, alone=True)
    held.commit(round_)
    sequence.kv_tokens = prompt_tokens
    sequence.generated_tokens = 1
    return sequence


@pytest.mark.parametrize(
    ("bounds", "prompt_tokens", "tokens", "kept"),
    [
        (KvBounds(), 10, 25, 25),
        (KvBounds(total=8), 10, 5, 5),
        (KvBounds(total=8), 10, 25, 8),
        (KvBounds(prompt=4), 10, 3, 3),
        (KvBounds(prompt=4), 10, 10, 4),
        (KvBounds(prompt=4), 10, 25, 19),  # 4 of the prompt and 15 generated
        (KvBounds(prompt=4, total=12), 10, 25, 12),
    ],
)
def test_what_counts(bounds: KvBounds, prompt_tokens: int, tokens: int, kept: int) -> None:
    assert bounds.of(prompt_tokens, tokens) == kept


def test_a_budget_frees_the_rest_of_a_prompt_and_grows_until_it_is_full() -> None:
    held = memory(keep_tokens=12)
    sequence = prefilled(held, 30)
    assert held.used_blocks == 8  # while the prompt is computed all of it is there
    held.join(sequence)
    assert (held.used_blocks, held.stored_tokens) == (3, 12)
    held.advance(50)
    assert (held.used_blocks, held.stored_tokens) == (3, 12)

    short = memory(keep_tokens=12)
    sequence = prefilled(short, 6)
    short.join(sequence)
    assert short.steps_until_full(1000) == 6  # the stride ends where it grows no more
    short.advance(6)
    assert (short.used_blocks, short.stored_tokens) == (3, 12)
    assert short.steps_until_full(1000) == 1000
    short.advance(100)
    assert short.stored_tokens == 12
    sequence.kv_tokens = 112
    short.leave(sequence)
    short.release(sequence)
    assert (short.used_blocks, short.stored_tokens) == (0, 0)


def test_a_budget_for_the_prompt_keeps_all_that_is_generated() -> None:
    held = memory(keep_prompt_tokens=8)
    sequence = prefilled(held, 30)
    held.join(sequence)
    held.advance(10)
    assert (held.used_blocks, held.stored_tokens) == (5, 18)


def test_a_sliding_window_reuses_the_blocks_of_a_prompt() -> None:
    held = memory(blocks=3, window=12, sliding_window=True)
    assert held.fits(1 << 19)
    sequence = prefilled(held, 30)
    assert held.used_blocks == 3
    held.join(sequence)
    held.advance(50)
    assert held.used_blocks == 3


def scenario(**memory: Any) -> dict[str, Any]:
    return {
        "model": "llama-3.1-8b",
        "instance": {
            "hardware": "h100-sxm",
            "scheduler": {"max_num_seqs": 16, "max_num_batched_tokens": 512},
            "memory": memory,
            "max_model_len": 4000,
        },
        "workload": {
            "arrivals": {"process": "poisson", "rate_per_s": 20},
            "lengths": {
                "prompt_tokens": {"distribution": "uniform", "min": 1, "max": 300},
                "output_tokens": {"distribution": "uniform", "min": 1, "max": 400},
            },
            "num_requests": 40,
        },
    }


KEPT = [
    {"keep_tokens": 64},
    {"keep_prompt_tokens": 32},
    {"keep_prompt_tokens": 50, "keep_tokens": 90},
]
COMPRESSED = [
    {"stored_share": 0.25},
    {"read_tokens": 50},
    {"read_tokens": 50, "scan_share": 0.125, "stored_share": 0.5, "step_s": 1e-3, "sequence_s": 1e-4},
    {"scan_share": 0.25},
    {"fetch_share": 1.0, "link": "pcie-gen4-x16", "stored_share": 0.1},
    {"fetch_share": 0.02, "link": "pcie-gen4-x16"},
    {"fetch_share": 0.5, "link": "pcie-gen4-x16", "overlapped": False, "read_tokens": 64},
]


@pytest.mark.parametrize("policy", ["fcfs", "vllm_v0", "sglang", "lightllm", "sarathi", "trail", "priority_trace"])
@pytest.mark.parametrize("kept", KEPT)
@examples(3)
@given(seed=st.integers(0, 1000), blocks=st.sampled_from([45, 60, 400]))
def test_strides_are_exact_with_kv_that_is_kept_in_part(
    policy: str, kept: dict[str, int], seed: int, blocks: int
) -> None:
    base = scenario(allocator="bounded", num_blocks=blocks, **kept)
    overrides = (f"seed={seed}", f"instance.scheduler.policy={policy}", "instance.memory.compression.read_tokens=40")
    whole_runs.strided_equals_single(base, *overrides)


@pytest.mark.parametrize("compression", COMPRESSED)
@examples(4)
@given(seed=st.integers(0, 1000))
def test_strides_are_exact_with_compressed_kv(compression: dict[str, Any], seed: int) -> None:
    base = scenario(allocator="paged", num_blocks=200, compression=compression)
    whole_runs.strided_equals_single(base, f"seed={seed}")


def one_request(**memory: Any) -> dict[str, Any]:
    lone = scenario(**memory)
    lone["instance"]["max_model_len"] = 20_000
    lone["instance"]["scheduler"]["max_num_batched_tokens"] = 16_384
    lone["workload"] = {
        "arrivals": {"process": "constant", "rate_per_s": 1},
        "lengths": {"prompt_tokens": 10_000, "output_tokens": 100},
        "num_requests": 1,
    }
    return lone


def test_a_bounded_read_costs_what_a_short_context_costs() -> None:
    """Of 10,000 tokens 512 are read, so that a decode step is that of a sequence of 512 tokens."""
    sparse = simulate(one_request(compression={"read_tokens": 512})).strides
    decode = sparse[sparse["prefill_tokens"] == 0]
    assert decode["first_step_s"].nunique() == 1
    short = one_request()
    short["workload"]["lengths"]["prompt_tokens"] = 511
    plain = simulate(short).strides
    assert decode["first_step_s"].iloc[0] == plain[plain["prefill_tokens"] == 0]["first_step_s"].iloc[0]


def test_the_copy_of_all_kv_takes_the_link_s_time() -> None:
    strides = simulate(one_request(compression={"fetch_share": 1.0, "link": "pcie-gen4-x16"})).strides
    decode = strides[strides["prefill_tokens"] == 0]
    bandwidth = load_link(catalogue.locate("hardware", "pcie-gen4-x16")).read_bandwidth_bytes_per_s
    assert decode["first_step_s"].iloc[0] == pytest.approx(10_001 * 131_072 / bandwidth)
    assert decode["steps"].sum() == 99


@given(
    first_s=st.floats(1e-3, 1e-2),
    growth_s=st.floats(0, 1e-5),
    token_s=st.floats(0, 1e-6),
    context=st.integers(1, 10**5),
)
def test_the_longer_of_copy_and_computation_counts_in_every_step(
    first_s: float, growth_s: float, token_s: float, context: int
) -> None:
    class Growing(FixedCost):
        def decode_stride(self, start_s: float, decoders: int, context_tokens: float, *rest: Any) -> Any:
            stride = super().decode_stride(start_s, decoders, context_tokens)
            stride.first_s, stride.growth_s = first_s, growth_s
            return stride

    stride = DecodeExtra(Growing(1.0, 1.0), token_s=token_s).decode_stride(0.0, 3, context)
    for step in {1, min(stride.limit, 7), min(stride.limit, 1000)}:
        inner_s = first_s + (step - 1) * growth_s
        copy_s = token_s * (context + 3 * step)
        assert stride.step_s(step) == pytest.approx(max(inner_s, copy_s), rel=1e-9)


def test_kv_of_a_quarter_of_the_size_has_four_times_the_blocks() -> None:
    plain = simulate(scenario()).strides["kv_blocks_total"].iloc[0]
    quarter = simulate(scenario(compression={"stored_share": 0.25})).strides["kv_blocks_total"].iloc[0]
    assert quarter == pytest.approx(4 * plain, rel=1e-3)


def test_a_budget_lets_more_requests_run() -> None:
    tight = {"num_blocks": 60}
    plain = simulate(scenario(allocator="paged", **tight))
    kept = simulate(scenario(allocator="bounded", keep_tokens=64, **tight))
    assert kept.summary["preemptions"]["total"] < plain.summary["preemptions"]["total"]
    assert np.nanmean(kept.requests["e2e_s"]) < np.nanmean(plain.requests["e2e_s"])


@pytest.mark.parametrize(
    ("memory", "message"),
    [
        ({"allocator": "bounded", "sliding_window": True, "keep_tokens": 5}, "a sliding window is the bound"),
        ({"compression": {"fetch_share": 0.5}}, "fetch_share needs a link"),
        ({"compression": {"link": "pcie-gen4-x16"}}, "nothing is copied over a link"),
        ({"compression": {"fetch_share": 0.5, "link": "pcie-gen9"}}, "pcie-gen9"),
        ({"tiers": {"cpu": {"capacity": "1 GiB", "link": "pcie-gen4-x16"}}}, "keeps nothing below the device"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(memory: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message) as caught:
        load_scenario(scenario(**memory))
    assert "instance.memory" in str(caught.value)


def test_a_model_without_a_window_has_none_to_keep() -> None:
    with pytest.raises(ScenarioError, match="no sliding window") as caught:
        simulate(scenario(allocator="bounded", sliding_window=True))
    assert "instance.memory" in str(caught.value)
