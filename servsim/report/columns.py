"""Tables of columns on disk: CSV that reads back equal, and Parquet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servsim.errors import ResultError

__all__ = ["TABLE_FORMATS", "read_columns", "write_columns"]

TABLE_FORMATS = ("csv", "parquet")

# Characters for which a string needs quotes in a CSV file.
_SPECIAL = frozenset(',"\r\n')


def write_columns(path: Path, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write columns of one length, as the suffix of ``path`` says (``.csv`` or ``.parquet``).

    Floats are written with as many digits as it takes to read them back equal; NaN, None and masked values
    are left empty. The same columns give the same bytes.
    """
    table = _table(columns)
    if path.suffix == ".parquet":
        import pyarrow.parquet as parquet  # a tenth of a second, and CSV is the usual format

        parquet.write_table(table, path)
        return
    from pyarrow import csv

    # Arrow would quote every string and every name; they are quoted only where one of them needs it.
    options = csv.WriteOptions(include_header=False, quoting_style="needed" if _needs_quotes(columns) else "none")
    with path.open("wb") as file:
        file.write((",".join(columns) + "\n").encode())
        csv.write_csv(table, file, options)


def read_columns(path: Path, types: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """Read a table back as numpy columns, in the order of the file; ``types`` maps names to numpy type codes.

    An empty float is NaN; a column of type ``?`` is a masked array, masked where the file is empty; columns
    that ``types`` does not name are read as they look. Raises ResultError when the file is missing, is no
    such table or lacks a column.
    """
    if not path.is_file():
        raise ResultError("no such table", place=str(path), remedy="was the folder written by servsim run?")
    table = _read_table(path, types)
    missing = [name for name in types if name not in table.column_names]
    if missing:
        raise ResultError(f"column {missing[0]!r} is missing", place=str(path))
    return {name: _array(table.column(name), types.get(name)) for name in table.column_names}


def _table(columns: Mapping[str, NDArray[Any]]) -> Any:
    import pyarrow as pa  # 0.3 s: only who writes or reads tables pays it

    return pa.table([_arrow(column) for column in columns.values()], names=list(columns))


def _arrow(column: NDArray[Any]) -> Any:
    """A column as an Arrow array over the same memory, null where it is NaN or masked.

    ``pyarrow.array`` would do, but imports pandas to look whether it was handed something of its own.
    """
    import pyarrow as pa

    if column.dtype.kind == "U":
        return _strings(column)
    valid = None
    if isinstance(column, np.ma.MaskedArray):
        column, valid = np.asarray(column.data), ~np.ma.getmaskarray(column)
    elif column.dtype.kind == "f":
        valid = ~np.isnan(column)
    kind = pa.from_numpy_dtype(column.dtype)
    values = _bits(column) if column.dtype.kind == "b" else pa.py_buffer(np.ascontiguousarray(column))
    return pa.Array.from_buffers(kind, len(column), [None if valid is None else _bits(valid), values])


def _bits(flags: NDArray[np.bool_]) -> Any:
    import pyarrow as pa

    return pa.py_buffer(np.packbits(flags, bitorder="little"))


def _strings(column: NDArray[np.str_]) -> Any:
    """Packed from the few distinct strings; Arrow's own cast would import all its kernels first (50 ms)."""
    import pyarrow as pa

    names, codes = _distinct(column)
    packed = [name.encode() for name in names]
    sizes = np.array([len(name) for name in packed], dtype=np.int32)
    width = int(sizes.max(initial=0))
    letters = np.frombuffer(b"".join(name.ljust(width, b"\0") for name in packed), dtype=np.uint8)
    sizes = sizes[codes]
    text = letters.reshape(len(packed), width)[codes][np.arange(width) < sizes[:, None]]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    return pa.Array.from_buffers(pa.string(), len(column), [None, pa.py_buffer(offsets), pa.py_buffer(text)])


def _distinct(column: NDArray[np.str_]) -> tuple[list[str], NDArray[np.int32]]:
    """The few strings that a column repeats, and which of them each row is; sorting strings would cost more."""
    codes = np.full(len(column), -1, dtype=np.int32)
    names: list[str] = []
    while (unknown := codes < 0).any():
        name = column[int(np.argmax(unknown))]
        codes[column == name] = len(names)
        names.append(str(name))
    return names, codes


def _needs_quotes(columns: Mapping[str, NDArray[Any]]) -> bool:
    texts = [text for column in columns.values() if column.dtype.kind == "U" for text in _distinct(column)[0]]
    return any(_SPECIAL & set(text) or not text for text in texts)


def _read_table(path: Path, types: Mapping[str, str]) -> Any:
    import pyarrow as pa

    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as parquet

            return parquet.read_table(path)
        from pyarrow import csv

        wanted = {name: _arrow_type(code) for name, code in types.items()}
        return csv.read_csv(path, convert_options=csv.ConvertOptions(column_types=wanted))
    except (pa.ArrowException, OSError) as error:
        raise ResultError(f"not a table that servsim wrote: {error}", place=str(path)) from error


def _arrow_type(code: str) -> Any:
    import pyarrow as pa

    return pa.string() if code == "U" else pa.from_numpy_dtype(np.dtype(code))


def _array(column: Any, code: str | None) -> NDArray[Any]:
    if code == "?":
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        return np.ma.MaskedArray(column.fill_null(False).to_numpy(zero_copy_only=False), mask=~valid)
    array: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return array.astype(np.str_) if array.dtype.kind == "O" else array
