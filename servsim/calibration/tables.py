"""Tables of measured kernels: Parquet or CSV, one kernel a row, as NVIDIA's AIConfigurator collects them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servsim.errors import ScenarioError

__all__ = ["COLUMNS", "Columns", "Table", "read_tables"]

Columns = dict[str, NDArray[Any]]

_ATTENTION = (
    "batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim", "attn_dtype", "kv_cache_dtype", "step",
)  # fmt: skip
COLUMNS: dict[str, tuple[str, ...]] = {
    "gemm": ("gemm_dtype", "m", "n", "k"),
    "context_attention": _ATTENTION,
    "generation_attention": _ATTENTION,
    "moe": (
        "moe_dtype", "num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size",
        "distribution",
    ),
    "all_reduce": ("allreduce_dtype", "num_gpus", "message_size", "backend"),
}  # fmt: skip
"""The columns that a table of each ``op_name`` needs, beside ``op_name`` itself and ``latency`` (milliseconds)."""

_WORDS = {
    "gemm_dtype", "attn_dtype", "kv_cache_dtype", "moe_dtype", "distribution", "allreduce_dtype", "backend",
}  # fmt: skip
_MAY_BE_ZERO = {"step", "window_size"}
_OPTIONAL = {"window_size": 0, "kernel_source": "", "framework": "", "version": "", "device": ""}


@dataclass(frozen=True, slots=True)
class Table:
    """One kind of kernel (``op_name``), its columns, and the files that they came from."""

    kind: str
    columns: Columns
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.columns["latency"])

    @property
    def measured_with(self) -> str:
        """Framework and version that ran the kernels, and the device's own name, as the table gives them."""
        found = [sorted(set(self.columns[name].astype(str))) for name in ("framework", "version", "device")]
        framework, version, device = (", ".join(filter(None, values)) for values in found)
        ran = f"{framework} {version}".strip()
        return " on ".join(part for part in (ran, device) if part) or "not stated"


def read_tables(paths: Iterable[Path]) -> list[Table]:
    """The tables in files, or in all ``*_perf.parquet`` and ``*_perf.csv`` of a folder; those of one kind are joined.

    Raises ScenarioError for a file that is no such table, naming the columns that it lacks.
    """
    found: dict[str, list[Table]] = {}
    for path in paths:
        for file in _files(path):
            table = _read(file)
            found.setdefault(table.kind, []).append(table)
    return [_joined(kind, tables) for kind, tables in sorted(found.items())]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.glob("*_perf.*") if file.suffix in (".parquet", ".csv"))
    if not files:
        raise ScenarioError(
            "no *_perf.parquet and no *_perf.csv in this folder",
            place=str(path),
            remedy="name the files themselves; docs/calibration.md says what stands in them",
        )
    return files


def _read(path: Path) -> Table:
    import pandas as pd  # slow to import, and only wanted here

    remedy = "a table of kernels is a Parquet file or a CSV with the columns of docs/calibration.md"
    try:
        frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except FileNotFoundError:
        raise ScenarioError("no such file", place=str(path)) from None
    except (OSError, ValueError) as error:
        raise ScenarioError(f"cannot be read: {str(error).splitlines()[0]}", place=str(path), remedy=remedy) from None
    missing = {"op_name", "latency"} - set(frame.columns)
    if missing:
        raise ScenarioError(f"no column {' and '.join(sorted(missing))}", place=str(path), remedy=remedy)
    kinds = sorted(set(frame["op_name"].astype(str)))
    if len(kinds) != 1 or kinds[0] not in COLUMNS:
        known = ", ".join(COLUMNS)
        raise ScenarioError(
            f"op_name is {', '.join(kinds) or 'missing'}", place=str(path), remedy=f"one of {known} in each file"
        )
    lacking = [name for name in COLUMNS[kinds[0]] if name not in frame.columns]
    if lacking:
        raise ScenarioError(f"a table of {kinds[0]} without {', '.join(lacking)}", place=str(path), remedy=remedy)
    columns: Columns = {name: frame[name].to_numpy() for name in (*COLUMNS[kinds[0]], "latency")}
    for name, default in _OPTIONAL.items():
        columns[name] = frame[name].to_numpy() if name in frame.columns else np.full(len(frame), default)
    for name in {*COLUMNS[kinds[0]], "latency", "window_size"} - _WORDS:
        columns[name] = _numbers(name, columns[name], path)
    return Table(kinds[0], columns, (path.name,))


def _numbers(name: str, values: NDArray[Any], path: Path) -> NDArray[Any]:
    """The column, if it holds positive numbers only (zeros too where they mean something)."""
    if values.dtype.kind in "fiu":
        wrong = ~(np.isfinite(values) & ((values >= 0) if name in _MAY_BE_ZERO else (values > 0)))
        if not wrong.any():
            return values
        found = f"{values[wrong][0]:g} in row {int(np.argmax(wrong)) + 1} of its data"
    else:
        found = "words"
    what = "is in milliseconds, above zero" if name == "latency" else "holds numbers, as docs/calibration.md says"
    raise ScenarioError(f"column {name} holds {found}", place=str(path), remedy=f"{name} {what}")


def _joined(kind: str, tables: list[Table]) -> Table:
    columns = {name: np.concatenate([table.columns[name] for table in tables]) for name in tables[0].columns}
    return Table(kind, columns, tuple(name for table in tables for name in table.names))
