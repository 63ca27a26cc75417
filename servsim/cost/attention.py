"""How long the attention of a step takes: prefill by chunks, decode as pieces in the attended tokens."""

from __future__ import annotations

from functools import lru_cache

from servsim.cost.law import Line, OperatorLaw
from servsim.cost.pieces import Piece, raised, through, upper_envelope
from servsim.errors import ScenarioError
from servsim.hardware import Device
from servsim.model.operators import Attention

__all__ = ["DecodeAttention", "PrefillAttention"]


class PrefillAttention:
    """Prefill attention of one layer: one call for all chunks of a step.

    Chunks of unequal length, or with a prefix that is stored already, are corrected as equal ones without a prefix
    that have as many new tokens and as many pairs together.
    """

    def __init__(self, attention: Attention, device: Device) -> None:
        self._attention = attention
        self._law = law = _law(attention, device, prefill=True)
        self._grid = law.grid.at_last(attention.heads / attention.kv_heads, attention.kv_heads) if law.grid else None
        self._longest = law.grid.limits(1)[1] if law.grid else 0.0
        # Asked in every step with prefill: what a pair, a token of KV and a new token cost under a sum is kept.
        self._pair_s = attention.prefill_flops_per_pair / law.flops_per_s
        self._kv_s = attention.kv_bytes_per_token / law.bytes_per_s
        self._new_s = attention.io_bytes_per_token / law.bytes_per_s
        # Chunks with more pairs a new token than this lie outside the measured range.
        longest = law.covers.get("length", (0.0, float("inf")))[1]
        self.most_pairs_per_token = -1.0 if _uncovered(law, attention) else longest / 2
        # Prompts of one length, alone in a step and without a prefix, come again and again.
        self.time_s = lru_cache(maxsize=1 << 14)(self._time_s)

    def _time_s(self, new_tokens: int, kv_tokens: int, pairs: float) -> float:
        """Seconds of one call for chunks of ``new_tokens`` that attend to ``pairs`` within ``kv_tokens``."""
        attention, law = self._attention, self._law
        flops = attention.prefill_flops_per_pair * pairs
        size_bytes = attention.kv_bytes_per_token * kv_tokens + attention.io_bytes_per_token * new_tokens
        if self._grid is None:
            return law.time_s(flops, size_bytes)
        if law.law == "sum":
            time_s = self._pair_s * pairs + self._kv_s * kv_tokens + self._new_s * new_tokens + law.overhead_s
        else:
            time_s = law.time_s(flops, size_bytes)
        length = min(2.0 * pairs / new_tokens, self._longest)
        time_s *= self._grid.factor_on_plane(attention.heads * new_tokens / length, length)
        return max(time_s, flops * law.least_s_per_flop, size_bytes * law.least_s_per_byte)


class DecodeAttention:
    """Decode attention of one layer: pieces in the attended tokens, for each number of decoders.

    A corrected law is evaluated at the lengths of its correction's knots and straight in between, so that strides
    keep their closed form; batches count by their mean length, as kernel tables measure equal ones.
    """

    def __init__(self, attention: Attention, device: Device) -> None:
        self._attention = attention
        self._law = law = _law(attention, device, prefill=False)
        if not law.straight:
            raise ScenarioError(
                f"{device.name}: decode attention follows a p-norm, which has no closed form over a stride",
                remedy="use the law maximum or sum for attention_decode",
            )
        self._grid = law.grid.at_last(attention.heads / attention.kv_heads) if law.grid else None
        self._outside = _uncovered(law, attention)
        _, self.reach = law.covers.get("length", (0.0, float("inf")))

    def pieces(self, decoders: int, shared_tokens: int = 0) -> list[Piece]:
        """Seconds of one call as pieces in the attended tokens of all ``decoders`` together.

        ``shared_tokens`` of these are computed with, but fetched with those of another decoder.
        """
        pieces = self._law_pieces(decoders, shared_tokens)
        extra_s = self._extra_s(decoders)
        return raised(pieces, extra_s) if extra_s else pieces

    def _extra_s(self, decoders: int) -> float:
        """What a call takes beyond its law, however long the context."""
        kv_heads = self._attention.kv_heads
        if kv_heads == 1:
            return 0.0
        regrouped = decoders > 1 and self._attention.heads > kv_heads
        return self._law.several_heads_s + (self._law.regrouping_s if regrouped else 0.0)

    def _law_pieces(self, decoders: int, shared_tokens: int) -> list[Piece]:
        attention, law = self._attention, self._law
        flops: Line = (0.0, attention.decode_flops_per_pair)
        io_bytes, kv_bytes = attention.io_bytes_per_token * decoders, attention.kv_bytes_per_token
        size_bytes: Line = (io_bytes - kv_bytes * shared_tokens, kv_bytes)
        if self._grid is None:
            return upper_envelope(law.lines(flops, size_bytes))
        work = float(decoders * attention.kv_heads)
        points, factor = [], 1.0
        for length in self._grid.knots(1):
            attended = decoders * length
            factor = self._grid.factor_on_plane(work, length)
            work_flops, moved = flops[1] * attended, max(io_bytes, size_bytes[0] + kv_bytes * attended)
            points.append((attended, max(factor * law.time_s(work_flops, moved), law.least_s(work_flops, moved))))
        # Shorter contexts take what those at the first knot do, longer ones the factor of those at the last.
        slope = factor * max(steepness for _, steepness in law.lines(flops, size_bytes))
        slope = max(slope, law.least_s(flops[1], size_bytes[1]))
        return through([(0.0, points[0][1]), *points], slope)

    def outside(self, decoders: int) -> bool:
        """Whether so many decoders lie outside the measured range; contexts longer than ``reach`` always do."""
        return self._outside or self._law.uncovered({"work": float(decoders * self._attention.kv_heads)})


def _law(attention: Attention, device: Device, *, prefill: bool) -> OperatorLaw:
    """Attention computes in its own dtype; how well it does goes by the dtype of the KV."""
    kind = "attention_prefill" if prefill else "attention_decode"
    by = "fp8" if attention.kv_dtype == "fp8" else attention.dtype
    return OperatorLaw.of(device, kind, attention.dtype, device.efficiency(kind, by))  # type: ignore[arg-type]


def _uncovered(law: OperatorLaw, attention: Attention) -> bool:
    group = attention.heads / attention.kv_heads
    return law.uncovered({"group": group, "head_dim": attention.head_dim, "kv_heads": attention.kv_heads})
