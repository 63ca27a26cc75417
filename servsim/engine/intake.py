"""How requests get into an instance: checked, predicted, taken by the policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import simpy

from servsim.clock import ARRIVAL, schedule_at
from servsim.engine.groups import Forking
from servsim.engine.parts import Parts
from servsim.request import Request, Sequence

__all__ = ["Intake"]


class Intake:
    """Turns requests into sequences and hands them on; keeps the truth about all that have not ended.

    A request that can never be held, or that the policy does not take, is rejected at once and counted. Where
    the frontend (tokenising, HTTP) or the predictor takes time, the sequence enters when they are done.
    """

    def __init__(
        self,
        env: simpy.Environment,
        index: int,
        parts: Parts,
        on_end: Callable[[Request, bool], None] | None,
        arrived: Callable[[Sequence], None],
    ) -> None:
        self.requests: dict[Sequence, Request] = {}
        self.predicting = 0  # requests that are with the frontend, or whose prediction is not ready
        self._env = env
        self._index = index
        self._policy = parts.policy
        self._memory = parts.memory
        self._predictor = parts.predictor
        self._facts = parts.facts
        self._frontend = parts.frontend
        self._hit_fraction = parts.prefix_hit_fraction
        self._max_model_len = parts.max_model_len
        self._on_end = on_end
        self._arrived = arrived

    def submit(self, request: Request) -> None:
        """A request arrives, now."""
        tokens = request.prompt_tokens + request.output_tokens
        width = request.width
        fits = self._memory.fits(tokens - 1) if width == 1 else cast(Forking, self._memory).fits_group(request)
        if tokens > self._max_model_len or not fits:
            return self._reject(request)
        sequence = Sequence(
            request.request_id,
            request.arrival_s,
            request.prompt_tokens,
            min(request.max_tokens, self._max_model_len - request.prompt_tokens),
            request.tenant,
            request.slo_class,
            request.priority,
            request.hash_ids,
            session=request.session,
            width=width,
        )
        if width > 1:
            self._facts.group(request)
        sequence.predicted_tokens = self._predictor.predict(request)
        if self._hit_fraction:
            sequence.cached_tokens = self._hit(request.prompt_tokens)
        late_s = self._predictor.latency_s
        if self._frontend is not None:
            late_s += self._frontend(request)
        if late_s <= 0:
            return self._enter(sequence, request)
        self.requests[sequence] = request
        self.predicting += 1
        ready = simpy.Event(self._env)
        assert ready.callbacks is not None
        ready.callbacks.append(lambda _: self._predicted(sequence, request))
        schedule_at(self._env, ready, self._env.now + late_s, ARRIVAL)

    def _hit(self, prompt_tokens: int) -> int:
        """Full blocks only, and never the last token: it has to be computed for there to be an output (as in vLLM)."""
        size = self._memory.block_size
        return min(int(self._hit_fraction * prompt_tokens), prompt_tokens - 1) // size * size

    def _predicted(self, sequence: Sequence, request: Request) -> None:
        """Frontend and prediction are done: only now the request enters, or is rejected by the policy."""
        self.predicting -= 1
        del self.requests[sequence]
        self._enter(sequence, request)

    def _enter(self, sequence: Sequence, request: Request) -> None:
        if not self._policy.accepts(sequence):
            return self._reject(request)
        self.requests[sequence] = request
        self._arrived(sequence)

    def _reject(self, request: Request) -> None:
        self._facts.rejected(request, self._index)
        if self._on_end is not None:
            self._on_end(request, False)
