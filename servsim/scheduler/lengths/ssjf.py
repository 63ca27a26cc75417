"""SSJF: speculative shortest job first with a guard for the longest waiter."""

from __future__ import annotations

import math
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict, Field

from servsim.request import Sequence
from servsim.scheduler.batching import VllmV1Batching
from servsim.scheduler.orders import KeyOrder, Order
from servsim.scheduler.policy import Surroundings

__all__ = ["GuardedOrder", "Ssjf"]


class GuardedOrder(Order):
    """The smallest key first, unless the longest waiter has waited longer than its limit: then by arrival.

    ``limit_s(sequence)`` is how long a sequence may wait; the rule is looked at once a plan and holds for all of it.
    """

    def __init__(self, key: Callable[[Sequence], float], limit_s: Callable[[Sequence], float]) -> None:
        self._by_key = KeyOrder(key)
        self._by_arrival = KeyOrder(lambda sequence: 0.0)
        self._limit_s = limit_s
        self._line = self._by_key
        self._longest: Sequence | None = None
        self._over_s = math.inf  # the first instant at which the longest waiter is over its limit

    def __len__(self) -> int:
        return len(self._by_key)

    def push(self, sequence: Sequence) -> None:
        """Into both lines."""
        self._by_key.push(sequence)
        self._by_arrival.push(sequence)

    def push_preempted(self, sequence: Sequence) -> None:
        """Into both lines; it has waited since it arrived."""
        self.push(sequence)

    def peek(self, index: int) -> Sequence:
        """The sequence at a place in the line that holds in this round, 0 for the head."""
        return self._line.peek(index)

    def drop(self, count: int) -> None:
        """The first ``count`` sequences leave."""
        other = self._by_key if self._line is self._by_arrival else self._by_arrival
        for index in range(count):
            other.remove(self._line.peek(index))
        self._line.drop(count)

    def urgency(self, sequence: Sequence) -> tuple[float, ...]:
        """Its key, then its arrival."""
        return self._by_key.urgency(sequence)

    def refresh(self, now_s: float) -> None:
        """Choose the line for this round."""
        longest = self._by_arrival.peek(0) if len(self) else None
        if longest is not self._longest:
            self._longest = longest
            self._over_s = math.inf
            if longest is not None:
                self._over_s = math.nextafter(longest.arrival_s + self._limit_s(longest), math.inf)
        self._line = self._by_arrival if self._over_s <= now_s else self._by_key

    def timer_s(self) -> float:
        """When the longest waiter will be over its limit; then that holds until it leaves."""
        return self._over_s if self._line is self._by_key else math.inf


class Ssjf(VllmV1Batching):
    """Shortest predicted output first, by arrival while the longest waiter is over its limit (SSJF).

    Before each round the longest waiter is looked at: if it has waited more than ``max_wait_s``, or more than
    ``max_stretch`` times its duration, this round goes by waiting time, else by prediction. The source's limits are
    in the time unit of its trace, taken as seconds here, and its test uses the *true* duration; this one uses the
    predicted: its prompt's prefill and its predicted tokens, alone on the instance. Where that is 0 (no
    costs are known) only ``max_wait_s`` counts. Batching and what happens without memory are vLLM v1's
    priority mode; the source has batches of whole requests.
    """

    class Parameters(BaseModel):
        """What a scenario may say about it."""

        model_config = ConfigDict(frozen=True, extra="forbid")

        max_wait_s: float = Field(100.0, ge=0, le=1e9, description="wait of the longest waiter that calls for its turn")
        max_stretch: float = Field(10.0, ge=0, le=1e9, description="the same, as a multiple of its predicted duration")

    def __init__(self, surroundings: Surroundings) -> None:
        given = surroundings.parameters or self.Parameters()
        self._max_wait_s = given.max_wait_s
        self._max_stretch = given.max_stretch
        order = GuardedOrder(lambda sequence: sequence.predicted_tokens, self._limit_s)
        super().__init__(surroundings, order)

    def predicted_duration_s(self, sequence: Sequence) -> float:
        """Seconds that it would take alone, if its prediction were right."""
        decode_s = self.surroundings.decode_s(1, sequence.prompt_tokens)
        return self.surroundings.prefill_s(sequence.prompt_tokens) + sequence.predicted_tokens * decode_s

    def _limit_s(self, sequence: Sequence) -> float:
        duration_s = self.predicted_duration_s(sequence)
        return min(self._max_wait_s, self._max_stretch * duration_s) if duration_s > 0 else self._max_wait_s
