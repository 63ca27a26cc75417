"""Whole waves of tiles: what a matrix product computes beyond its result, because tiles and processors are whole."""

from __future__ import annotations

import math

__all__ = ["wave_factor"]

# Rows x columns of a result that one thread block computes: the larger of cuBLAS's and CUTLASS's usual shapes. Which
# one a library takes is not known; their geometric mean stands for its choice.
_TILES = ((128, 256), (128, 128), (64, 256), (256, 128), (64, 128), (128, 64))
_MOST = 2.0  # just over one wave takes two; a result smaller than a wave is left to smaller tiles and split sums


def wave_factor(rows: float, columns: float, processors: int) -> float:
    """By how much a product's time steps above its FLOPs: 1 where tiles fill whole waves, 2 at most.

    A wave is one tile on each of ``processors`` (streaming multiprocessors); a last wave that is half empty takes
    as long as a full one. So 1,024 x 4,096 is one wave of 128 x 256 tiles on 142 processors, 1,025 x 4,096 two.
    """
    logs = 0.0
    for tile_rows, tile_columns in _TILES:
        tiles = -(-rows // tile_rows) * -(-columns // tile_columns)
        computed = -(-tiles // processors) * processors * tile_rows * tile_columns
        logs += math.log(min(_MOST, computed / (rows * columns)))
    return math.exp(logs / len(_TILES))
