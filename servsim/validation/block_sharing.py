"""PagedAttention: KV memory that the outputs of one prompt save by sharing blocks, and beams by sharing more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from servsim.simulation import Result
from servsim.sweep import Variant
from servsim.validation.claim import Claim, Finding, Measured, near, ratio

__all__ = ["BLOCK_SHARING"]

_PROBABILITY = 0.5
_OTHERS = (0.1, 1.0)
_ALPACA = {
    "workload.lengths.prompt_tokens": "{distribution: lognormal, median: 17, sigma: 0.5, max: 200}",
    "workload.lengths.output_tokens": "{distribution: lognormal, median: 38, sigma: 0.92, max: 1024}",
    "workload.arrivals.rate_per_s": "4",
}
_LENGTHS: dict[str, dict[str, str]] = {"Alpaca": _ALPACA, "ShareGPT": {}}
_PUBLISHED = {
    ("Alpaca", "outputs"): (6.1, 9.8),
    ("Alpaca", "beams"): (37.6, 55.2),
    ("ShareGPT", "outputs"): (16.2, 30.5),
    ("ShareGPT", "beams"): (44.3, 66.3),
}
_NARROW, _WIDE = 2, 6


def _outputs(lengths: str, count: int) -> Variant:
    paths = {**_LENGTHS[lengths], "workload.samples.count": str(count)}
    return Variant(_label(lengths, count), f"{lengths}-{count}-outputs", paths)


def _beams(lengths: str, width: int, probability: float) -> Variant:
    search = f"{{width: {width}, reorder_probability: {probability}}}"
    paths = {**_LENGTHS[lengths], "workload.samples": "1", "workload.beam_search": search}
    return Variant(_label(lengths, width, probability), f"{lengths}-{width}-beams-{probability:g}", paths)


def _label(lengths: str, number: int, probability: float | None = None) -> str:
    return f"{lengths}, {number} " + ("outputs" if probability is None else f"beams, {probability:g}")


def _measure(result: Result) -> Mapping[str, float]:
    memory = result.summary["memory"]
    return {"saved": 100 * ratio(memory["saved_block_steps"], memory["group_block_steps"])}


def _find(measured: Measured) -> Sequence[Finding]:
    found = []
    for (lengths, kind), ends in _PUBLISHED.items():
        for number, published in zip((_NARROW, _WIDE), ends, strict=True):
            what = f"blocks saved, {number} {kind}, {lengths}"
            if kind == "outputs":
                saved = measured[_label(lengths, number)]["saved"]
            else:
                saved = measured[_label(lengths, number, _PROBABILITY)]["saved"]
                others = (f"{one:g}: {measured[_label(lengths, number, one)]['saved']:.1f} %" for one in _OTHERS)
                what += f" (if a beam is replaced with probability {' and '.join(others)})"
            found.append(near(what, f"{published:g} %", saved, published, f"{saved:.1f} %"))
    return found


BLOCK_SHARING = Claim(
    name="paged-attention-sharing",
    statement="Outputs of one prompt save 6.1 to 9.8 % of the KV blocks by sharing (Alpaca; ShareGPT 16.2 to 30.5 %), "
    "beams 37.6 to 55.2 % (44.3 to 66.3 %)",
    source="Kwon et al., Efficient Memory Management for Large Language Model Serving with PagedAttention, SOSP 2023 "
    "(arXiv 2309.06180), section 6.3",
    scenario="papers/paged-attention-sharing",
    variants=tuple(_outputs(lengths, count) for lengths in _LENGTHS for count in (_NARROW, _WIDE))
    + tuple(
        _beams(lengths, width, probability)
        for lengths in _LENGTHS
        for width in (_NARROW, _WIDE)
        for probability in (_PROBABILITY, *_OTHERS)
    ),
    measure=_measure,
    find=_find,
    assumptions=(
        "OPT-13B with lognormal lengths of the published means, cut at 1,024, as in paged-attention",
        "saved: blocks of groups summed over decode steps, against those without sharing",
        f"the published ranges are taken to run from {_NARROW} to {_WIDE} outputs or beams, which are all equally long",
        f"with each token one beam is replaced, with probability {_PROBABILITY:g}, by a fork of another, drawn at "
        "random: what survives a step really depends on the model; the number is a round one, fixed when the published "
        "figures were known but before any of ours was computed, and not changed after",
    ),
)
