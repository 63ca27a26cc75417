"""The claims about where KV lives: their figures on short runs, against what can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from servsim import load_scenario, simulate
from servsim.cost.attention import DecodeAttention
from servsim.setup import Setup
from servsim.validation import CLAIMS, find_claims, plan_trials
from servsim.validation.measures import highest_within, normalized_latency_s
from servsim.validation.reproducing import run_trial


def measured(claim_name, label, *overrides):
    """What a claim's variant measures when it is cut short."""
    (claim,) = find_claims([claim_name])
    (trial,) = [one for one in plan_trials(claim, 1, overrides) if claim.variants[one.variant].label == label]
    found = run_trial(trial)
    assert isinstance(found, dict), found
    return found


def test_the_highest_rate_is_the_last_before_the_bound_is_passed_for_the_first_time():
    assert highest_within({1.0: 0.1, 3.0: 0.2, 2.0: 0.3, 0.5: 0.1}, 0.25) == 1.0
    assert highest_within({1.0: 0.1, 2.0: 0.25}, 0.25) == 2.0
    assert np.isnan(highest_within({1.0: 0.3, 2.0: 0.1}, 0.25))
    assert np.isnan(highest_within({1.0: float("nan"), 2.0: 0.1}, 0.25))


def test_normalized_latency_is_the_mean_over_requests_of_latency_by_output_token():
    result = simulate("papers/paged-attention", ["workload.num_requests=30"])
    requests = result.records.requests
    by_hand = [
        (row["finish_s"] - row["arrival_s"]) / row["output_tokens"]
        for row in (dict(zip(requests, values, strict=True)) for values in zip(*requests.values(), strict=True))
    ]
    assert normalized_latency_s(result) == pytest.approx(sum(by_hand) / 30)


def test_orca_with_the_longest_reservation_runs_seven_at_a_time():
    """Of 15,696 slots a buddy allocator makes extents of 8,192, 4,096 and 2,048, room for 4 + 2 + 1 of 2,048."""
    cut_short = "workload.num_requests=150"
    orca = simulate("papers/paged-attention", _overrides("paged-attention", "orca, max, 8/s", cut_short))
    assert orca.records.strides["decode_seqs"].max() == 7
    found = measured("paged-attention", "orca, max, 8/s", cut_short)
    paged = measured("paged-attention", "vllm, 8/s", cut_short)
    assert found["batch"] < 7 < paged["batch"]
    assert found["latency"] > paged["latency"]
    assert found["wasted"] > 0.5 > 0.1 > paged["wasted"]


def _overrides(claim_name, label, *more):
    (variant,) = [variant for variant in CLAIMS[claim_name].variants if variant.label == label]
    return [*variant.overrides, *more]


def attention_s(tokens, shared_tokens=0):
    """A layer's decode attention of 32 sequences that attend to ``tokens`` each, less what is read for another."""
    setup = Setup.of(load_scenario("papers/chunk-attention"))
    pieces = DecodeAttention(setup.operators.attention, setup.device).pieces(32, shared_tokens)
    _, constant, slope = next(piece for piece in pieces if 32 * tokens <= piece[0])
    return constant + slope * 32 * tokens


def test_the_attention_of_paged_blocks_takes_the_time_of_reading_all_kv():
    """32 sequences that attend to 1,026 to 1,280 tokens each, their own new one included, in 255 steps."""
    found = measured("chunk-attention", "vllm, 1024 tokens, 32 answers of 256")
    call_s = np.mean([attention_s(tokens) for tokens in range(1026, 1281)])
    assert found["kernel"] == pytest.approx(32 / call_s, rel=0.01)


def test_a_shared_prompt_is_read_once():
    """Of the 1,024 tokens before each of 32 answers one copy is read: 31 times 1,024 are saved."""
    found = measured("chunk-attention", "chunk, 1024 tokens, 32 answers of 256")
    call_s = np.mean([attention_s(tokens, 31 * 1024) for tokens in range(1026, 1281)])
    assert found["kernel"] == pytest.approx(32 / call_s, rel=0.01)


