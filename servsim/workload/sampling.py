"""Parallel sampling: every request asks for several answers to one prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from servsim.workload.blocks import RequestBlock, RequestStream
from servsim.workload.contents import Contents

__all__ = ["sampled"]


def sampled(stream: RequestStream, samples: int, unit_tokens: int = 16) -> RequestStream:
    """The stream with ``samples`` requests in the place of each, which arrive together and have one prompt.

    So vLLM v1 serves ``n > 1``: each answer is a request of its own, and what they share is found in the prefix cache.
    All answers to a prompt are equally long. Ids of a prompt's answers follow one another. Where the stream tells no
    content by itself, it is told in units of ``unit_tokens``.
    """
    unit = stream.tokens_per_hash or unit_tokens

    def blocks() -> Iterator[RequestBlock]:
        told = 0  # ids given to prompts whose content nobody knows
        for block in stream.blocks():
            content = block.hash_ids
            if content is None:
                units = block.prompt_tokens // unit
                own_id = told + np.cumsum(units) - units
                told += int(units.sum())
                nothing = np.zeros_like(units)
                content = Contents(nothing, nothing, own_id, units)
            yield _repeated(block, content, samples)

    number = stream.num_requests
    return replace(
        stream,
        make_blocks=blocks,
        num_requests=None if number is None else samples * number,
        tokens_per_hash=unit,
    )


def _repeated(block: RequestBlock, content: Sequence[tuple[int, ...]], samples: int) -> RequestBlock:
    names = ("arrival_s", "prompt_tokens", "output_tokens", "max_tokens", "tenant", "slo_class", "priority")
    if isinstance(content, Contents):
        parts = (content.prefix_id, content.prefix_units, content.own_id, content.units)
        content = Contents(*(np.repeat(part, samples) for part in parts))
    else:
        content = [ids for ids in content for _ in range(samples)]
    columns: dict[str, Any] = {name: np.repeat(getattr(block, name), samples) for name in names}
    return replace(block, first_request_id=samples * block.first_request_id, hash_ids=content, **columns)
