"""FastSwitch's workload: what changing priorities cost, by how the KV is copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from servsim.simulation import Result
from servsim.validation.claim import Claim, Finding, Measured, factor, policy_variant, ratio

__all__ = ["FASTSWITCH"]

_RATES = (2.5, 3.0, 3.5)
_RATE = 3.0
_PATTERNS = ("random", "markov")
_SCHEDULER = {"policy": "priority_trace", "max_num_seqs": 128, "updates_per_iteration": 0.04}
_COPIES = {
    "vLLM": {"swap_copies": "blocking", "copy_granularity": "blocks"},
    "groups": {"swap_copies": "blocking", "copy_granularity": "groups"},
    "FastSwitch": {"swap_copies": "async", "copy_granularity": "groups"},
}
_FIGURES = {"ttft": "P99 TTFT", "gap": "P99 gap between tokens"}


def _measure(result: Result) -> Mapping[str, float]:
    return {"ttft": result.summary["ttft_s"]["p99"], "gap": result.summary["itl_s"]["p99"]}


def _label(copies: str, pattern: str, rate_per_s: float) -> str:
    return f"{copies}, {pattern}, {rate_per_s:g}/s"


def _find(measured: Measured) -> Sequence[Finding]:
    def times(figure: str, pattern: str, rate: float, copies: str = "FastSwitch") -> float:
        return ratio(*(measured[_label(one, pattern, rate)][figure] for one in ("vLLM", copies)))

    found = []
    for figure, name in _FIGURES.items():
        for pattern in _PATTERNS:
            others = "; ".join(f"{rate:g}/s: {times(figure, pattern, rate):.2f} x" for rate in _RATES if rate != _RATE)
            others += f"; block groups alone: {times(figure, pattern, _RATE, 'groups'):.2f} x"
            what = f"{name}, {pattern} updates, {_RATE:g}/s ({others})"
            found.append(factor(what, "1.4-11.2 x", times(figure, pattern, _RATE), 1.4, 11.2))
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
            instance__memory__tiers={"cpu": {"capacity": "60 GiB", "link": "pcie-gen4-x16"}},
            workload__arrivals__rate_per_s=rate,
        )
        for copies, keys in _COPIES.items()
        for pattern in _PATTERNS
        for rate in _RATES
    ),
    measure=_measure,
    find=_find,
    assumptions=(
        "of FastSwitch its block groups, with a sequence's KV as one run, against block by block, 5 us a copy, and "
        "that others run while copies are under way (always; it decides case by case); not its reuse of host copies",
        "an RTX 4090 for the paper's A10; single requests with longer prompts for its conversations; 60 GiB of swap",
        "3 requests/s, found by trying: memory binds there; the tails at 2.5 and 3.5 beside it",
    ),
    likely_reason="the reuse of host copies is not modelled; where few tokens are held up by a "
    "swap, the P99 gap is that of a step with a prefill, whatever copies cost",
    repeats=3,
)