def test_each_step_of_sharing_adds_throughput_behind_a_long_system_prompt():
    throughput = [
        measured("relay-attention", f"{system}, 2048 tokens, all at once", "workload.num_requests=150")["throughput"]
        for system in ("vllm", "vllm-ps", "relay")
    ]
    assert throughput[0] < 0.9 * throughput[1] < 0.8 * throughput[2]


def test_the_scenario_of_shadowkv_has_the_shares_that_its_claim_derives():
    written = load_scenario("papers/shadowkv").instance.memory.compression
    derived = load_scenario("papers/shadowkv", _overrides("shadowkv", "shadowkv, 60K")).instance.memory.compression
    for name in ("stored_share", "read_tokens", "scan_share", "fetch_share", "sequence_s"):
        assert getattr(written, name) == pytest.approx(getattr(derived, name), rel=0.03), name


def test_shadowkv_copies_the_values_of_the_chunks_that_are_new_at_the_speed_of_the_link():
    """51 sequences x 40 % of 960 tokens x 64 KiB of values over 24.8 GB/s: 51.8 ms a step, the longest part of it."""
    found = measured("shadowkv", "shadowkv, 60K")
    step_s = found["batch"] * 0.4 * 960 * 65_536 / 24.8e9
    assert found["batch"] == 51
    assert found["batch"] / found["tokens_per_s"] == pytest.approx(step_s, rel=0.02)
    assert measured("shadowkv", "shadowkv without copies, 60K")["tokens_per_s"] > found["tokens_per_s"]


def test_small_pages_hold_more_sequences_and_cost_more_calls():
    cut_short = "workload.num_requests=600"
    small, large, paged = (
        measured("vattention", f"{memory}, llama-3.1-8b", cut_short) for memory in ("64 KiB", "2 MiB", "paging")
    )
    assert large["batch"] < small["batch"] <= paged["batch"]
    assert paged["wasted"] < small["wasted"] < 0.1 < large["wasted"]
    assert paged["mapping"] == 0 < large["mapping"] < small["mapping"]


def test_mapping_a_prompt_takes_a_call_a_page_unless_its_pages_are_still_mapped():
    """16,384 tokens in groups of 64 (32 layers x 2 pages of 64 KiB, 1,024 bytes a token): 256 x 64 calls of 8.6 us."""
    plain, synchronous, deferred = (
        measured("vattention", f"prefills, {mapping}")["ttft"] for mapping in ("paging", "synchronous", "deferred")
    )
    assert synchronous - plain == pytest.approx(256 * 64 * 8.6e-6, rel=1e-6)
    assert deferred == pytest.approx(plain)


def test_what_outputs_of_a_prompt_share_is_counted_step_by_step():
    cut_short = "workload.num_requests=40"
    result = simulate(
        "papers/paged-attention-sharing", _overrides("paged-attention-sharing", "Alpaca, 6 outputs", cut_short)
    )
    saved = whole = 0
    for row in result.requests.itertuples():
        for stored in range(row.prompt_tokens + 1, row.prompt_tokens + row.output_tokens):
            saved += 5 * (row.prompt_tokens // 16)
            whole += 6 * -(-stored // 16)
    memory = result.summary["memory"]
    assert (memory["saved_block_steps"], memory["group_block_steps"]) == (saved, whole)
    found = measured("paged-attention-sharing", "Alpaca, 6 outputs", cut_short)
    assert found["saved"] == pytest.approx(100 * saved / whole)


def test_beams_share_more_the_more_often_they_are_replaced():
    cut_short = "workload.num_requests=40"
    saved = [
        measured("paged-attention-sharing", f"Alpaca, 6 beams, {often}", cut_short)["saved"]
        for often in ("0.1", "0.5", "1")
    ]
    outputs = measured("paged-attention-sharing", "Alpaca, 6 outputs", cut_short)["saved"]
    assert outputs < saved[0] < saved[1] < saved[2] < 100 * 5 / 6
