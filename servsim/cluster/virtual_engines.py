"""A pipelined instance as routers see it: virtual engines that share its stages."""

from __future__ import annotations

from collections.abc import Sequence as Many

from servsim.engine.instance import Instance, Observation
from servsim.request import Request

__all__ = ["VirtualEngines"]


class VirtualEngines:
    """As many engines as there are stages, each with a scheduler and a share of the KV blocks of its own.

    A request goes to the one with the fewest that have not ended, of several the first; there it stays.

    Source: vLLM v0 (0.6), ``LLMEngine._add_processed_request`` and ``Scheduler.__init__``. vLLM v1 has one scheduler
    with all the blocks instead, which keeps as many disjoint batches in flight; that is not modelled.
    """

    def __init__(self, engines: Many[Instance]) -> None:
        self.engines = tuple(engines)

    def submit(self, request: Request) -> None:
        """A request arrives, now."""
        min(self.engines, key=lambda engine: engine.num_unfinished).submit(request)

    def observe(self, now_s: float) -> Observation:
        """Counts and KV use of all of them together."""
        seen = [engine.observe(now_s) for engine in self.engines]
        return Observation(*(sum(counts) for counts in zip(*seen, strict=True)))
