"""A trace as a request stream: a window of the file, its gaps stretched, or its lengths at other times."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from servsim import registry
from servsim.errors import TraceError
from servsim.scenario.arrival_spec import ArrivalSpec, ClosedLoopArrivals
from servsim.scenario.workload_spec import TraceWorkload
from servsim.streams import Streams
from servsim.workload.arrivals import arrival_times
from servsim.workload.blocks import BLOCK_REQUESTS, Floats, Ints, RequestBlock, RequestStream
from servsim.workload.closed_loop import ClosedLoop
from servsim.workload.trace import Labels, TraceTable, checked, select

__all__ = ["open_trace", "read_trace"]


def open_trace(spec: TraceWorkload, streams: Streams) -> RequestStream:
    """The requests of a trace file; raises TraceError at the first row that is wrong, or where none is left."""
    table = read_trace(spec)
    arrivals = spec.arrivals
    closed_loop = ClosedLoop(arrivals, streams) if isinstance(arrivals, ClosedLoopArrivals) else None
    return RequestStream(
        make_blocks=lambda: _blocks(table, spec, streams),
        num_requests=len(table),
        tenants=table.tenant.names if table.tenant else ("default",),
        slo_classes=table.slo_class.names if table.slo_class else ("default",),
        closed_loop=closed_loop,
        tokens_per_hash=table.tokens_per_hash,
        notes=table.notes,
    )


def read_trace(spec: TraceWorkload) -> TraceTable:
    """The window of the file that is to be replayed, checked; times are still those of the file."""
    if not spec.trace.is_file():
        raise TraceError(
            "this is a folder" if spec.trace.is_dir() else "no such file",
            place=str(spec.trace),
            remedy="a path in a scenario is relative to the scenario's file",
        )
    table = checked(registry.resolve("trace_readers", spec.format)(spec.trace, spec), spec)
    if table.arrival_s is None:
        if spec.arrivals is None:
            remedy = "say when requests arrive: arrivals: {process: poisson, rate_per_s: 10} beside the trace"
            raise TraceError("the file has no arrival times", place=str(spec.trace), remedy=remedy)
        if spec.start_s or spec.duration_s is not None:
            remedy = "leave out start_s and duration_s; num_requests limits the requests"
            raise TraceError("a file without times has no window of time", place=str(spec.trace), remedy=remedy)
    return _window(table, spec)


def _window(table: TraceTable, spec: TraceWorkload) -> TraceTable:
    keep = np.ones(len(table), dtype=bool)
    if table.arrival_s is not None and (spec.start_s or spec.duration_s is not None):
        since_first_s = table.arrival_s - table.arrival_s[0]
        keep = since_first_s >= spec.start_s
        if spec.duration_s is not None:
            keep &= since_first_s < spec.start_s + spec.duration_s
        if not keep.any():
            message = f"no request arrives in the window; the file covers {since_first_s[-1]:g} s"
            raise TraceError(message, place=str(spec.trace), remedy="change workload.start_s or workload.duration_s")
    if spec.num_requests is not None:
        keep[np.flatnonzero(keep)[spec.num_requests :]] = False
    return select(table, keep)


def _blocks(table: TraceTable, spec: TraceWorkload, streams: Streams) -> Iterator[RequestBlock]:
    arrival_s = _arrivals(table, spec.arrivals, streams, spec.time_scale)
    rows = table.file_rows
    ends = np.append(np.flatnonzero(np.diff(rows) != 1) + 1, len(rows))
    start = 0
    for end in ends.tolist():  # ids within a block follow one by one, so a gap in them ends it
        for first in range(start, end, BLOCK_REQUESTS):
            yield _block(table, arrival_s, spec.max_tokens, slice(first, min(first + BLOCK_REQUESTS, end)))
        start = end


def _block(table: TraceTable, arrival_s: Floats, default_max_tokens: int, part: slice) -> RequestBlock:
    output_tokens: Ints = table.output_tokens[part].astype(np.int64, copy=False)
    count = len(output_tokens)
    declared = table.max_tokens[part] if table.max_tokens is not None else np.full(count, default_max_tokens)
    return RequestBlock(
        first_request_id=int(table.file_rows[part.start]),
        arrival_s=arrival_s[part],
        prompt_tokens=table.prompt_tokens[part].astype(np.int64, copy=False),
        output_tokens=output_tokens,
        max_tokens=np.maximum(declared, output_tokens),
        tenant=_codes(table.tenant, part, count),
        slo_class=_codes(table.slo_class, part, count),
        priority=np.zeros(count, np.int32) if table.priority is None else table.priority[part].astype(np.int32),
        hash_ids=None if table.hash_ids is None else table.hash_ids[part],
    )


def _arrivals(table: TraceTable, spec: ArrivalSpec | None, streams: Streams, time_scale: float) -> Floats:
    if spec is not None:
        return arrival_times(spec, streams)(len(table))
    assert table.arrival_s is not None  # read_trace saw to it
    since_first_s: Floats = (table.arrival_s - table.arrival_s[0]) * time_scale
    return since_first_s


def _codes(labels: Labels | None, part: slice, count: int) -> np.ndarray:
    return np.zeros(count, np.int32) if labels is None else labels.codes[part]
