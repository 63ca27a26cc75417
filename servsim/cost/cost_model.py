"""What an engine asks of a cost model."""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import Protocol

from servsim.cost.stride import Stride

__all__ = ["Chunk", "CostModel"]

Chunk = tuple[int, int]  # a prefill chunk: its tokens, and the tokens of its sequence that are stored already


class CostModel(Protocol):
    """How long steps take. Stateless: equal steps take equal times."""

    calibration: str  # "calibrated", "uncalibrated" or what else a reader of the results must know

    def decode_stride(self, start_s: float, decoders: int, context_tokens: int) -> Stride:
        """Steps in which ``decoders`` sequences, storing ``context_tokens`` together, each take one more token."""
        ...

    def step_s(self, chunks: Many[Chunk], emitting: int, decoders: int, context_tokens: int) -> float:
        """Seconds of one step with prefill ``chunks``, of which ``emitting`` end, beside such decoders (0 or more)."""
        ...

    def outside_range(self) -> dict[str, int]:
        """How often each kind of operator was asked for beyond what was measured; counting changes no time."""
        ...
