"""Requests with several outputs, or beams, that one sequence group makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from servsim.workload.blocks import Ints, RequestBlock, RequestStream

__all__ = ["grouped", "with_outputs"]


def with_outputs(block: RequestBlock, further: Ints) -> RequestBlock:
    """The block with further outputs of these lengths (a row a request); a request's longest is its output."""
    lengths = -np.sort(-np.column_stack([block.output_tokens, further]), axis=1)
    longest = lengths[:, 0].copy()
    max_tokens = np.maximum(block.max_tokens, longest)
    return replace(block, output_tokens=longest, max_tokens=max_tokens, further_outputs=lengths[:, 1:])


def grouped(stream: RequestStream, *, outputs: int = 1, beams: int = 1) -> RequestStream:
    """The stream with so many equally long outputs of each request, or with so many beams."""

    def group(block: RequestBlock) -> RequestBlock:
        if beams > 1:
            return replace(block, beam_width=beams)
        return with_outputs(block, np.repeat(block.output_tokens[:, None], outputs - 1, axis=1))

    return replace(stream, make_blocks=_each(stream.make_blocks, group))


def _each(
    make: Callable[[], Iterator[RequestBlock]], change: Callable[[RequestBlock], RequestBlock]
) -> Callable[[], Iterator[RequestBlock]]:
    return lambda: map(change, make())
