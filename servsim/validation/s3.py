"""S3: throughput with memory reserved for predicted lengths, against the longest that there could be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from servsim.simulation import Result
from servsim.validation.claim import Claim, Finding, Measured, factor, policy_variant, ratio

__all__ = ["S3_THROUGHPUT"]

_MODELS = ("llama-2-7b", "llama-2-13b")
_BUDGETS = {"max_num_seqs": 1024, "max_num_batched_tokens": 8192}
_BUCKETS = "{name: bucket, edges: [102, 204, 307, 409, 512, 614, 716, 819, 921, 1024], accuracy: 0.77}"
_POLICIES: dict[str, dict[str, object]] = {
    "worst case": {"policy": "orca", "reserve": "max"},
    "s3": {"policy": "s3"},
    "s3, 77 % right": {"policy": "s3", "predictor": _BUCKETS},
}


def _measure(result: Result) -> Mapping[str, float]:
    return {
        "throughput": result.summary["throughput"]["requests_per_s"],
        "batch": result.summary["batches"]["decode_seqs_mean"],
    }


def _find(measured: Measured) -> Sequence[Finding]:
    found = []
    for model in _MODELS:
        worst, ours = measured[f"worst case, {model}"], measured[f"s3, {model}"]
        mistaken = ratio(measured[f"s3, 77 % right, {model}"]["throughput"], worst["throughput"])
        what = f"throughput, {model} (mean batch {ours['batch']:.0f} for {worst['batch']:.0f}; "
        what += f"with 77 % of the buckets right: {mistaken:.2f} x)"
        found.append(factor(what, "up to 6.49 x", ratio(ours["throughput"], worst["throughput"]), 6.49))
    return found


S3_THROUGHPUT = Claim(
    name="s3",
    statement="S3 has up to 6.49 times the throughput of systems that reserve for the longest possible output",
    source="Jin et al., S3: Increasing GPU Utilization during Generative Inference, NeurIPS 2023 (arXiv 2306.06000)",
    scenario="papers/s3",
    variants=tuple(
        policy_variant(f"{policy}, {model}", {**keys, **_BUDGETS}, model=model)
        for policy, keys in _POLICIES.items()
        for model in _MODELS
    ),
    measure=_measure,
    find=_find,
    assumptions=(
        "Llama-2-7B and 13B on one A100 80 GB for the paper's GPT-J and others; Alpaca-like lognormal lengths",
        "offline: 5,000 requests at once; the worst case reserves 2,048 tokens a request (Orca)",
        "the predictor is right (the paper: 77 to 98 % by data set); no SLO on latency",
    ),
    likely_reason="the worst case still has a batch of tens here, and a batch ten times as large takes longer steps: "
    "matrix products of hundreds of sequences are bound by compute, attention reads ten times the KV; the last long "
    "outputs run in a small batch. A larger model, or a longer maximum, gains more",
)
