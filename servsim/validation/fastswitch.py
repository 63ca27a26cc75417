"""FastSwitch's workload: what changing priorities cost, by how the KV is copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from servsim.simulation import Result
from servsim.validation.claim import Claim, Finding, Measured, factor, policy_variant, ratio

__all__ = ["FASTSWITCH"]

_RATES = (2.5, 3.0, 3.5)
_RATE = 3.0
_PATTERNS = ("random", "markov")
_COPIES = {"blocks": 1, "runs": 16}
_SCHEDULER = {"policy": "priority_trace", "max_num_seqs": 128, "updates_per_iteration": 0.04, "swap_space_gib": 60}
_FIGURES = {"ttft": "P99 TTFT", "gap": "P99 gap between tokens"}


def _measure(result: Result) -> Mapping[str, float]:
    return {"ttft": result.summary["ttft_s"]["p99"], "gap": result.summary["itl_s"]["p99"]}


def _label(copies: str, pattern: str, rate_per_s: float) -> str:
    return f"{copies}, {pattern}, {rate_per_s:g}/s"


def _find(measured: Measured) -> Sequence[Finding]:
    def times(figure: str, pattern: str, rate: float) -> float:
        return ratio(*(measured[_label(copies, pattern, rate)][figure] for copies in ("blocks", "runs")))

    found = []
    for figure, name in _FIGURES.items():
        for pattern in _PATTERNS:
            others = "; ".join(f"{rate:g}/s: {times(figure, pattern, rate):.2f} x" for rate in _RATES if rate != _RATE)
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
            {**_SCHEDULER, "pattern": pattern, "blocks_per_copy": blocks},
            workload__arrivals__rate_per_s=rate,
        )
        for copies, blocks in _COPIES.items()
        for pattern in _PATTERNS
        for rate in _RATES
    ),
    measure=_measure,
    find=_find,
    assumptions=(
        "of FastSwitch only its block groups: KV copied in runs of 16 blocks, against block by block, 5 us a copy",
        "an RTX 4090 for the paper's A10; single requests with longer prompts for its conversations; 60 GiB of swap",
        "3 requests/s, found by trying: memory binds there; the tails at 2.5 and 3.5 beside it",
    ),
    likely_reason="asynchronous swap-in and reuse of host copies are not modelled; where few tokens are held up by a "
    "swap, the P99 gap is that of a step with a prefill, whatever copies cost",
    repeats=3,
)
