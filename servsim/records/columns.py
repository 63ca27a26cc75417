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
        self._dtype = np.dtype(list(types.items()))
        self._rows: list[tuple[Any, ...]] = []
        self._packed: dict[str, list[NDArray[Any]]] = {name: [] for name in types}
        self._packed_rows = 0

    def __len__(self) -> int:
        return self._packed_rows + len(self._rows)

    def append(self, row: tuple[Any, ...]) -> None:
        """Add one row, its values in the order of the columns."""
        rows = self._rows
        rows.append(row)
        if len(rows) >= _ROWS_A_CHUNK:
            self._pack()

    def take(self) -> dict[str, NDArray[Any]]:
        """The columns, contiguous, in the order in which rows were appended; the table is empty afterwards.

        Pieces are given up column by column, so that no second copy of the table ever exists.
        """
        self._pack()
        columns = {}
        for name, pieces in self._packed.items():
            columns[name] = np.concatenate(pieces) if pieces else np.empty(0, dtype=self._dtype[name])
            pieces.clear()
        self._packed_rows = 0
        return columns

    def _pack(self) -> None:
        if self._rows:
            table = np.array(self._rows, dtype=self._dtype)
            for name, pieces in self._packed.items():
                pieces.append(table[name].copy())
            self._packed_rows += len(self._rows)
            self._rows.clear()
