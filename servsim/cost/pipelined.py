"""Step times of a network whose layers lie on several stages of devices, one behind the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Sequence as Many
from typing import NamedTuple

from servsim.cost.cost_model import Chunk, CostModel
from servsim.cost.host import HostWork
from servsim.cost.stride import Stride

__all__ = ["Passage", "PipelinedCost"]


class Passage(NamedTuple):
    """What a step takes on its way through a pipeline, in seconds."""

    wait_s: float  # on the host, before the first stage begins
    host_s: float  # for so long the host takes no other step, and this one is not over
    stages_s: tuple[float, ...]  # on the devices of each stage
    send_s: float  # from a stage to the next, which keeps neither of them

    @property
    def alone_s(self) -> float:
        """How long the step takes where nothing is in its way."""
        sends_s = self.send_s * (len(self.stages_s) - 1)
        return max(self.wait_s + sum(self.stages_s) + sends_s, self.host_s)


class PipelinedCost:
    """A cost model made of one for each stage, for a step that is alone in the pipeline; :meth:`passage` for others.

    The host prepares a step and launches it on the first stage; what it does for one step delays that step once, and
    other steps only before their first stage. Between two stages the hidden states of every token are sent. How steps
    of several virtual engines get in each other's way is the engine's to say (:mod:`servsim.engine.pipeline`).

    Source: the pipeline of vLLM v0 (0.6), whose drivers launch every stage's worker as soon as a step is planned.
    """

    def __init__(self, stages: Many[CostModel], send_s: Callable[[int], float], host: HostWork | None = None) -> None:
        self.calibration = stages[0].calibration
        self.stages = tuple(stages)
        self.send_s = send_s  # seconds that the hidden states of so many tokens take from a stage to the next
        self._host = host or HostWork()

    def outside_range(self) -> dict[str, int]:
        """What the stages count, added up."""
        total: dict[str, int] = {}
        for stage in self.stages:
            for kind, count in stage.outside_range().items():
                total[kind] = total.get(kind, 0) + count
        return dict(sorted(total.items()))

    def passage(
        self, chunks: Many[Chunk], emitting: int, decoders: int, context_tokens: float, shared_tokens: int = 0
    ) -> Passage:
        """What a step with prefill ``chunks``, of which ``emitting`` end, and such decoders takes in each part."""
        sequences = len(chunks) + decoders
        host = self._host
        wait_s = host.waited_s(sequences)
        tokens = decoders + sum(chunk for chunk, _ in chunks)
        stages_s = tuple(
            stage.step_s(chunks, emitting, decoders, context_tokens, shared_tokens) for stage in self.stages
        )
        return Passage(wait_s, max(wait_s, host.floor_s(sequences)), stages_s, self.send_s(tokens))

    def decode_stride(
        self,
        start_s: float,
        decoders: int,
        context_tokens: float,
        growing: float | None = None,
        shared_tokens: int = 0,
    ) -> Stride:
        """Steps in which ``decoders`` sequences, reading ``context_tokens`` together, each take one more token."""
        strides = [
            stage.decode_stride(start_s, decoders, context_tokens, growing, shared_tokens) for stage in self.stages
        ]
        host, sends_s = self._host, self.send_s(decoders) * (len(strides) - 1)
        first_s = host.waited_s(decoders) + sum(stride.first_s for stride in strides) + sends_s
        growth_s = sum(stride.growth_s for stride in strides)
        limit = min(stride.limit for stride in strides)
        least_s = host.floor_s(decoders)
        if first_s < least_s:
            if growth_s > 0:
                limit = min(limit, math.floor((least_s - first_s) / growth_s) + 1)
            first_s, growth_s = least_s, 0.0
        return Stride(start_s, first_s, growth_s, limit)

    def step_s(
        self, chunks: Many[Chunk], emitting: int, decoders: int, context_tokens: float, shared_tokens: int = 0
    ) -> float:
        """Seconds of one step that is alone in the pipeline."""
        return self.passage(chunks, emitting, decoders, context_tokens, shared_tokens).alone_s
