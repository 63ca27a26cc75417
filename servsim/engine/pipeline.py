"""The stages that the virtual engines of a pipelined instance share, and who is in whose way."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Many
from typing import NamedTuple

from servsim.cost.cost_model import Chunk
from servsim.cost.pipelined import Passage, PipelinedCost
from servsim.cost.stride import Stride

__all__ = ["Lane", "Pipeline"]


class Pipeline:
    """Host and stages of one instance, each of which serves one step at a time, in the order of planning.

    All that a step meets on its way is known when it is planned: no later step overtakes it.
    """

    def __init__(self, cost: PipelinedCost) -> None:
        self.cost = cost
        self._host_free_s = 0.0
        self._free_s = [0.0] * len(cost.stages)
        self._awake: dict[Lane, None] = {}

    def lane(self, index: int) -> Lane:
        """The way in for the virtual engine of this number; at one instant smaller numbers go first."""
        return Lane(self, index)

    def alone(self, lane: Lane) -> bool:
        """Whether no other virtual engine has anything to do."""
        return all(one is lane for one in self._awake)

    def wake(self, lane: Lane, now_s: float) -> None:
        """A virtual engine begins a step; whoever was alone until now is so no more."""
        if lane not in self._awake:
            self._awake[lane] = None
            for other in self._awake:
                other.disturb(now_s, lane)

    def sleep(self, lane: Lane) -> None:
        """A virtual engine has nothing to do."""
        self._awake.pop(lane, None)

    def passes(self, start_s: float, passage: Passage) -> float:
        """When a step ends that is ready for the host at ``start_s``, behind all that were planned before it."""
        begun_s = max(start_s, self._host_free_s)
        self._host_free_s = begun_s + passage.host_s
        end_s = begun_s + passage.wait_s
        free_s = self._free_s
        for stage, stage_s in enumerate(passage.stages_s):
            if stage:
                end_s += passage.send_s
            end_s = free_s[stage] = max(end_s, free_s[stage]) + stage_s
        return max(end_s, self._host_free_s)


class _Work(NamedTuple):
    """What the steps of a stride have to do."""

    decoders: int
    context_tokens: float  # of the first step
    growing: float  # tokens that each further step reads more
    shared_tokens: int


class Lane:
    """One virtual engine's way through the stages.

    While all others sleep nothing is in its way, and its decode steps have a closed form: a stride. When another one
    wakes, the stride ends with the step under way, which takes its place in the stages only then. As long as two are
    awake, each step is one by itself.
    """

    def __init__(self, pipeline: Pipeline, index: int) -> None:
        self.cut: Callable[[int], None] = lambda step: None  # ends the stride with this step of it
        self._pipeline = pipeline
        self._index = index
        self._stride: Stride | None = None  # alone, and not disturbed yet
        self._work: _Work | None = None

    def decode_stride(
        self,
        start_s: float,
        decoders: int,
        context_tokens: float,
        growing: float | None = None,
        shared_tokens: int = 0,
    ) -> Stride:
        """Steps that only decode, the first of which begins now, at ``start_s``; see :class:`CostModel`."""
        pipeline = self._pipeline
        pipeline.wake(self, start_s)
        if not pipeline.alone(self):
            return Stride(start_s, self.step_s(start_s, start_s, [], 0, decoders, context_tokens, shared_tokens))
        rate = decoders if growing is None else growing
        self._work = _Work(decoders, context_tokens, rate, shared_tokens)
        self._stride = pipeline.cost.decode_stride(start_s, decoders, context_tokens, growing, shared_tokens)
        return self._stride

    def step_s(
        self,
        now_s: float,
        ready_s: float,
        chunks: Many[Chunk],
        emitting: int,
        decoders: int,
        context_tokens: float,
        shared_tokens: int = 0,
    ) -> float:
        """How long one step takes that is planned now and ready at ``ready_s``, the steps before it considered."""
        pipeline = self._pipeline
        pipeline.wake(self, now_s)
        self._stride = None
        passage = pipeline.cost.passage(chunks, emitting, decoders, context_tokens, shared_tokens)
        return pipeline.passes(ready_s, passage) - ready_s

    def sleep(self) -> None:
        """Nothing to do."""
        self._stride = None
        self._pipeline.sleep(self)

    def disturb(self, now_s: float, by: Lane) -> None:
        """Another one wakes now: the step under way takes its place in the stages, and is the last of its stride."""
        stride, work = self._stride, self._work
        if stride is None or work is None:
            return
        self._stride = None
        step = stride.first_end_at_or_after(now_s)
        if stride.end_s(step) == now_s and self._index < by._index:
            step += 1  # at one instant this one has gone first, and is in its next step already
        context = work.context_tokens + (step - 1) * work.growing
        passage = self._pipeline.cost.passage([], 0, work.decoders, context, work.shared_tokens)
        self._pipeline.passes(stride.end_s(step - 1), passage)
        stride.limit = min(stride.limit, step)
        self.cut(step)
