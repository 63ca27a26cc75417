"""Pensieve: conversations whose KV is kept between turns, against vLLM, which computes their history anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from servsim.records import FINISHED
from servsim.simulation import Result
from servsim.validation.claim import Claim, Finding, Measured, change, factor, ratio, variant

__all__ = ["PENSIEVE"]

_RATES = (0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.1)
_BOUND_S = 0.12
_BLOCKS = 3276  # 40 GiB
_SCHEDULER, _MEMORY, _RATE = "instance.scheduler", "instance.memory", "workload.arrivals.rate_per_s"
_V0 = "{policy: vllm_v0, max_num_seqs: 256, max_num_batched_tokens: 4096}"
_PENSIEVE, _VLLM, _STATELESS, _DEVICE = "pensieve", "vllm", "same batches, nothing kept", "kept on the device alone"
_SYSTEMS: dict[str, dict[str, str]] = {
    _PENSIEVE: {},
    _VLLM: {_SCHEDULER: _V0, _MEMORY: f"{{num_blocks: {_BLOCKS}}}"},
    _STATELESS: {_MEMORY: f"{{num_blocks: {_BLOCKS}}}"},
    _DEVICE: {_MEMORY: f"{{allocator: pensieve, num_blocks: {_BLOCKS}}}"},
}


def _measure(result: Result) -> Mapping[str, float]:
    """Of the turns that arrived after the warm-up: seconds per output token, and the share of prompts that was kept."""
    requests = result.records.requests
    measured = (requests["status"] == FINISHED) & (requests["arrival_s"] >= result.scenario.metrics.warmup_s)
    e2e_s = (requests["finish_s"] - requests["arrival_s"])[measured]
    return {
        "latency": float((e2e_s / requests["output_tokens"][measured]).mean()),
        "kept": ratio(requests["cached_tokens"][measured].sum(), requests["prompt_tokens"][measured].sum()),
    }


def _label(system: str, rate_per_s: float) -> str:
    return f"{system}, {rate_per_s:g}/s"


def _capacity(measured: Measured, system: str) -> float:
    """The highest rate up to which all rates keep the bound; NaN if the lowest does not."""
    highest = float("nan")
    for rate in _RATES:
        if not measured[_label(system, rate)]["latency"] <= _BOUND_S:
            break
        highest = rate
    return highest


def _find(measured: Measured) -> Sequence[Finding]:
    ours, theirs, same, device = (_capacity(measured, name) for name in (_PENSIEVE, _VLLM, _STATELESS, _DEVICE))
    what = (
        f"throughput with {_BOUND_S:g} s per output token ({ours:g} for {theirs:g} conversations/s; Pensieve's batches "
    )
    what += f"without its cache: {ratio(same, theirs):.2f} x; with the cache on the device alone: "
    what += f"{ratio(device, theirs):.2f} x)"
    found = [factor(what, "1.51-1.95 x", ratio(ours, theirs), 1.51, 1.95)]
    rate = theirs if theirs in _RATES else _RATES[0]
    kept, fresh = measured[_label(_PENSIEVE, rate)], measured[_label(_VLLM, rate)]
    what = f"latency per output token at vLLM's highest rate, {rate:g}/s ({1e3 * kept['latency']:.0f} for "
    what += f"{1e3 * fresh['latency']:.0f} ms; {100 * kept['kept']:.0f} % of prompt tokens were kept)"
    return [*found, change(what, "−60 to −75 %", ratio(kept["latency"], fresh["latency"]) - 1, -0.60, -0.75)]


PENSIEVE = Claim(
    name="pensieve",
    statement="On multi-turn conversations Pensieve has 1.51-1.95 times vLLM's throughput, and 60 to 75 % less latency",
    source="Yu, Lin, Li, Stateful Large Language Model Serving with Pensieve, 2023 (arXiv 2312.05516, first version; "
    "the third, of EuroSys 2025, says 1.14-1.70 times vLLM and TensorRT-LLM for 13B models)",
    scenario="papers/pensieve",
    variants=tuple(
        variant(_label(system, rate), {**values, _RATE: f"{rate:g}"})
        for system, values in _SYSTEMS.items()
        for rate in _RATES
    ),
    measure=_measure,
    find=_find,
    assumptions=(
        "Llama-2-13B, whose KV is as large as OPT-13B's, up to 4,096 tokens for the paper's 16,384; 40 GiB of an A100 "
        "80 GB and 220 GB of its host hold KV",
        "ShareGPT's means as published (5.56 turns, 37.77 tokens asked, 204.58 answered), geometric and lognormal; "
        "think time exponential, 60 s",
        "vLLM 0.2 as vllm_v0, prompts first; Pensieve: prefill and decode in one batch, first come first served",
        f"throughput: the highest of {len(_RATES)} rates of conversations up to which all keep {_BOUND_S:g} s per "
        "output token on average, our bound; latency: the same figure; the first 500 of 1,500 s are not measured",
    ),
    likely_reason="answers are five times as long as questions, so that decoding, which is the same in both, takes "
    "most of the time; histories end at 4,096 tokens here",
)
