"""One seed a scenario, one random stream a purpose.

A stream is found by its name, so that a new one never shifts the draws of another.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Streams"]


class Streams:
    """The named random streams of one simulation.

    ``Streams(seed).get("arrivals")`` is a fresh numpy Generator (PCG64) that depends on the seed
    and the name alone; asking twice gives two generators in the same state.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def get(self, name: str) -> np.random.Generator:
        """The stream called ``name``, from its beginning."""
        from numpy.random import PCG64, Generator, SeedSequence  # keeps numpy out of `servsim --help`

        digest = hashlib.sha256(name.encode()).digest()
        words = [int.from_bytes(digest[i : i + 4], "big") for i in range(0, 16, 4)]
        return Generator(PCG64(SeedSequence(entropy=self.seed, spawn_key=tuple(words))))
