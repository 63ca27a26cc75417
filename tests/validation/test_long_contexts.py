"""What claims about long contexts and conversations measure, against what can be reckoned by hand."""

from __future__ import annotations

import math

import pytest

from servsim.errors import ScenarioError
from servsim.validation import CLAIMS, plan_trials, reproduce
from servsim.validation.pensieve import PENSIEVE
from servsim.validation.reproducing import run_trial


def measured(name: str, label: str, *overrides: str) -> dict[str, float]:
    claim = CLAIMS[name]
    trials = plan_trials(claim, 1, overrides)
    (trial,) = (trial for trial in trials if claim.variants[trial.variant].label == label)
    found = run_trial(trial)
    assert isinstance(found, dict)
    return found


def test_a_million_tokens_of_llama_3_take_128_gib_and_two_heads_of_256_take_one():
    standard, ours = (measured("headinfer", label)["kv"] for label in ("standard, 1M", "headinfer, 1M"))
    assert standard == pytest.approx(2**20 * 131_072 / 2**30) == 128
    assert ours == 1


def test_headinfer_copies_all_kv_for_each_token():
    """131,072 bytes for each of a million tokens over 24.8 GB/s: longer than the step computes."""
    gap_s = measured("headinfer", "headinfer, 1M")["gap"]
    assert gap_s == pytest.approx(2**20 * 131_072 / 24.8e9, rel=1e-4)


def test_a_card_of_24_gb_holds_4_million_tokens_only_without_most_of_their_kv():
    longest = measured("headinfer", "headinfer, 4M")
    assert longest["finished"] == 1
    assert longest["kv"] == 4
    # With all KV on the device the same card has room for less than a hundredth of them, and rejects the request.
    plain = measured("headinfer", "headinfer, 4M", "instance.memory.compression={}")
    assert plain["plain tokens"] == pytest.approx(longest["plain tokens"], rel=1e-3)
    assert plain["plain tokens"] < 0.01 * 4 * 2**20
    assert plain["finished"] == 0


def test_a_switch_between_two_contexts_takes_their_kv_out_and_in():
    """50,000 tokens and up to 1,000 more, 245,760 bytes each, one way and then the other at 24.8 GB/s."""
    switch_s = measured("long-context", "50k switching")["switch"]
    least_s, most_s = (2 * tokens * 245_760 / 24.8e9 for tokens in (50_000, 51_000))
    assert least_s < switch_s < most_s + 0.01
    by_block_s = measured("long-context", "50k switching, block by block")["switch"]
    # Launches add up: 5 us for each of two tensors a layer and block, out and in.
    assert by_block_s - switch_s == pytest.approx(2 * 3_130 * 2 * 60 * 5e-6, rel=0.03)


def test_one_user_of_50k_tokens_fits_an_a100_beside_34b_weights_and_14_to_15_of_4k():
    """(84,987,740,160 - 68.8e9 - 1.3e9) bytes hold 60,500 tokens."""
    assert measured("long-context", "50k crowd")["users"] == 1
    assert measured("long-context", "4k crowd")["users"] in (14, 15)


def test_conversations_that_are_kept_are_answered_sooner():
    cut_short = ("workload.duration_s=300", "metrics.warmup_s=100")
    ours, theirs = (measured("pensieve", label, *cut_short) for label in ("pensieve, 0.65/s", "vllm, 0.65/s"))
    assert ours["kept"] > 0.5
    assert theirs["kept"] == 0
    assert ours["latency"] < theirs["latency"]


def test_the_throughput_of_conversations_is_the_highest_rate_up_to_which_all_keep_the_bound():
    def found(bound_broken_at: dict[str, float]) -> float:
        figures = {}
        for variant in PENSIEVE.variants:
            system, rate = variant.label.rsplit(", ", 1)
            late = float(rate.removesuffix("/s")) >= bound_broken_at.get(system, 0.0)
            figures[variant.label] = {"latency": 0.2 if late else 0.1, "kept": 0.5}
        return PENSIEVE.find(figures)[0].ours

    assert found({"pensieve": 0.95, "vllm": 0.65}) == pytest.approx(0.9 / 0.6)
    assert found({"pensieve": 9, "vllm": 0.5}) == pytest.approx(1.1 / 0.4)
    assert math.isnan(found({"pensieve": 0.95}))


def test_copies_in_groups_and_beside_the_steps_make_waits_shorter():
    """The more a switch of priorities costs, the longer the tails."""
    cut_short = ("workload.num_requests=800",)
    found = [
        measured("fastswitch", f"{copies}, random, 1/s", *cut_short) for copies in ("FastSwitch", "groups", "vLLM")
    ]
    assert found[0]["ttft"] < found[1]["ttft"] < found[2]["ttft"]
    assert max(found[0]["gap"], found[1]["gap"]) < found[2]["gap"]
    assert found[0]["throughput"] > found[2]["throughput"]


def test_a_claim_that_cannot_be_set_up_says_so_before_anything_runs():
    with pytest.raises(ScenarioError, match="positions"):
        reproduce([CLAIMS["headinfer"]], 1, 1, None, ["model=llama-3.1-8b", "instance.max_model_len=1000000"])
