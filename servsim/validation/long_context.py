"""The four costs of long context: users at once, prefill, decoding, and the switch from one user to another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from servsim.simulation import Result
from servsim.sweep import Variant
from servsim.validation.claim import Claim, Finding, Measured, near, policy_variant, ratio

__all__ = ["LONG_CONTEXT"]

_ALONE, _SHORT = "50k alone", "4k alone"
_CROWD, _SHORT_CROWD = "50k crowd", "4k crowd"
_SWITCHES = {"groups": "50k switching", "blocks": "50k switching, block by block"}
_PROMPT, _CROWDED = "workload.lengths.prompt_tokens", "workload.num_requests"
_HOST = "{cpu: {capacity: 220 GB, link: pcie-gen4-x16}}"


def _measure(result: Result) -> Mapping[str, float]:
    summary = result.summary
    ttft_s = summary["ttft_s"]["mean"]
    return {
        "ttft": ttft_s,
        "decoding": summary["e2e_s"]["mean"] - ttft_s,
        "users": summary["batches"]["decode_seqs_max"],
        "switch": _switch_s(result),
    }


def _switch_s(result: Result) -> float:
    """By how much the longest step without prefill is longer than the shortest; NaN of one alone."""
    strides = result.records.strides
    decoding = (strides["prefill_tokens"] == 0) & (strides["decode_seqs"] > 0)
    step_s = ((strides["end_s"] - strides["start_s"]) / strides["steps"])[decoding]
    return float(np.ptp(step_s)) if len(step_s) > 1 else math.nan


def _find(measured: Measured) -> Sequence[Finding]:
    alone, short = measured[_ALONE], measured[_SHORT]
    switch, by_block = (measured[label]["switch"] for label in _SWITCHES.values())

    def seconds(what: str, published_s: float, ours_s: float, about: str = "") -> Finding:
        return near(what, f"{about}{published_s:g} s", ours_s, published_s, f"{ours_s:.2f} s")

    def users(what: str, published: int, label: str, about: str = "") -> Finding:
        ours = measured[label]["users"]
        return near(what, f"{about}{published}", ours, published, f"{ours:.0f}")

    prefill = f"prefill of 50,000 tokens ({ratio(alone['ttft'], short['ttft']):.1f} x that of 4,000, published 15.8)"
    decode = f"250 decode steps after 50,000 tokens ({ratio(alone['decoding'], short['decoding']):.2f} x those after "
    decode += "4,000, published 1.15)"
    switching = f"one user's KV out, another's in, 50,000 tokens each (copied block by block: {by_block:.2f} s)"
    return [
        users("users of 50,000 tokens at once", 1, _CROWD),
        users("users of 4,000 tokens at once", 20, _SHORT_CROWD, "about "),
        seconds(prefill, 14.1, alone["ttft"]),
        seconds("prefill of 4,000 tokens", 0.89, short["ttft"]),
        seconds(decode, 9.8, alone["decoding"]),
        seconds("250 decode steps after 4,000 tokens", 8.5, short["decoding"]),
        seconds(switching, 1.1, switch, "about "),
    ]


def _switching(label: str, granularity: str) -> Variant:
    scheduler = {
        "policy": "priority_trace",
        "max_num_seqs": 64,
        "max_num_batched_tokens": 2048,
        "copy_granularity": granularity,
    }
    return policy_variant(
        label, scheduler, instance__memory__tiers=_HOST, workload__num_requests=2, workload__lengths__output_tokens=1000
    )


LONG_CONTEXT = Claim(
    name="long-context",
    statement="50,000 tokens of context cost a 34B model on one A100 in four ways: users at once, prefill, decoding, "
    "and the switch between users",
    source="Fu, Challenges in Deploying Long-Context Transformers: A Theoretical Peak Performance Analysis, 2024 "
    "(arXiv 2405.08944)",
    scenario="papers/long-context",
    variants=(
        Variant(_ALONE, "50k-alone", {}),
        Variant(_SHORT, "4k-alone", {_PROMPT: "4000"}),
        Variant(_CROWD, "50k-crowd", {_CROWDED: "4"}),
        Variant(_SHORT_CROWD, "4k-crowd", {_PROMPT: "4000", _CROWDED: "60"}),
        *(_switching(label, granularity) for granularity, label in _SWITCHES.items()),
    ),
    measure=_measure,
    find=_find,
    assumptions=(
        "Yi-34B with 200,000 positions; 4K and 50K are 4,000 and 50,000 tokens of prompt; prefill in chunks of 2,048",
        "decoding: 250 steps, which the published seconds imply: 68 GB of weights and 11 GB of KV at 2 TB/s",
        "switching: 1.1 s is our reading, 11 GB of KV out and in at 20 GB/s of PCIe 4.0; here 24.8 GB/s, priorities "
        "that change every 25 steps, the longest step without prefill less the shortest",
        "users at once: those that decode together at most; all of the device's memory may be used",
    ),
    likely_reason="the paper reckons with peaks; here kernels reach 78 % of the peak in matrix products, 59 % in "
    "prefill attention and 70-73 % of the bandwidth, as measured on an A100, and 1.3 GB are runtime and activations",
)
