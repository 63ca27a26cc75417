"""Beam search as chance: which beams are dropped for forks of others, and when."""

from __future__ import annotations

import numpy as np

from servsim.request import Request
from servsim.streams import Streams

__all__ = ["BeamDraws", "Reorderings"]

_NEVER = 1 << 60


class Reorderings:
    """What becomes of the beams of one request, drawn as it is asked for.

    Which beams survive a step depends on what a model finds probable. In its place: with each token after the first, a
    beam is replaced with probability ``probability``, each as likely as the others, by a fork of one of the others,
    each as likely again (the Moran model of population genetics). Gaps are drawn, as geometric numbers of tokens.
    """

    __slots__ = ("_probability", "_stream", "_width", "at_tokens")

    def __init__(self, stream: np.random.Generator, width: int, probability: float) -> None:
        self._stream = stream
        self._width = width
        self._probability = probability
        self.at_tokens = 1
        """Tokens that each beam has emitted when the next one is replaced."""
        self._draw_gap()

    def take(self) -> tuple[int, int]:
        """The beam that is dropped at :attr:`at_tokens`, and the one that forks in its place; then come the next."""
        dropped = int(self._stream.integers(self._width))
        source = int(self._stream.integers(self._width - 1))
        self._draw_gap()
        return dropped, source + (source >= dropped)

    def _draw_gap(self) -> None:
        self.at_tokens += int(self._stream.geometric(self._probability)) if self._probability else _NEVER


class BeamDraws:
    """The reorderings of any request: a stream for each, so that the order in which they are served changes none."""

    def __init__(self, streams: Streams, probability: float) -> None:
        self._streams = streams
        self._probability = probability

    def __call__(self, request: Request) -> Reorderings:
        """Those of one request, from the beginning."""
        stream = self._streams.get(f"beams of request {request.request_id}")
        return Reorderings(stream, request.beam_width, self._probability)
