"""How full batches and memory were: means over steps and over time, instances added up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from servsim.records import Records

__all__ = ["Span", "batches", "kv_memory"]


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of simulated time, in seconds."""

    start_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        """Its length, 0 where it ends before it starts."""
        return max(self.end_s - self.start_s, 0.0)

    def overlap_s(self, start_s: NDArray[np.float64], end_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """How much of each stretch ``start_s .. end_s`` lies within."""
        inside: NDArray[np.float64] = np.minimum(end_s, self.end_s) - np.maximum(start_s, self.start_s)
        return np.maximum(inside, 0.0)


def batches(records: Records, span: Span, instances: int) -> dict[str, Any]:
    """Steps that ended in ``span`` and what they carried; the share of time in which instances computed.

    A row that reaches over the edge of the span counts with the share of it that lies within.
    """
    strides = records.strides
    within_s = span.overlap_s(strides["start_s"], strides["end_s"])
    share = within_s / (strides["end_s"] - strides["start_s"])
    steps = strides["steps"] * share
    total = float(steps.sum())
    prefill_tokens = float(strides["prefill_tokens"] @ share)
    decode_tokens = float(strides["decode_seqs"] @ steps)
    present = within_s > 0
    return {
        "steps": total,
        "steps_with_prefill": float(share[strides["prefill_tokens"] > 0].sum()),
        "decode_seqs_mean": _ratio(decode_tokens, total),
        "decode_seqs_max": int(strides["decode_seqs"][present].max()) if present.any() else None,
        "tokens_per_step_mean": _ratio(prefill_tokens + decode_tokens, total),
        "busy": _ratio(float(within_s.sum()), span.length_s * instances),
    }


def kv_memory(records: Records, span: Span, instances: int) -> dict[str, Any]:
    """Use and fragmentation of KV memory over ``span``, as shares; blocks are those of all instances.

    An instance that computes nothing holds nothing. ``used_mean`` is over time and over all instances,
    ``used_max`` the fullest that a single instance ever was; both fragmentations are over time while something
    was reserved: internal, the reserved tokens that nothing was stored in; external, as the allocator says.
    """
    strides = records.strides
    if not len(strides["start_s"]):
        return dict.fromkeys(("blocks_total", *_SHARES))
    within_s = span.overlap_s(strides["start_s"], strides["end_s"])
    blocks = _blocks_of_all(records, instances)
    grown_tokens = _grown_tokens(strides)
    stored = strides["kv_tokens_stored"] - strides["decode_seqs"] * (strides["steps"] - 1) / 2
    reserved = strides["kv_tokens_reserved"] - grown_tokens
    with np.errstate(divide="ignore", invalid="ignore"):
        blocks_per_token = np.nan_to_num(strides["kv_blocks_used"] / strides["kv_tokens_reserved"], posinf=0.0)
    present = within_s > 0
    fullest = (strides["kv_blocks_used"][present] / strides["kv_blocks_total"][present]).max(initial=0.0)
    used = strides["kv_blocks_used"] - grown_tokens * blocks_per_token
    holding_s = within_s * (strides["kv_tokens_reserved"] > 0)
    return {
        "blocks_total": blocks,
        "used_mean": _ratio(float(used @ within_s), span.length_s * blocks),
        "used_max": float(fullest) if span.length_s else None,
        "internal_fragmentation_mean": _ratio(float((reserved - stored) @ within_s), float(reserved @ within_s)),
        "external_fragmentation_mean": _ratio(
            float(strides["kv_external_fragmentation"] @ holding_s), float(holding_s.sum())
        ),
    }


_SHARES = ("used_mean", "used_max", "internal_fragmentation_mean", "external_fragmentation_mean")


def _grown_tokens(strides: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Reserved tokens at a row's end less their mean over the row.

    Decoders store a token a step, so what is stored grows evenly over a row. Memory that is handed out
    as it is needed grows with it; that is recognised by its being full but for less than a block a
    sequence, while a reservation made in advance stands still.
    """
    reserved, sequences = strides["kv_tokens_reserved"], strides["decode_seqs"]
    with np.errstate(divide="ignore", invalid="ignore"):
        block = np.nan_to_num(reserved / strides["kv_blocks_used"], posinf=0.0)
    follows = reserved - strides["kv_tokens_stored"] <= (sequences + 1) * block
    return np.where(follows, sequences * (strides["steps"] - 1) / 2, 0.0)


def _blocks_of_all(records: Records, instances: int) -> int:
    """Blocks of every instance; one that never ran a step is taken to be like the others."""
    column, total = records.strides["instance"], records.strides["kv_blocks_total"]
    _, first = np.unique(column, return_index=True)
    seen = total[first]
    return round(float(seen.mean()) * max(instances, len(seen)))


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None
