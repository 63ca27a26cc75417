"""splitwise-sim: ``request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from servsim.errors import TraceError
from servsim.scenario.workload_spec import TraceWorkload
from servsim.workload.columns import Columns, read_columns
from servsim.workload.row_checks import first_row
from servsim.workload.trace import Labels, TraceTable

__all__ = ["read"]

_LLM = 2


def read(path: Path, spec: TraceWorkload) -> TraceTable:
    """The file as a table; raises TraceError at the first row that cannot be a request.

    Arrivals are in seconds. Where there are several applications, they are the tenants. Rows are counted anew: the
    file's own ``request_id`` is not read.
    """
    columns = read_columns(
        path,
        {"arrival_timestamp": "number", "prompt_size": "number", "token_size": "number"},
        {"request_type": "number", "batch_size": "number", "application_id": "text"},
    )
    _refuse_other_than(columns, "request_type", _LLM, "only requests to a language model (type 2) can be replayed")
    _refuse_other_than(columns, "batch_size", 1, "a row is one request; write the others out")
    return TraceTable(
        path,
        prompt_tokens=columns.numbers("prompt_size"),
        output_tokens=columns.numbers("token_size"),
        arrival_s=columns.numbers("arrival_timestamp"),
        tenant=_applications(columns),
        lines=columns.place,
    )


def _refuse_other_than(columns: Columns, name: str, allowed: int, remedy: str) -> None:
    if name in columns and (row := first_row(columns.numbers(name) != allowed)) is not None:
        found = columns.numbers(name)[row]
        raise TraceError(f"{name} is {found:g}", place=columns.place(row), remedy=remedy)


def _applications(columns: Columns) -> Labels | None:
    if "application_id" not in columns:
        return None
    codes, names = columns.labels("application_id")
    if len(names) < 2:
        return None
    return Labels(codes.astype(np.int32), tuple(f"application-{name}" for name in names))
