"""Requests drawn at random, block by block: arrivals, classes and lengths, each from a stream of its own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from servsim.scenario.arrival_spec import ClosedLoopArrivals
from servsim.scenario.group_spec import OutputsSpec, forked_outputs
from servsim.scenario.workload_spec import SyntheticWorkload, TraceWorkload
from servsim.streams import Streams
from servsim.workload.arrivals import arrival_times
from servsim.workload.blocks import BLOCK_REQUESTS, Floats, RequestBlock, RequestStream
from servsim.workload.closed_loop import ClosedLoop
from servsim.workload.conversations import conversation_blocks
from servsim.workload.groups import with_outputs
from servsim.workload.mixture import Mixture, drawn_lengths

__all__ = ["drawn_outputs", "open_synthetic"]


def drawn_outputs(spec: SyntheticWorkload | TraceWorkload) -> int:
    """Outputs of each request whose lengths are drawn one by one."""
    samples = spec.samples
    alike = isinstance(spec, TraceWorkload) or (isinstance(samples, OutputsSpec) and samples.equally_long)
    return 1 if alike else forked_outputs(samples)


def open_synthetic(spec: SyntheticWorkload, streams: Streams, block_requests: int = BLOCK_REQUESTS) -> RequestStream:
    """The requests that a scenario describes; raises ScenarioError or TraceError for a file it names that is wrong.

    Content is told where requests have some in common: prefixes, or turns of a session. The requests do not depend on
    ``block_requests``, and the first ones not on how many there are.
    """
    mixture = Mixture.of(spec)
    sessions = any(mixture.sessions)
    content_known = sessions or any(mixture.prefixes)
    draw = conversation_blocks if content_known else _blocks
    closed_loop = None
    if isinstance(spec.arrivals, ClosedLoopArrivals):
        closed_loop = ClosedLoop(spec.arrivals, streams)
    return RequestStream(
        make_blocks=lambda: draw(spec, mixture, streams, block_requests),
        num_requests=spec.num_requests if spec.duration_s is None else None,
        tenants=mixture.tenants,
        slo_classes=mixture.slo_classes,
        closed_loop=closed_loop,
        sessions=sessions,
        duration_s=spec.duration_s,
        tokens_per_hash=spec.tokens_per_hash if content_known else None,
    )


def _blocks(spec: SyntheticWorkload, mixture: Mixture, streams: Streams, block_requests: int) -> Iterator[RequestBlock]:
    next_times = arrival_times(spec.arrivals, streams)
    classes, prompts, outputs = (streams.get(name) for name in ("classes", "lengths.prompt", "lengths.output"))
    several, others = drawn_outputs(spec), streams.get("lengths.further_outputs")
    given, asked = 0, _first_block(spec, block_requests)
    while asked:
        arrival_s = next_times(asked)
        ended = len(arrival_s) < asked
        if spec.duration_s is not None:
            # A closed loop's unknown times are NaN: it is the simulation that ends it.
            late = int(np.count_nonzero(arrival_s >= spec.duration_s))
            ended, arrival_s = ended or late > 0, arrival_s[: len(arrival_s) - late]
        if count := len(arrival_s):
            uniforms = (classes.random(count), prompts.random(count), outputs.random(count))
            block = _block(given, arrival_s, mixture, *uniforms)
            if several > 1:
                drawn = others.random((count, several - 1)).T
                which, u = mixture.members(uniforms[0]), uniforms[1]
                further = [drawn_lengths(mixture.lengths, which, u, v)[1] for v in drawn]
                block = with_outputs(block, np.column_stack(further))
            yield block
        given += count
        asked = 0 if ended else min(block_requests, (spec.num_requests or given + block_requests) - given)


def _first_block(spec: SyntheticWorkload, block_requests: int) -> int:
    """No larger than what is likely needed."""
    rate_per_s = spec.arrivals.mean_rate_per_s
    likely = spec.num_requests or block_requests
    if spec.duration_s is not None and rate_per_s is not None:
        likely = min(likely, int(1.2 * rate_per_s * spec.duration_s) + 64)
    return min(likely, block_requests)


def _block(first_id: int, arrival_s: Floats, mixture: Mixture, w: Floats, u: Floats, v: Floats) -> RequestBlock:
    members = mixture.members(w)
    prompt_tokens, output_tokens = drawn_lengths(mixture.lengths, members, u, v)
    return RequestBlock(
        first_request_id=first_id,
        arrival_s=arrival_s,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        max_tokens=np.maximum(mixture.max_tokens[members], output_tokens),
        tenant=mixture.tenant[members],
        slo_class=mixture.slo_class[members],
        priority=mixture.priority[members],
    )
