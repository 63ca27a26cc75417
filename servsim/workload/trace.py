"""A trace file as a table, whatever its format, and what every reader's table has to fulfil."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from servsim.errors import TraceError
from servsim.scenario.workload_spec import TraceWorkload
from servsim.workload.blocks import Floats, Ints
from servsim.workload.row_checks import Place, check_rising, check_times, first_row, token_counts

__all__ = ["Labels", "Reader", "TraceReader", "TraceTable", "checked", "select"]


class Labels(NamedTuple):
    """A column of names: ``names[codes[i]]`` is that of row i."""

    codes: NDArray[np.int32]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TraceTable:
    """The requests of a trace file, as columns of one length, in the order of the file.

    Lengths may be floats as they were read: :func:`checked` makes whole numbers of them.
    """

    path: Path
    prompt_tokens: Floats | Ints
    output_tokens: Floats | Ints
    arrival_s: Floats | None = None  # seconds from any zero, not falling; None where the format has no times
    max_tokens: Floats | Ints | None = None
    tenant: Labels | None = None
    slo_class: Labels | None = None
    priority: Ints | None = None
    hash_ids: list[tuple[int, ...]] | None = None
    tokens_per_hash: int | None = None
    rows: Ints | None = None  # numbers of the rows in the file, from 0; None: all of them
    lines: Place | None = None  # where a row of the file stands, for messages
    notes: tuple[str, ...] = ()  # what the reader left out, say, for the summary

    def __len__(self) -> int:
        return len(self.prompt_tokens)

    @property
    def file_rows(self) -> Ints:
        """Numbers of the rows in the file, which become request ids."""
        return np.arange(len(self)) if self.rows is None else self.rows

    def place(self, index: int) -> str:
        """Where the ``index``-th request of this table stands in the file."""
        row = int(self.file_rows[index])
        return self.lines(row) if self.lines is not None else f"{self.path}: request {row}"


TraceReader = Callable[[Path, TraceWorkload], TraceTable]
"""What a plug-in for a trace format is: a function, or an object with a schema ``Parameters`` besides."""


class Reader(NamedTuple):
    """A trace reader together with the schema of its parameters, which arrive as ``spec.parameters``."""

    Parameters: type[BaseModel]
    read: TraceReader

    def __call__(self, path: Path, spec: TraceWorkload) -> TraceTable:
        """The file as a table; raises TraceError at the first row that cannot be a request."""
        return self.read(path, spec)


def select(table: TraceTable, keep: NDArray[np.bool_], note: str = "") -> TraceTable:
    """The rows for which ``keep`` holds, with their numbers in the file; ``note`` says what became of the others."""
    if keep.all():
        return table

    def labels(column: Labels | None) -> Labels | None:
        return None if column is None else Labels(column.codes[keep], column.names)

    return replace(
        table,
        prompt_tokens=table.prompt_tokens[keep],
        output_tokens=table.output_tokens[keep],
        arrival_s=None if table.arrival_s is None else table.arrival_s[keep],
        max_tokens=None if table.max_tokens is None else table.max_tokens[keep],
        tenant=labels(table.tenant),
        slo_class=labels(table.slo_class),
        priority=None if table.priority is None else table.priority[keep],
        hash_ids=None if table.hash_ids is None else [table.hash_ids[i] for i in np.flatnonzero(keep)],
        rows=table.file_rows[keep],
        notes=(*table.notes, note) if note else table.notes,
    )


def checked(table: TraceTable, spec: TraceWorkload) -> TraceTable:
    """The table with whole lengths of at least one token, rising times and nothing that cannot be.

    Rows without prompt or output tokens are dropped and noted where ``spec.zero_tokens`` says so. Raises TraceError at
    the first row that is wrong, and for a table without rows.
    """
    _refuse_empty(table)
    if spec.zero_tokens == "drop":
        empty = (np.asarray(table.prompt_tokens) == 0) | (np.asarray(table.output_tokens) == 0)
        note = f"rows without prompt or output tokens dropped: {int(empty.sum())}"
        table = select(table, ~empty, note)
        _refuse_empty(table)
    if table.arrival_s is not None:
        check_times(table.arrival_s, table.place)
        check_rising(table.arrival_s, table.place)
    prompt_tokens = _counts(table, table.prompt_tokens, "the number of prompt tokens")
    output_tokens = _counts(table, table.output_tokens, "the number of output tokens")
    max_tokens = None
    if table.max_tokens is not None:
        max_tokens = _counts(table, table.max_tokens, "max_tokens")
        if (row := first_row(max_tokens < output_tokens)) is not None:
            message = f"max_tokens is {max_tokens[row]}, but {output_tokens[row]} tokens came out"
            raise TraceError(message, place=table.place(row), remedy="no output is longer than what was declared")
    return replace(table, prompt_tokens=prompt_tokens, output_tokens=output_tokens, max_tokens=max_tokens)


def _counts(table: TraceTable, values: Floats | Ints, name: str) -> Ints:
    as_floats = np.asarray(values, dtype=np.float64)
    if (row := first_row(as_floats == 0)) is not None:
        remedy = "such a request cannot be served; workload.zero_tokens: drop leaves such rows out and counts them"
        raise TraceError(f"{name} is 0", place=table.place(row), remedy=remedy)
    return token_counts(as_floats, name, table.place)


def _refuse_empty(table: TraceTable) -> None:
    if len(table) == 0:
        left = f" ({'; '.join(table.notes)})" if table.notes else ""
        raise TraceError(f"the trace holds no request{left}", place=str(table.path))
