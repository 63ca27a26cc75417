"""Typed columns that grow row by row, at the price of one tuple a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Columns"]

_ROWS_A_CHUNK = 8192


class Columns:
    """A table under construction: rows are appended as tuples and packed into arrays by the chunk.

    A row costs one list append while a chunk fills; a packed row costs what its types need (8 bytes
    for a float64), so that millions of them fit in memory.
    """

    def __init__(self, types: Mapping[str, str]) -> None:
        self._types = dict(types)
        self._rows: list[tuple[Any, ...]] = []
        self._chunks: list[NDArray[np.void]] = []
        self._dtype = np.dtype(list(self._types.items()))

    def __len__(self) -> int:
        return sum(len(chunk) for chunk in self._chunks) + len(self._rows)

    def append(self, row: tuple[Any, ...]) -> None:
        """Add one row, its values in the order of the columns."""
        rows = self._rows
        rows.append(row)
        if len(rows) >= _ROWS_A_CHUNK:
            self._pack()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The finished columns, contiguous, in the order in which rows were appended."""
        self._pack()
        return {
            name: np.concatenate([chunk[name] for chunk in self._chunks])
            if self._chunks
            else np.empty(0, dtype=self._dtype[name])
            for name in self._types
        }

    def _pack(self) -> None:
        if self._rows:
            self._chunks.append(np.array(self._rows, dtype=self._dtype))
            self._rows.clear()
