"""Soft admission by token capacity, and chunks that keep the batch's TPOT."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter

from pydantic import BaseModel, ConfigDict, Field

from servsim.request import Sequence
from servsim.scheduler.batching import VllmV1Batching
from servsim.scheduler.plan import Plan
from servsim.scheduler.policy import Surroundings
from servsim.scheduler.urgency.deadlines import Deadlines
from servsim.scheduler.urgency.demotion import FeasibleOrder

__all__ = ["SlosServe"]

_GRID = 64  # chunk lengths that are tried, at most


class SlosServe(VllmV1Batching):
    """Soft admission of what token capacity allows, chunks that keep the batch's TPOT; SLOs-Serve, much simplified.

    Capacity is what full steps prefill in a second, ``max_num_batched_tokens / prefill_s``; of it the running take
    1/TPOT each. In order of TTFT deadlines the largest set is kept whose prompts all fit what capacity is left until
    their deadlines (Moore and Hodgson's rule); the others become best effort and wait behind all others, by
    arrival, for good. The token budget of a step with prefill is the largest whose time stays within the smallest
    TPOT bound of the running, but at least ``min_chunk_tokens`` besides the decoders; it is set anew when
    the batch changes. Simplified from the paper's dynamic programme over stages, which we know from
    notes only; memory is left to the allocator and nothing is rerouted. Without ``slo`` this is fcfs.
    """

    class Parameters(BaseModel):
        """What a scenario may say about it."""

        model_config = ConfigDict(frozen=True, extra="forbid")

        min_chunk_tokens: int = Field(64, ge=1, description="prefill tokens of a step that no TPOT bound takes away")

    def __init__(self, surroundings: Surroundings) -> None:
        given = surroundings.parameters or self.Parameters()
        self._most_tokens = surroundings.max_num_batched_tokens
        self._least_tokens = given.min_chunk_tokens
        step = max(1, self._most_tokens // _GRID)
        self._chunks = [*range(step, self._most_tokens, step), self._most_tokens]
        self._chunk_s = [surroundings.prefill_s(tokens) for tokens in self._chunks]
        self._capacity_per_s = self._most_tokens / max(self._chunk_s[-1], 1e-12)
        self._classes: Counter[int] = Counter()  # running sequences by SLO class
        self._stale = True
        line = FeasibleOrder(Deadlines(surroundings, "ttft"), lambda one: one.total_tokens, self._token_s)
        super().__init__(surroundings, line)
        self._line = line
        self._steady = True  # the budget changes with the batch only, and never binds where nothing prefills

    def plan(self, now_s: float) -> Plan:
        """vLLM v1's, with a budget that the TPOT bounds allow."""
        if self._stale:
            self.max_num_batched_tokens = self._budget()
            self._stale = False
        return super().plan(now_s)

    def begin(self, plan: Plan) -> None:
        """The batch changes."""
        super().begin(plan)
        for sequence, _ in plan.prefills[len(plan.prefills) - plan.admitted :]:
            self._classes[sequence.slo_class] += 1
        for sequence in plan.preempted:
            self._classes[sequence.slo_class] -= 1
        self._changed()

    def finished(self, sequence: Sequence, output_tokens: int) -> None:
        """The batch changes."""
        super().finished(sequence, output_tokens)
        self._classes[sequence.slo_class] -= 1
        self._changed()

    def _changed(self) -> None:
        self._stale = True
        self._line.reconsider()

    def _token_s(self) -> float:
        """What a prefill token takes of the capacity that decoding leaves, in seconds."""
        bounds = self.surroundings.bounds
        demand_per_s = sum(count / bounds[index].tpot_s for index, count in self._classes.items())
        return 1 / max(self._capacity_per_s - demand_per_s, 1e-9)

    def _budget(self) -> int:
        """Tokens of a step, decoders included."""
        bounds = self.surroundings.bounds
        tpot_s = min((bounds[index].tpot_s for index, count in self._classes.items() if count), default=float("inf"))
        if tpot_s == float("inf"):
            return self._most_tokens
        decoders = self.running.decoders
        spare_s = tpot_s
        if decoders:
            spare_s -= self.surroundings.decode_s(decoders, self.running.context_tokens)
        place = bisect_right(self._chunk_s, spare_s)
        tokens = max(self._least_tokens, self._chunks[place - 1] if place else 0)
        return min(self._most_tokens, decoders + tokens)
