"""FastServe: mean and tail completion time against Orca."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from servsim.simulation import Result
from servsim.validation.claim import Claim, Finding, Measured, factor, policy_variant, ratio
from servsim.validation.measures import overtime

__all__ = ["FASTSERVE"]

_RATES = (1.0, 1.5, 2.0, 2.5, 3.0)
_PLACES = (64, 8)
_TIERS = {"cpu": {"capacity": "60 GiB", "link": "pcie-gen4-x16"}}
_POLICIES: dict[str, dict[str, object]] = {
    "orca": {"policy": "orca", "reserve": "declared"},
    "fastserve": {"policy": "fastserve", "swap_copies": "async", "copy_granularity": "groups"},
    "blocking copies": {"policy": "fastserve", "copy_granularity": "groups"},
    "free copies": {"policy": "fastserve", "swap_space_gib": 60, "copy_bandwidth_gb_per_s": 1e6},
    "fcfs": {"policy": "fcfs"},
}


def _measure(result: Result) -> Mapping[str, float]:
    e2e_s = result.summary["e2e_s"]
    return {"mean": e2e_s["mean"], "tail": e2e_s["p99"], "overtime": overtime(result)}


def _label(policy: str, places: int, rate_per_s: float) -> str:
    return f"{policy}, {places} places, {rate_per_s:g}/s"


def _find(measured: Measured) -> Sequence[Finding]:
    def heavy(places: int) -> float:
        """The highest rate at which Orca keeps up: beyond it the ratio grows with the length of the run."""
        kept = [rate for rate in _RATES if measured[_label("orca", places, rate)]["overtime"] <= 0.1]
        return max(kept, default=_RATES[0])

    def times(figure: str, policy: str, places: int) -> float:
        rate = heavy(places)
        return ratio(measured[_label("orca", places, rate)][figure], measured[_label(policy, places, rate)][figure])

    found = []
    for places in _PLACES:
        for figure, name, published in (("mean", "mean", 5.1), ("tail", "P99", 6.4)):
            what = f"{name} completion time, Orca's over FastServe's, {places} places, {heavy(places):g}/s"
            blocking, free = times(figure, "blocking copies", places), times(figure, "free copies", places)
            what += f" (if steps waited for copies: {blocking:.2f} x; if copies took no time: {free:.2f} x"
            what += f"; vLLM v1 in FastServe's place: {times(figure, 'fcfs', places):.2f} x)"
            found.append(factor(what, f"up to {published} x", times(figure, "fastserve", places), published))
    return found


FASTSERVE = Claim(
    name="fastserve",
    statement="FastServe's mean and tail completion times are up to 5.1 and 6.4 times better than Orca's",
    source="Wu et al., Fast Distributed Inference Serving for LLMs, 2023 (arXiv 2305.05920, first version)",
    scenario="papers/fastserve",
    variants=tuple(
        policy_variant(
            _label(policy, places, rate),
            {**keys, "max_num_seqs": places, "max_num_batched_tokens": 2048},
            instance__memory__tiers=_TIERS if "copy_granularity" in keys else {},
            workload__arrivals__rate_per_s=rate,
        )
        for policy, keys in _POLICIES.items()
        for places in _PLACES
        for rate in _RATES
    ),
    measure=_measure,
    find=_find,
    assumptions=(
        "OPT-13B on one A100, 36 GB of it used; Zipf lengths (exponent 0.9, up to 1,024), gamma arrivals",
        "Orca reserves prompt and declared maximum (1,024); 60 GiB of host memory",
        "64 places in a batch, and 8; the highest of five rates that Orca keeps up with; tail is P99",
        "copies over PCIe 4.0 beside the steps, a job's blocks as one run, so that their launches cost next to nothing",
    ),
    likely_reason="with many places the gain is that of memory which is not reserved for outputs that do not come; "
    "nobody waits, and vLLM has the same without preemption. With few places as much is "
    "computed, and requests of less than median length take 0.4 s for Orca's 15; but long jobs that sink pay for it in "
    "the tail, whatever copies cost, and jobs that take turns in little memory wait for the link",
)
