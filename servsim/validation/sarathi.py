"""Sarathi-Serve: the tail of the time between tokens, and the load that keeps a bound on it, against vLLM v0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from servsim.simulation import Result
from servsim.validation.claim import Claim, Finding, Measured, factor, policy_variant, ratio

__all__ = ["SARATHI"]

_RATES = (0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.25, 2.5, 2.75, 3.0, 3.25, 3.5, 4.0)
_STRICT_S, _QUEUE_S = 0.1, 2.0


def _measure(result: Result) -> Mapping[str, float]:
    summary = result.summary
    return {"gap": summary["itl_s"]["p99"], "tpot": summary["tpot_s"]["p99"], "queue": summary["queue_s"]["p50"]}


def _label(policy: str, rate_per_s: float) -> str:
    return f"{policy}, {rate_per_s:g}/s"


def _capacity(measured: Measured, policy: str) -> float:
    """The highest rate up to which all rates keep the bounds; NaN if the lowest does not."""
    highest = float("nan")
    for rate in _RATES:
        found = measured[_label(policy, rate)]
        if found["gap"] > _STRICT_S or found["queue"] > _QUEUE_S:
            break
        highest = rate
    return highest


def _find(measured: Measured) -> Sequence[Finding]:
    ours, theirs = _capacity(measured, "sarathi"), _capacity(measured, "vllm_v0")
    rate = 2.0
    stalled, smooth = measured[_label("vllm_v0", rate)], measured[_label("sarathi", rate)]
    what = f"capacity with P99 gap <= {_STRICT_S:g} s ({ours:g}/s for {theirs:g}/s)"
    gap = f"P99 gap between tokens, {rate:g}/s, v0's over Sarathi's ({1e3 * stalled['gap']:.0f} for "
    gap += f"{1e3 * smooth['gap']:.0f} ms; P99 TPOT {1e3 * stalled['tpot']:.0f} for {1e3 * smooth['tpot']:.0f} ms)"
    found = factor(gap, "shorter", ratio(stalled["gap"], smooth["gap"]), 1.5, float("inf"))
    return [factor(what, "up to 2.6 x", ratio(ours, theirs), 2.6), found]


SARATHI = Claim(
    name="sarathi",
    statement="Sarathi-Serve cuts the tail of the time between tokens, and so serves up to 2.6 times vLLM's load "
    "(Mistral-7B, one A100)",
    source="Agrawal et al., Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve, OSDI 2024",
    scenario="papers/sarathi",
    variants=tuple(
        policy_variant(
            _label(policy, rate),
            {"policy": policy, "max_num_seqs": 128, "max_num_batched_tokens": 8192},
            workload__arrivals__rate_per_s=rate,
        )
        for policy in ("sarathi", "vllm_v0")
        for rate in _RATES
    ),
    measure=_measure,
    find=_find,
    assumptions=(
        "Llama-3.1-8B for Mistral-7B; lognormal lengths through the published median and P90 of openchat_sharegpt4",
        "chunks of 512; strict bound of 0.1 s on the P99 gap, median queueing at most 2 s, as we understand the paper",
        "shorter: by half again at 2 requests/s, our threshold; capacities to the next of the rates tried",
    ),
    likely_reason="v0 stalls for whole prompts; their lengths decide at which load the P99 gap passes 0.1 s",
)
