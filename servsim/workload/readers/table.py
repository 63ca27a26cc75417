"""Any CSV or Parquet file, whose columns the scenario names."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from servsim.documents import Spec
from servsim.errors import TraceError
from servsim.scenario.workload_spec import TraceWorkload
from servsim.workload.blocks import Floats, Ints
from servsim.workload.columns import Columns, Kind, read_columns
from servsim.workload.row_checks import first_row
from servsim.workload.trace import Labels, Reader, TraceTable

__all__ = ["ColumnNames", "Parameters", "read"]


class ColumnNames(Spec):
    """What the columns of the file are called; those that are None or unnamed are not read.

    By default they are called as in servsim's own ``requests.csv``.
    """

    arrival_s: str | None = Field("arrival_s", description="When the request arrives; null for a file without times.")
    prompt_tokens: str = Field("prompt_tokens", description="Tokens of the prompt.")
    output_tokens: str = Field("output_tokens", description="Tokens of the output.")
    max_tokens: str | None = Field(None, description="The declared bound on the output.")
    tenant: str | None = Field(None, description="Whose request it is.")
    slo_class: str | None = Field(None, description="The SLO class.")
    priority: str | None = Field(None, description="A whole number; lower is more urgent.")


class Parameters(Spec):
    """How to read the file."""

    columns: ColumnNames = Field(default_factory=ColumnNames, description="What the columns are called.")
    time_unit: Literal["s", "ms", "us", "ns", "wall_time"] = Field(
        "s", description="The unit of arrivals; wall_time: dates such as 2023-11-16 18:17:03.98."
    )


_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


def _read(path: Path, spec: TraceWorkload) -> TraceTable:
    assert isinstance(spec.parameters, Parameters)  # the schema of this reader
    names, unit = spec.parameters.columns, spec.parameters.time_unit
    kinds: dict[str, Kind] = {names.prompt_tokens: "number", names.output_tokens: "number"}
    for name in (names.max_tokens, names.priority):
        kinds |= {name: "number"} if name else {}
    for name in (names.tenant, names.slo_class):
        kinds |= {name: "text"} if name else {}
    if names.arrival_s:
        kinds[names.arrival_s] = "wall_time" if unit == "wall_time" else "number"
    columns = read_columns(path, kinds)
    return TraceTable(
        path,
        prompt_tokens=columns.numbers(names.prompt_tokens),
        output_tokens=columns.numbers(names.output_tokens),
        arrival_s=_arrivals(columns, names.arrival_s, unit),
        max_tokens=columns.numbers(names.max_tokens) if names.max_tokens else None,
        tenant=Labels(*columns.labels(names.tenant)) if names.tenant else None,
        slo_class=Labels(*columns.labels(names.slo_class)) if names.slo_class else None,
        priority=_priorities(columns, names.priority),
        lines=columns.place,
    )


def _arrivals(columns: Columns, name: str | None, unit: str) -> Floats | None:
    if name is None:
        return None
    return columns.wall_times_s(name) if unit == "wall_time" else columns.numbers(name) * _SECONDS[unit]


def _priorities(columns: Columns, name: str | None) -> Ints | None:
    if name is None:
        return None
    values = columns.numbers(name)
    if (row := first_row((values != np.floor(values)) | (np.abs(values) >= 1 << 31))) is not None:
        message = f"{name} is {values[row]:g}"
        raise TraceError(message, place=columns.place(row), remedy="a priority is a whole number")
    return values.astype(np.int64)


read = Reader(Parameters, _read)
