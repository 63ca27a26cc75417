"""BurstGPT: ``Timestamp``, ``Model``, ``Request tokens``, ``Response tokens``, ``Log Type`` (HPMLL/BurstGPT)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import Field

from servsim.documents import Spec
from servsim.errors import TraceError, suggestion
from servsim.scenario.workload_spec import TraceWorkload
from servsim.workload.columns import Columns, read_columns
from servsim.workload.trace import Labels, Reader, TraceTable, select

__all__ = ["Parameters", "read"]


class Parameters(Spec):
    """Which requests of the log are meant."""

    model: str | None = Field(None, description="Only requests to this model, say ChatGPT or GPT-4; by default all.")
    log_type: str | None = Field(None, description="Only this kind, say Conversation log or API log; by default all.")


def _read(path: Path, spec: TraceWorkload) -> TraceTable:
    """Requests that failed, with 0 response tokens, are dropped and counted; the tenant of a request is its model.

    Columns are found by name: older files have no session id and no elapsed time.
    """
    columns = read_columns(
        path,
        {"Timestamp": "number", "Request tokens": "number", "Response tokens": "number"},
        {"Model": "text", "Log Type": "text"},
    )
    table = TraceTable(
        path,
        prompt_tokens=columns.numbers("Request tokens"),
        output_tokens=columns.numbers("Response tokens"),
        arrival_s=columns.numbers("Timestamp"),
        tenant=Labels(*columns.labels("Model")) if "Model" in columns else None,
        lines=columns.place,
    )
    keep = np.ones(len(table), dtype=bool)
    assert isinstance(spec.parameters, Parameters)  # the schema of this reader
    for name, wanted in (("Model", spec.parameters.model), ("Log Type", spec.parameters.log_type)):
        if wanted is not None:
            keep &= _is(columns, name, wanted)
    others = int((~keep).sum())
    table = select(table, keep, f"requests to other models or of other kinds left out: {others}")
    answered = np.asarray(table.output_tokens) != 0
    failed = int((~answered).sum())
    return _only_tenants_left(select(table, answered, f"failed requests (0 response tokens) dropped: {failed}"))


def _is(columns: Columns, name: str, wanted: str) -> np.ndarray:
    if name not in columns:
        raise TraceError(f"there is no column '{name}' to choose by", place=columns.place(0))
    codes, names = columns.labels(name)
    if wanted not in names:
        raise TraceError(f"no {name} is '{wanted}'", place=str(columns.path), remedy=suggestion(wanted, names))
    return np.asarray(codes == names.index(wanted))


def _only_tenants_left(table: TraceTable) -> TraceTable:
    if table.tenant is None:
        return table
    left, codes = np.unique(table.tenant.codes, return_inverse=True)
    names = tuple(table.tenant.names[code] for code in left)
    return replace(table, tenant=Labels(codes.astype(np.int32), names))


read = Reader(Parameters, _read)
