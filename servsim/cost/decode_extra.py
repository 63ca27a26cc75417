"""What a method of KV compression adds to a decode step."""

from __future__ import annotations

import math
from collections.abc import Sequence as Many

from servsim.cost.cost_model import Chunk, CostModel
from servsim.cost.stride import Stride

__all__ = ["DecodeExtra"]


class DecodeExtra:
    """A cost model with ``step_s + sequence_s`` for each decoder added, and a copy of what is read from the host.

    The copy takes ``token_s`` for each token that is read, in the place of a step's computation where it lasts
    longer (``overlapped``), or after it. Both grow with the tokens read, so a step's time stays piecewise linear: a
    stride ends where the longer of the two changes.
    """

    def __init__(
        self,
        inner: CostModel,
        *,
        step_s: float = 0.0,
        sequence_s: float = 0.0,
        token_s: float = 0.0,
        overlapped: bool = True,
    ) -> None:
        self.calibration = inner.calibration
        self._inner = inner
        self._step_s = step_s
        self._sequence_s = sequence_s
        self._token_s = token_s
        self._overlapped = overlapped

    def outside_range(self) -> dict[str, int]:
        """What the cost model counts."""
        return self._inner.outside_range()

    def decode_stride(
        self,
        start_s: float,
        decoders: int,
        context_tokens: float,
        growing: float | None = None,
        shared_tokens: int = 0,
    ) -> Stride:
        """Steps of ``decoders`` sequences, reading ``context_tokens`` together and their new tokens."""
        stride = self._inner.decode_stride(start_s, decoders, context_tokens, growing, shared_tokens)
        stride.first_s += self._step_s + self._sequence_s * decoders
        copy_s = self._token_s * (context_tokens + decoders)
        copy_growth_s = self._token_s * (decoders if growing is None else growing)
        if not self._overlapped:
            stride.first_s += copy_s
            stride.growth_s += copy_growth_s
            return stride
        ahead_s, closing_s = stride.first_s - copy_s, copy_growth_s - stride.growth_s
        if ahead_s < 0:  # the copy is the longer one
            stride.first_s, stride.growth_s = copy_s, copy_growth_s
            ahead_s, closing_s = -ahead_s, -closing_s
        if closing_s > 0 and ahead_s / closing_s < stride.limit:
            stride.limit = math.floor(ahead_s / closing_s) + 1
        return stride

    def step_s(
        self, chunks: Many[Chunk], emitting: int, decoders: int, context_tokens: float, shared_tokens: int = 0
    ) -> float:
        """Seconds of one step with prefill ``chunks``, of which ``emitting`` end, beside such decoders."""
        step_s = self._inner.step_s(chunks, emitting, decoders, context_tokens, shared_tokens)
        if not decoders:
            return step_s
        step_s += self._step_s + self._sequence_s * decoders
        copy_s = self._token_s * (context_tokens + decoders)
        return max(step_s, copy_s) if self._overlapped else step_s + copy_s
