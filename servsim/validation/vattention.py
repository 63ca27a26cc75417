"""vAttention: what the size of its pages costs in memory, and mapping them in time, against paging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from servsim.simulation import Result
from servsim.sweep import Variant
from servsim.validation.claim import Claim, Finding, Measured, bounded, change, factor, ratio, variant

__all__ = ["VATTENTION"]

_MODELS = (("llama-3.1-8b", 258, 203), ("yi-34b-200k", 68, 56))  # published largest batches with 64 KiB and 2 MiB
_PAGED = "{allocator: paged, block_size: 16}"
_MEMORIES = {
    "paging": _PAGED,
    "64 KiB": "{allocator: vattention, page_size: 64 KiB}",
    "128 KiB": "{allocator: vattention, page_size: 128 KiB}",
    "256 KiB": "{allocator: vattention, page_size: 256 KiB}",
    "2 MiB": "{allocator: vattention, page_size: 2 MiB}",
}
_LONG = 16_384
_MAPPINGS = {
    "paging": _PAGED,
    "deferred": "{allocator: vattention, page_size: 64 KiB}",
    "synchronous": "{allocator: vattention, page_size: 64 KiB, deferred_reclamation: false, background_mapping: false}",
}


def _measure(result: Result) -> Mapping[str, float]:
    summary = result.summary
    ttft_s = summary["ttft_s"]
    return {
        "batch": float(result.records.strides["decode_seqs"].max()),
        "mean batch": summary["batches"]["decode_seqs_mean"],
        "throughput": summary["throughput"]["requests_per_s"],
        "wasted": summary["kv_memory"]["internal_fragmentation_mean"],
        "ttft": ttft_s["p50"],
        "mapping": ratio((summary["memory"] or {}).get("mapping_wait_s", 0.0), summary["duration_s"] or 0.0),
    }


def _offline(memory: str, model: str) -> str:
    return f"{memory}, {model}"


def _prefill(mapping: str) -> str:
    return f"prefills, {mapping}"


def _variants() -> tuple[Variant, ...]:
    found = []
    for model, *_ in _MODELS:
        for memory, keys in _MEMORIES.items():
            found.append(variant(_offline(memory, model), {"model": model, "instance.memory": keys}))
    one_by_one = {
        "workload.arrivals": "{process: constant, rate_per_s: 0.1}",
        "workload.lengths": f"{{prompt_tokens: {_LONG}, output_tokens: 64}}",
        "workload.num_requests": "20",
    }
    for mapping, keys in _MAPPINGS.items():
        found.append(variant(_prefill(mapping), {"instance.memory": keys, **one_by_one}))
    return tuple(found)


def _find(measured: Measured) -> Sequence[Finding]:
    found = []
    for model, most, fewer in _MODELS:
        of = {memory: measured[_offline(memory, model)] for memory in _MEMORIES}
        waste = ", ".join(f"{memory} {100 * of[memory]['wasted']:.1f} %" for memory in _MEMORIES)
        what = f"largest batch, pages of 64 KiB over 2 MiB, {model} ({of['64 KiB']['batch']:.0f} for "
        what += f"{of['2 MiB']['batch']:.0f}, paging {of['paging']['batch']:.0f}; reserved and empty: {waste})"
        times = ratio(of["64 KiB"]["batch"], of["2 MiB"]["batch"])
        found.append(factor(what, f"{most / fewer:.2f} x ({most} for {fewer})", times, most / fewer))
    plain, deferred, synchronous = (measured[_prefill(mapping)]["ttft"] for mapping in _MAPPINGS)
    what = f"time to prefill {_LONG:,} tokens, 64 KiB mapped while it waits"
    found.append(change(what, "up to +15 %", ratio(synchronous, plain) - 1, 0.15))
    more = ratio(deferred, plain) - 1
    shown = f"{100 * more:+.2f} %"
    found.append(bounded("the same with pages that were left mapped", "+0 %", more, shown, at_most=0.01))
    small, large, paged = (measured[_offline(memory, _MODELS[0][0])] for memory in ("64 KiB", "2 MiB", "paging"))
    what = f"throughput over paging, offline, {_MODELS[0][0]} "
    what += f"(2 MiB: {ratio(large['throughput'], paged['throughput']):.2f} x; "
    what += f"steps that wait for mapping: {100 * small['mapping']:.1f} and {100 * large['mapping']:.1f} % of the time)"
    found.append(factor(what, "1.15-1.23 x", ratio(small["throughput"], paged["throughput"]), 1.15, 1.23))
    return found


VATTENTION = Claim(
    name="vattention",
    statement="vAttention with pages of 64 KiB wastes as little memory as paging and hides the mapping, so that "
    "batches are 1.2 to 1.3 times those with 2 MiB; with faster kernels it has up to 1.23 times the throughput "
    "of paging",
    source="Prabhu et al., vAttention: Dynamic Memory Management for Serving LLMs without PagedAttention, ASPLOS 2025 "
    "(arXiv 2405.04437)",
    scenario="papers/vattention",
    variants=_variants(),
    measure=_measure,
    find=_find,
    assumptions=(
        "Llama-3-8B (3.1 here) and Yi-34B on two A100 80 GB; which requests filled the paper's batches is not known to "
        "us: ours have the lengths of openchat_sharegpt4, 1,500 at once",
        "mapping a page takes 8.6 us (64 KiB, the paper's 7.6 GB/s) or 40 us (2 MiB); both devices map at once",
        "which prompts its 15 % are of is not known to us: ours have 16,384 tokens and come one by one",
        "kernels are as fast as with paging: no gain of theirs is assumed",
        "the published figures are those that a public summary of the paper gives; its text was not at hand",
    ),
    likely_reason="what vAttention gains over paging is its kernels', which need no block table; here they are taken "
    "to be equal. Memory alone gains nothing over blocks of 16, and a prompt longer than what its slot held before "
    "waits for the rest to be mapped, the longer the smaller the pages",
)
