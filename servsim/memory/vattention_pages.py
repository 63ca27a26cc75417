"""How many tokens a page group of virtually contiguous KV holds, and what mapping one takes."""

from __future__ import annotations

from dataclasses import dataclass

from servsim.errors import ScenarioError
from servsim.memory.surroundings import KvShape
from servsim.units import format_bytes

__all__ = ["MAP_S", "PageGroups", "page_groups"]

_KIB = 1 << 10
MAP_S = {64 * _KIB: 8.6e-6, 128 * _KIB: 8.6e-6, 256 * _KIB: 8.6e-6, 2048 * _KIB: 40e-6}
"""Seconds to map one page, by its bytes.

2 MiB: cuMemMap and cuMemSetAccess together, about 40 us (Prabhu et al., arXiv:2405.04437v2, on hiding the latency of
allocation). 64 KiB: the same paper's 7.6 GB/s of allocation with pages of 64 KiB on one GPU, by its modified driver.
128 and 256 KiB: our assumption that the driver takes as long for them as for 64 KiB.
"""


@dataclass(frozen=True, slots=True)
class PageGroups:
    """The smallest step in which the KV of one sequence grows, on one device."""

    tokens: int  # in one group
    pages: int  # of one group, each mapped by itself
    page_bytes: int
    remainder_bytes: int  # of each page that hold no whole token

    @property
    def size_bytes(self) -> int:
        """All pages of a group."""
        return self.pages * self.page_bytes

    def count(self, tokens: int) -> int:
        """Groups for so many tokens of one sequence."""
        return -(-tokens // self.tokens)


def page_groups(kv: KvShape, page_bytes: int, *, single_tensor: bool = False) -> PageGroups:
    """The groups of a model whose KV lies as ``kv`` says.

    A tensor of K and one of V for each layer: a group has ``2 L`` pages, each of ``page // row`` tokens. With
    ``single_tensor`` one tensor of K and one of V for all layers: 2 pages of ``page // (L row)`` tokens.
    Raises ScenarioError for a page size that no driver maps and for a page that does not hold one token.
    """
    if page_bytes not in MAP_S:
        raise ScenarioError(
            f"page_size is {page_bytes} bytes, and there are pages of 64, 128 and 256 KiB and of 2 MiB",
            remedy="write page_size: 2 MiB, or one of the others",
        )
    row_bytes = kv.row_bytes * (kv.num_layers if single_tensor else 1)
    tokens = page_bytes // row_bytes
    if not tokens:
        raise ScenarioError(
            f"a page of {format_bytes(page_bytes)} does not hold the {format_bytes(row_bytes)} of one token",
            remedy="use larger pages, or leave single_tensor out",
        )
    return PageGroups(tokens, 2 if single_tensor else 2 * kv.num_layers, page_bytes, page_bytes - tokens * row_bytes)
