"""How much KV several decoders have in common."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

__all__ = ["SharedReads"]


class SharedReads:
    """Counts the decoders that read each block, so that a kernel may read a block once for all of them.

    :attr:`tokens` are those that are read more than once if every decoder reads for itself, counted once for each
    decoder beyond the first: what ChunkAttention (arXiv 2402.15220) and RelayAttention (arXiv 2402.14808) save.
    """

    def __init__(self, block_size: int) -> None:
        self.tokens = 0
        self._block_size = block_size
        self._readers: dict[Hashable, int] = {}

    def join(self, blocks: Iterable[Hashable]) -> None:
        """A decoder that reads these blocks."""
        readers = self._readers
        for block in blocks:
            others = readers.get(block, 0)
            readers[block] = others + 1
            if others:
                self.tokens += self._block_size

    def leave(self, blocks: Iterable[Hashable]) -> None:
        """It reads them no more."""
        readers = self._readers
        for block in blocks:
            others = readers[block] - 1
            if others:
                readers[block] = others
                self.tokens -= self._block_size
            else:
                del readers[block]
