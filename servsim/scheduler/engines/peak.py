"""The peak of future memory use, as LightLLM's router estimates it.

A request that holds ``a`` tokens and has ``b`` still to come grows by one token a step and then
leaves. Sorted by falling ``b``, when the i-th (1-based) ends exactly the first i are alive and each has
grown by ``b_i``, so that the most tokens ever held together are ``max_i (sum_{j<=i} a_j + i b_i)``. Decode
steps leave every term unchanged.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["LengthHistory", "expected_growth", "pack", "peak_tokens"]

SLACK_TOKENS = 6
_LOW = np.int64((1 << 32) - 1)
_SHIFT = np.int64(32)


def pack(held: NDArray[np.int64], remaining: NDArray[np.int64]) -> NDArray[np.int64]:
    """Both numbers of each request in one integer that sorts by ``remaining`` (both below 2**31).

    Ties in ``remaining`` may stand in any order: the maximum over the group is at its last member either way.
    """
    return (remaining << _SHIFT) | held


def peak_tokens(packed: NDArray[np.int64]) -> NDArray[np.int64]:
    """The peak of each scenario: ``packed`` is [scenarios, requests] of :func:`pack`, at least one request.

    Source: LightLLM's Past-Future router (commit f50e8413), estimated peak over the running batch and a candidate.
    """
    ordered = np.sort(packed, axis=-1)[..., ::-1]
    alive = np.arange(1, packed.shape[-1] + 1, dtype=np.int64)
    peaks: NDArray[np.int64] = ((ordered & _LOW).cumsum(axis=-1) + (ordered >> _SHIFT) * alive).max(axis=-1)
    return peaks


def expected_growth(
    generated: NDArray[np.int64], cap: NDArray[np.int64], chunk_steps: NDArray[np.int64] | int = 0
) -> NDArray[np.int64]:
    """Tokens to come, ``b``, of requests assumed to end at ``cap``; LightLLM adds 6 to each, and holds one more.

    ``chunk_steps``: with chunked prefill, ``ceil(lacking / chunk) * (router_max_wait_tokens + 1)`` steps in which
    a request may only wait; a decoder lacks one token, so that it too counts as one chunk.
    """
    growth: NDArray[np.int64] = np.maximum(0, chunk_steps + cap - generated - 1) + SLACK_TOKENS
    return growth


class LengthHistory:
    """A window of the latest output lengths, half filled with a default at the start.

    ``deque(maxlen=window)`` pre-filled with ``window / 2`` times ``default_tokens``, as in LightLLM: cold starts
    are careful, and a window of finished requests washes the default out.
    """

    def __init__(self, window: int, default_tokens: int) -> None:
        self._ring = np.full(window, default_tokens, dtype=np.int64)
        self._filled = max(1, window // 2)
        self._next = self._filled % window
        self._sorted: NDArray[np.int64] | None = None

    def append(self, output_tokens: int) -> None:
        """A request finished with so many tokens; the oldest entry leaves a full window."""
        self._ring[self._next] = output_tokens
        self._next = (self._next + 1) % len(self._ring)
        self._filled = min(self._filled + 1, len(self._ring))
        self._sorted = None

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The window, ascending."""
        if self._sorted is None:
            self._sorted = np.sort(self._ring[: self._filled])
        return self._sorted

    def draw_running(
        self,
        generated: NDArray[np.int64],
        bound: NDArray[np.int64],
        uniform: NDArray[np.float64],
        *,
        always_bounded: bool = False,
    ) -> NDArray[np.int64]:
        """Total lengths of running requests: ``uniform`` in [0, 1) is [scenarios, requests], the others [requests].

        An inverse-CDF draw with linear interpolation over the grid ``[generated] + {h > generated} + [bound]``; the
        bound (declared ``max_tokens``) ends the grid only where no history value reaches it, as in the original;
        ``always_bounded``: always, as in the later version, where a grid may thus step back at its end.
        """
        lengths = self.lengths
        first = np.searchsorted(lengths, generated, side="right")
        above = len(lengths) - first  # history values in the grid
        bounded = (lengths[-1] < bound) | always_bounded
        intervals = above + bounded  # grid points less one
        position = uniform * intervals
        whole = position.astype(np.int64)
        padded = np.append(lengths, lengths[-1])
        index = np.minimum(first + whole, len(lengths))
        low = np.where(whole == 0, generated, padded[index - 1])
        high = np.where(whole < above, padded[index], np.where(bounded, bound, generated))
        total = np.rint(low + (high - low) * (position - whole)).astype(np.int64)
        drawn: NDArray[np.int64] = np.maximum(total, generated)
        return drawn

    def draw_waiting(self, uniform: NDArray[np.float64]) -> NDArray[np.int64]:
        """Total lengths of a waiting request, one a scenario: a plain draw from the window, unconditioned."""
        return self.lengths[(uniform * self._filled).astype(np.int64)]
