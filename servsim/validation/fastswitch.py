"""FastSwitch's workload: what changing priorities cost, by how the KV is copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from servsim.metrics.token_times import all_token_times
from servsim.simulation import Result
from servsim.validation.claim import Claim, Finding, Measured, factor, policy_variant, ratio
from servsim.validation.measures import quantile

__all__ = ["FASTSWITCH"]

_RATES = (0.5, 1.0)  # conversations
_RATE = 1.0
_PATTERNS = ("random", "markov")
_SCHEDULER = {
    "policy": "priority_trace",
    "max_num_seqs": 256,
    "max_num_batched_tokens": 2048,
    "updates_per_iteration": 0.04,
}
_COPIES = {
    "vLLM": {"swap_copies": "blocking", "copy_granularity": "blocks"},
    "groups": {"swap_copies": "blocking", "copy_granularity": "groups"},
    "FastSwitch": {"swap_copies": "async", "copy_granularity": "groups"},
}
_FIGURES = {"ttft": "P99 TTFT", "gap": "P99.9 gap between tokens"}


def _measure(result: Result) -> Mapping[str, float]:
    gaps_s = [np.diff(times) for _, times in all_token_times(result.records)]
    return {
        "ttft": result.summary["ttft_s"]["p99"],
        "gap": quantile(np.concatenate(gaps_s), 0.999),
        "throughput": result.summary["throughput"]["requests_per_s"],
    }


def _label(copies: str, pattern: str, rate_per_s: float) -> str:
    return f"{copies}, {pattern}, {rate_per_s:g}/s"


def _find(measured: Measured) -> Sequence[Finding]:
    def both(figure: str, pattern: str, rate: float, copies: str) -> tuple[float, float]:
        theirs, ours = (measured[_label(one, pattern, rate)][figure] for one in ("vLLM", copies))
        return theirs, ours

    def shorter(figure: str, pattern: str, rate: float = _RATE, copies: str = "FastSwitch") -> float:
        return ratio(*both(figure, pattern, rate, copies))

    found = []
    for figure, name in _FIGURES.items():
        for pattern in _PATTERNS:
            theirs_s, ours_s = both(figure, pattern, _RATE, "FastSwitch")
            what = f"{name}, {pattern} updates ({ours_s:.2f} for {theirs_s:.2f} s; block groups alone: "
            what += f"{shorter(figure, pattern, copies='groups'):.2f} x; at half the load: "
            what += f"{shorter(figure, pattern, _RATES[0]):.2f} x)"
            found.append(factor(what, "1.4-11.2 x", shorter(figure, pattern), 1.4, 11.2))
    for pattern in _PATTERNS:
        theirs, ours = both("throughput", pattern, _RATE, "FastSwitch")
        what = f"throughput, {pattern} updates ({ours:.2f} for {theirs:.2f} turns/s)"
        found.append(factor(what, "up to 1.44 x", ratio(ours, theirs), 1.44))
    return found


FASTSWITCH = Claim(
    name="fastswitch",
    statement="Under priorities that change every 25 steps, cheap context switches make tails of TTFT and of the time "
    "between tokens 1.4 to 11.2 times shorter than vLLM's",
    source="FastSwitch: Optimizing Context Switching Efficiency in Fairness-aware LLM Serving, 2024 (arXiv 2411.18424)",
    scenario="papers/fastswitch",
    variants=tuple(
        policy_variant(
            _label(copies, pattern, rate),
            {**_SCHEDULER, "pattern": pattern, **keys},
            workload__arrivals__rate_per_s=rate,
        )
        for copies, keys in _COPIES.items()
        for pattern in _PATTERNS
        for rate in _RATES
    ),
    measure=_measure,
    find=_find,
    assumptions=(
        "of FastSwitch its block groups, with a sequence's KV as one run, against block by block, 5 us a copy; and "
        "that others run during copies, always, where it decides case by case",
        "not its reuse of host copies across turns: in both systems a turn computes its history anew",
        "an uncalibrated A10; 1,000 conversations as ShareGPT's (5.5 turns), one a second as we read the paper, which "
        "is more than the card keeps up with; the next turn right after an answer; lognormal lengths by their means",
    ),
    likely_reason="in overload the tail of TTFT is that of waiting for a place, and lasts as long as the run does; "
    "under Markov updates few are displaced; the reuse of host copies is not modelled",
)
