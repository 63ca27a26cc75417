"""Fixed step times, for queueing theory and for tests."""

from __future__ import annotations

from collections.abc import Sequence as Many

from servsim.cost.cost_model import Chunk
from servsim.cost.stride import Stride

__all__ = ["FixedCost"]

_NO_LIMIT = 1 << 60


class FixedCost:
    """A step with prefill takes ``prefill_s``, one that only decodes ``decode_s``, whatever its batch."""

    calibration = "fixed"

    def __init__(self, prefill_s: float, decode_s: float) -> None:
        self.prefill_s = prefill_s
        self.decode_s = decode_s

    def decode_stride(
        self,
        start_s: float,
        decoders: int,
        context_tokens: float,
        growing: float | None = None,
        shared_tokens: int = 0,
    ) -> Stride:
        """Steps of ``decode_s``."""
        return Stride(start_s, self.decode_s, 0.0, _NO_LIMIT)

    def step_s(
        self, chunks: Many[Chunk], emitting: int, decoders: int, context_tokens: float, shared_tokens: int = 0
    ) -> float:
        """``prefill_s``."""
        return self.prefill_s if chunks else self.decode_s

    def outside_range(self) -> dict[str, int]:
        """Nothing was measured, and nothing is left."""
        return {}
