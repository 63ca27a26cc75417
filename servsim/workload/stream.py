"""From what a scenario says about its workload to the stream of its requests."""

from __future__ import annotations

from servsim.scenario.group_spec import forked_outputs, requests_each
from servsim.scenario.workload_spec import SyntheticWorkload, TraceWorkload
from servsim.streams import Streams
from servsim.workload.blocks import RequestBlock, RequestStream
from servsim.workload.groups import grouped
from servsim.workload.replay import open_trace
from servsim.workload.sampling import sampled
from servsim.workload.synthetic import drawn_outputs, open_synthetic

__all__ = ["RequestBlock", "RequestStream", "open_stream"]


def open_stream(spec: SyntheticWorkload | TraceWorkload, streams: Streams) -> RequestStream:
    """The requests of a workload: the same bytes for the same scenario and seed.

    A trace is read and checked here; synthetic requests are drawn as their blocks are asked for. Raises TraceError for
    a wrong row of a trace or a table, with its place.
    """
    stream = open_trace(spec, streams) if isinstance(spec, TraceWorkload) else open_synthetic(spec, streams)
    if spec.beam_search is not None:
        return grouped(stream, beams=spec.beam_search.width)
    if (outputs := forked_outputs(spec.samples)) > 1:
        return stream if drawn_outputs(spec) > 1 else grouped(stream, outputs=outputs)
    if (samples := requests_each(spec.samples)) == 1:
        return stream
    return sampled(stream, samples, spec.tokens_per_hash if isinstance(spec, SyntheticWorkload) else 16)
