"""HeadInfer: what a million tokens take of the device's memory, and how many a card of 24 GB holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from servsim.setup import Setup
from servsim.simulation import Result
from servsim.sweep import Variant
from servsim.validation.claim import Claim, Finding, Measured, bounded, change, near, ratio

__all__ = ["HEADINFER"]

_PLAIN, _OURS, _LONGEST = "standard, 1M", "headinfer, 1M", "headinfer, 4M"
_OUTPUT = 8
_MILLION = 2**20
_COMPRESSION = "instance.memory.compression"


def _measure(result: Result) -> Mapping[str, float]:
    """Bytes of all devices together."""
    scenario, summary = result.scenario, result.summary
    budget, devices = Setup.of(scenario).budget, scenario.instance.tensor_parallel_size
    used = int(result.records.strides["kv_blocks_used"].max(initial=0))
    kv_bytes = used * budget.block_bytes * devices
    others = budget.weight_bytes + budget.activation_bytes + budget.runtime_bytes
    return {
        "kv": kv_bytes / 2**30,
        "total": (kv_bytes + others * devices) / 2**30,
        "activations": budget.activation_bytes * devices / 2**30,
        "finished": summary["counts"]["finished"],
        "gap": _known(summary["itl_s"]["p50"]),
        "ttft": _known(summary["ttft_s"]["p50"]),
        # What the card would hold if nothing were offloaded.
        "plain tokens": budget.kv_bytes / (budget.kv_bytes_per_token / _stored_share(result)),
    }


def _known(figure: float | None) -> float:
    """NaN where no request finished."""
    return math.nan if figure is None else figure


def _stored_share(result: Result) -> float:
    return result.scenario.instance.memory.compression.stored_share


def _find(measured: Measured) -> Sequence[Finding]:
    plain, ours, longest = (measured[label] for label in (_PLAIN, _OURS, _LONGEST))
    total = f"GPU memory in all, 1 M tokens ({ours['total']:.0f} for {plain['total']:.0f} GiB, of which activations "
    total += f"{ours['activations']:.1f} for {plain['activations']:.0f})"
    fits = f"requests of 4 M tokens that an RTX 4090 serves ({longest['total']:.1f} GiB; "
    fits += f"{longest['gap']:.0f} s a token, the first after {longest['ttft'] / 3600:.1f} h; "
    fits += f"without offloading it holds {ours['plain tokens']:,.0f} tokens)"
    return [
        near("KV on the GPU, 1 M tokens, standard", "128 GB", plain["kv"], 128, f"{plain['kv']:.1f} GiB"),
        near("KV on the GPU, 1 M tokens, HeadInfer", "1 GB", ours["kv"], 1, f"{ours['kv']:.2f} GiB"),
        change(total, "−92 % (17 for 207 GB)", ratio(ours["total"], plain["total"]) - 1, -0.92),
        bounded(fits, "one", longest["finished"], f"{longest['finished']:.0f}", at_least=1),
    ]


HEADINFER = Claim(
    name="headinfer",
    statement="With 1 M tokens of Llama-3-8B HeadInfer needs 1 GB of GPU memory for KV in place of 128 GB, and a card "
    "of 24 GB serves 4 M tokens",
    source="Luo et al., HeadInfer: Memory-Efficient LLM Inference by Head-wise Offloading, 2025 (arXiv 2502.12574)",
    scenario="papers/headinfer",
    variants=(
        Variant(
            _PLAIN,
            "standard-1M",
            {
                _COMPRESSION: "{}",
                "instance.hardware": "mi300x",
                "instance.tensor_parallel_size": "2",
                "instance.scheduler.max_num_batched_tokens": str(_MILLION),
            },
        ),
        Variant(_OURS, "headinfer-1M", {}),
        Variant(_LONGEST, "headinfer-4M", {"workload.lengths.prompt_tokens": str(4 * _MILLION - _OUTPUT)}),
    ),
    measure=_measure,
    find=_find,
    assumptions=(
        "a million is 2^20, and GB are GiB, as 128 GB of KV imply",
        "Llama-3-8B with 4 M positions (Gradient AI's), which changes no size; outputs of 8 tokens",
        "two of 256 heads' KV on the device, one read and one copied: given, so that 1 GB is its arithmetic; prompts "
        "in chunks of 8,192 tokens (ours)",
        "standard: the whole prompt in one step, on two MI300X, since no device of ours holds it; activations as "
        "servsim reckons them, the devices added up",
        "in prefill the copies are hidden, as a chunk of thousands of tokens computes longer than its KV is copied; "
        "512 GiB of host memory for 4 M tokens are not accounted for",
    ),
)
