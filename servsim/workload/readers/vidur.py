"""vidur: ``arrived_at,num_prefill_tokens,num_decode_tokens``, or lengths alone, without ``arrived_at``."""

from __future__ import annotations

from pathlib import Path

from servsim.scenario.workload_spec import TraceWorkload
from servsim.workload.columns import read_columns
from servsim.workload.trace import TraceTable

__all__ = ["read"]


def read(path: Path, spec: TraceWorkload) -> TraceTable:
    """The file as a table; arrivals are in seconds. Raises TraceError at the first row that cannot be a request."""
    columns = read_columns(
        path, {"num_prefill_tokens": "number", "num_decode_tokens": "number"}, {"arrived_at": "number"}
    )
    return TraceTable(
        path,
        prompt_tokens=columns.numbers("num_prefill_tokens"),
        output_tokens=columns.numbers("num_decode_tokens"),
        arrival_s=columns.numbers("arrived_at") if "arrived_at" in columns else None,
        lines=columns.place,
    )
