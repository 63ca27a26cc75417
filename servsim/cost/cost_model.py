"""What an engine asks of a cost model."""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import Protocol

from servsim.cost.stride import Stride

__all__ = ["Chunk", "CostModel", "DecodeStrides"]

Chunk = tuple[int, int]  # a prefill chunk: its tokens, and the tokens of its sequence that are stored already


class DecodeStrides(Protocol):
    """How long steps take that only decode."""

    def decode_stride(
        self,
        start_s: float,
        decoders: int,
        context_tokens: float,
        growing: float | None = None,
        shared_tokens: int = 0,
    ) -> Stride:
        """Steps in which ``decoders`` sequences, reading ``context_tokens`` together, each take one more token.

        The first step reads the new tokens as well, and each further one reads ``growing`` tokens more than the one
        before it; by default all decoders grow. ``shared_tokens`` of those read are
        fetched from memory for several decoders at once, and count as computation only.
        """
        ...


class CostModel(DecodeStrides, Protocol):
    """How long steps take. Stateless: equal steps take equal times."""

    calibration: str  # "calibrated", "uncalibrated" or what else a reader of the results must know

    def step_s(
        self, chunks: Many[Chunk], emitting: int, decoders: int, context_tokens: float, shared_tokens: int = 0
    ) -> float:
        """Seconds of one step with prefill ``chunks``, of which ``emitting`` end, beside such decoders (0 or more)."""
        ...

    def outside_range(self) -> dict[str, int]:
        """How often each kind of operator was asked for beyond what was measured; counting changes no time."""
        ...
