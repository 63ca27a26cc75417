"""How long the steps of an instance take: what the cost model is asked, and how they pass a shared pipeline."""

from __future__ import annotations

from servsim.cost.stride import Stride
from servsim.engine.decoders import Decoders
from servsim.engine.parts import Parts
from servsim.scheduler.plan import Plan

__all__ = ["Pace"]


class Pace:
    """A plan's stride: of many equal steps where it only decodes, of one where it does anything else."""

    def __init__(self, parts: Parts, decoders: Decoders) -> None:
        self._cost = parts.cost
        self._running = parts.running
        self._memory = parts.memory
        self._decoders = decoders
        self._hits_stated = parts.prefix_hit_fraction > 0
        self._lane = parts.lane

    def decode(self, now_s: float) -> Stride:
        """Steps of all decoders, the first of which begins now."""
        return self._decoders.stride(self._cost if self._lane is None else self._lane, now_s)

    def step(self, plan: Plan, began_s: float, now_s: float) -> Stride:
        """One step that begins now; the time since ``began_s`` was spent on what goes before it."""
        chunks = []
        emitting = 0
        for one, tokens in plan.prefills:
            # Of what a prefix cache held, nothing is computed (vLLM counts it as stored before the chunk).
            end = one.kv_tokens + tokens
            stored = max(one.kv_tokens, min(one.cached_tokens, end - 1)) if self._hits_stated else one.kv_tokens
            chunks.append((end - stored, stored))
            emitting += end == one.total_tokens
        decoders = self._running.decoders if plan.decode else 0
        step_s = 0.0
        if chunks or decoders:
            context_tokens = self._decoders.read_tokens if plan.decode else 0
            shared = (self._memory.shared_tokens,) if decoders and self._memory.shared_tokens else ()
            work = (chunks, emitting, decoders, context_tokens, *shared)
            if self._lane is None:
                step_s = self._cost.step_s(*work)
            else:
                step_s = self._lane.step_s(now_s, now_s + plan.copy_s, *work)
        return Stride(began_s, (now_s - began_s) + step_s + plan.copy_s)

    def sleep(self) -> None:
        """Nothing is to be done."""
        if self._lane is not None:
            self._lane.sleep()
