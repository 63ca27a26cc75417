"""Columns of a CSV or Parquet file, read by pyarrow; a cell that is wrong is found again with its line."""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from servsim.errors import TraceError, suggestion
from servsim.workload.blocks import Floats
from servsim.workload.row_checks import first_row

__all__ = ["Columns", "Kind", "read_columns"]

Kind = Literal["number", "wall_time", "text"]
"""``number``: a finite number. ``wall_time``: ``2023-11-16 18:17:03.9799600``, up to nine decimals. ``text``: any."""

_MISSING = ("", "NA", "N/A", "null", "NULL", "None")


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns asked for, all of one length; optional ones that the file lacks are absent."""

    path: Path
    arrays: Mapping[str, Any]  # pyarrow arrays without nulls
    kinds: Mapping[str, Kind]
    length: int
    _line_of_row: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return self.length

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def numbers(self, name: str) -> Floats:
        """A column of kind ``number``."""
        return np.asarray(self.arrays[name].to_numpy(), dtype=np.float64)

    def wall_times_s(self, name: str) -> Floats:
        """A column of kind ``wall_time``, in seconds since its first row, exact to a nanosecond."""
        nanoseconds = self.arrays[name].cast("int64").to_numpy()
        return (nanoseconds - nanoseconds[0]) / 1e9 if len(nanoseconds) else np.empty(0)

    def labels(self, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
        """A column of kind ``text`` as codes (i4) and the distinct texts in the order in which they first occur."""
        encoded = self.arrays[name].dictionary_encode().combine_chunks()
        return encoded.indices.to_numpy().astype(np.int32), tuple(encoded.dictionary.to_pylist())

    def place(self, row: int) -> str:
        """Where a row stands: ``trace.csv:17``; blank lines and line breaks within quotes are counted."""
        if _is_parquet(self.path):
            return f"{self.path}: row {row}"
        if not self._line_of_row:
            self._line_of_row.extend(line for line, _ in _rows(self.path))
        return f"{self.path}:{self._line_of_row[row + 1]}"


def read_columns(path: Path, kinds: Mapping[str, Kind], optional: Mapping[str, Kind] | None = None) -> Columns:
    """The columns ``kinds`` and, where the file has them, ``optional``; the file's other columns are not read.

    Raises TraceError for a missing file or column, and at the first cell that is not of its kind.
    """
    known = _column_names(path)
    for name in kinds:
        if name not in known:
            remedy = suggestion(name, known)
            if not remedy.startswith("known are"):
                remedy += f" The file has {', '.join(known) or 'none'}"
            raise TraceError(f"there is no column '{name}'", place=_first_line(path), remedy=remedy)
    wanted = {**kinds, **{name: kind for name, kind in (optional or {}).items() if name in known}}
    for name in wanted:
        if known.count(name) > 1:
            raise TraceError(f"there are two columns '{name}'", place=_first_line(path), remedy="rename one")
    table = _read_parquet(path, wanted) if _is_parquet(path) else _read_csv(path, wanted)
    columns = Columns(path, {name: table.column(name) for name in wanted}, wanted, table.num_rows)
    for name in wanted:
        _refuse_gaps(columns, name)
    return columns


def _refuse_gaps(columns: Columns, name: str) -> None:
    values = columns.arrays[name]
    if values.null_count:
        row = first_row(values.is_null().to_numpy())
        assert row is not None  # null_count said so
        raise TraceError(f"{name} is missing", place=columns.place(row), remedy="every row needs a value")
    if columns.kinds[name] == "number" and (row := first_row(~np.isfinite(columns.numbers(name)))) is not None:
        found = columns.numbers(name)[row]
        raise TraceError(f"{name} is {found:g}", place=columns.place(row), remedy="it must be a finite number")


def _read_csv(path: Path, wanted: Mapping[str, Kind]) -> Any:
    import pyarrow as arrow  # 0.2 s, which scenarios without a trace need not pay
    from pyarrow import csv as arrow_csv

    zone = "UTC" if any(kind == "wall_time" for kind in wanted.values()) and _has_zone(path, wanted) else None
    types = {"number": arrow.float64(), "text": arrow.string(), "wall_time": arrow.timestamp("ns", zone)}
    options = arrow_csv.ConvertOptions(
        include_columns=list(wanted),
        column_types={name: types[kind] for name, kind in wanted.items()},
        null_values=list(_MISSING),
        strings_can_be_null=True,
    )
    try:
        return arrow_csv.read_csv(
            path, convert_options=options, parse_options=arrow_csv.ParseOptions(newlines_in_values=True)
        )
    except arrow.ArrowInvalid as error:
        _refuse_first_wrong_cell(path, wanted)
        raise TraceError(f"cannot be read as CSV: {error}", place=str(path)) from None


def _read_parquet(path: Path, wanted: Mapping[str, Kind]) -> Any:
    import pyarrow as arrow
    from pyarrow import compute, parquet

    try:
        table = parquet.read_table(path, columns=list(wanted))
    except (OSError, arrow.ArrowInvalid) as error:
        raise TraceError(f"cannot be read as Parquet: {error}", place=str(path)) from None
    types = {"number": arrow.float64(), "text": arrow.string(), "wall_time": arrow.timestamp("ns")}
    for name, kind in wanted.items():
        values = table.column(name)
        try:
            if kind == "number" and arrow.types.is_string(values.type):
                raise arrow.ArrowInvalid("text")
            values = compute.cast(values, types[kind], safe=False)
        except (arrow.ArrowInvalid, arrow.ArrowNotImplementedError):
            message = f"the column '{name}' holds {values.type}, not a {kind.replace('_', ' ')}"
            raise TraceError(message, place=str(path)) from None
        table = table.set_column(table.column_names.index(name), name, values)
    return table


def _refuse_first_wrong_cell(path: Path, wanted: Mapping[str, Kind]) -> None:
    """What pyarrow reports only vaguely, found again row by row."""
    rows = _rows(path)
    _, names = next(rows)
    for line, cells in rows:
        if len(cells) != len(names):
            message = f"the row has {len(cells)} columns, the header {len(names)}"
            raise TraceError(message, place=f"{path}:{line}", remedy="give every row one value a column")
        for name, kind in wanted.items():
            cell = cells[names.index(name)]
            if cell in _MISSING:
                raise TraceError(f"{name} is missing", place=f"{path}:{line}", remedy="every row needs a value")
            if not _fits(cell, kind):
                what = "a number" if kind == "number" else "a time such as 2023-11-16 18:17:03.98"
                raise TraceError(f"{name} is {cell!r}", place=f"{path}:{line}", remedy=f"it must be {what}")


def _fits(cell: str, kind: Kind) -> bool:
    try:
        if kind == "number":
            return math.isfinite(float(cell)) and "_" not in cell
        if kind == "wall_time":
            seconds, _, decimals = cell.partition(".")
            datetime.fromisoformat(seconds)
            return len(decimals.split("+")[0].rstrip("Z")) <= 9
    except ValueError:
        return False
    return True


def _has_zone(path: Path, wanted: Mapping[str, Kind]) -> bool:
    """Whether the first time is written with an offset; Azure's traces of 2024 are, those of 2023 are not."""
    rows = _rows(path)
    _, names = next(rows)
    _, cells = next(rows, (0, []))
    if len(cells) != len(names):
        return False
    times = [cells[names.index(name)] for name, kind in wanted.items() if kind == "wall_time"]
    return any(time.endswith("Z") or "+" in time or "-" in time[11:] for time in times)


def _column_names(path: Path) -> list[str]:
    if not _is_parquet(path):
        for _, names in _rows(path):
            return names
        raise TraceError("the file is empty", place=str(path))
    import pyarrow as arrow
    from pyarrow import parquet

    try:
        return list(parquet.read_schema(path).names)
    except (OSError, arrow.ArrowInvalid) as error:
        raise TraceError(f"cannot be read as Parquet: {error}", place=str(path)) from None


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file, the header first, with the lines on which they end; blank ones are passed over."""
    with _open_text(path) as file:
        reader = csv.reader(file)
        try:
            for cells in reader:
                if cells:
                    yield reader.line_num, cells
        except (UnicodeDecodeError, csv.Error) as error:
            raise TraceError(f"cannot be read as CSV: {error}", place=f"{path}:{reader.line_num + 1}") from None


def _open_text(path: Path) -> IO[str]:
    try:
        if path.suffix == ".gz":
            return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
        return open(path, encoding="utf-8-sig", newline="")
    except OSError as error:
        raise TraceError(f"cannot be read: {error.strerror}", place=str(path)) from None


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in (".parquet", ".pq")


def _first_line(path: Path) -> str:
    return str(path) if _is_parquet(path) else f"{path}:1"
