"""Requests drawn at random, block by block: arrivals, classes and lengths, each from a stream of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servsim.scenario.arrival_spec import ClosedLoopArrivals
from servsim.scenario.workload_spec import ClassSpec, SyntheticWorkload
from servsim.streams import Streams
from servsim.workload.arrivals import arrival_times
from servsim.workload.blocks import BLOCK_REQUESTS, Floats, Ints, RequestBlock, RequestStream
from servsim.workload.closed_loop import ClosedLoop
from servsim.workload.lengths import LengthPairs, length_pairs

__all__ = ["open_synthetic"]


@dataclass(frozen=True, slots=True)
class _Mixture:
    """The classes of clients, as arrays over them."""

    reached: Floats  # cumulated shares, the last one 1
    lengths: tuple[LengthPairs, ...]
    tenant: NDArray[np.int32]
    slo_class: NDArray[np.int32]
    priority: NDArray[np.int32]
    max_tokens: Ints
    tenants: tuple[str, ...]
    slo_classes: tuple[str, ...]


def open_synthetic(spec: SyntheticWorkload, streams: Streams, block_requests: int = BLOCK_REQUESTS) -> RequestStream:
    """The requests that a scenario describes; raises ScenarioError or TraceError for a file it names that is wrong.

    The requests do not depend on ``block_requests``, and the first ones not on how many there are.
    """
    mixture = _mixture(spec)
    closed_loop = None
    if isinstance(spec.arrivals, ClosedLoopArrivals):
        closed_loop = ClosedLoop(spec.arrivals, streams, spec.duration_s)
    return RequestStream(
        make_blocks=lambda: _blocks(spec, mixture, streams, block_requests),
        num_requests=spec.num_requests if spec.duration_s is None else None,
        tenants=mixture.tenants,
        slo_classes=mixture.slo_classes,
        closed_loop=closed_loop,
    )


def _mixture(spec: SyntheticWorkload) -> _Mixture:
    only = ClassSpec(name="default", share=1.0)
    classes = spec.classes or (only,)
    tenants = tuple(dict.fromkeys(one.tenant or one.name for one in classes))
    slo_classes = tuple(dict.fromkeys(one.slo_class or one.name for one in classes))
    shares = np.cumsum([one.share for one in classes])
    opened = {}
    for one in classes:
        lengths = one.lengths if one.lengths is not None else spec.lengths
        assert lengths is not None  # the schema saw to it
        opened[one.name] = length_pairs(lengths)
    return _Mixture(
        reached=shares / shares[-1],
        lengths=tuple(opened.values()),
        tenant=np.array([tenants.index(one.tenant or one.name) for one in classes], dtype=np.int32),
        slo_class=np.array([slo_classes.index(one.slo_class or one.name) for one in classes], dtype=np.int32),
        priority=np.array([one.priority for one in classes], dtype=np.int32),
        max_tokens=np.array([one.max_tokens or spec.max_tokens for one in classes], dtype=np.int64),
        tenants=tenants,
        slo_classes=slo_classes,
    )


def _blocks(
    spec: SyntheticWorkload, mixture: _Mixture, streams: Streams, block_requests: int
) -> Iterator[RequestBlock]:
    next_times = arrival_times(spec.arrivals, streams)
    classes, prompts, outputs = (streams.get(name) for name in ("classes", "lengths.prompt", "lengths.output"))
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
            yield _block(given, arrival_s, mixture, *uniforms)
        given += count
        asked = 0 if ended else min(block_requests, (spec.num_requests or given + block_requests) - given)


def _first_block(spec: SyntheticWorkload, block_requests: int) -> int:
    """No larger than what is likely needed."""
    rate_per_s = spec.arrivals.mean_rate_per_s
    likely = spec.num_requests or block_requests
    if spec.duration_s is not None and rate_per_s is not None:
        likely = min(likely, int(1.2 * rate_per_s * spec.duration_s) + 64)
    return min(likely, block_requests)


def _block(first_id: int, arrival_s: Floats, mixture: _Mixture, w: Floats, u: Floats, v: Floats) -> RequestBlock:
    if len(mixture.lengths) == 1:
        members = np.zeros(len(w), dtype=np.int64)
        prompt_tokens, output_tokens = mixture.lengths[0](u, v)
    else:
        members = np.searchsorted(mixture.reached, w, side="right")
        prompt_tokens, output_tokens = np.empty(len(w), np.int64), np.empty(len(w), np.int64)
        for number, lengths in enumerate(mixture.lengths):
            mine = members == number
            prompt_tokens[mine], output_tokens[mine] = lengths(u[mine], v[mine])
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
