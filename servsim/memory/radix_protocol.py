"""What an order or an admission rule may ask of an allocator with a prefix tree, besides what all allocators tell."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from collections.abc import Sequence as Many
from typing import Protocol, runtime_checkable

from servsim.request import Sequence

__all__ = ["PrefixTree"]


@runtime_checkable
class PrefixTree(Protocol):
    """Looks at what is kept; none of them changes anything."""

    @property
    def cache_version(self) -> int:
        """A number that is another one whenever something else may be found."""
        ...

    def cached_tokens(self, sequence: Sequence) -> int:
        """Tokens of a waiting sequence whose KV would be found now."""
        ...

    def claimed_tokens(self, sequences: Iterable[Sequence]) -> int:
        """Of what would be found for these waiting sequences together, tokens that count as free until then."""
        ...

    def found_path(self, sequence: Sequence) -> Many[Hashable]:
        """The nodes on which it is found, from the top; equal nodes of two sequences are shared by them."""
        ...

    def opening(self, sequence: Sequence, tokens: int) -> Hashable | None:
        """Equal for sequences that begin with the same ``tokens`` tokens; None where that many are not known."""
        ...

    def steps_until_eviction(self, at_most: int) -> int:
        """For how many of the next ``at_most`` steps all decoders can grow into memory that holds nothing."""
        ...
