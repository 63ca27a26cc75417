"""Clairvoyant: three classes of predicted length, with promotion of those who waited long."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field

from servsim.request import Sequence
from servsim.scheduler.batching import VllmV1Batching
from servsim.scheduler.orders import KeyOrder, Order
from servsim.scheduler.policy import Surroundings

__all__ = ["Clairvoyant", "ClassOrder"]


class ClassOrder(Order):
    """The lowest class first, in a class by arrival; who has waited ``tau_s`` is in class 0 from the next tick on.

    Class 0 is predicted below the first edge, class 1 below the second, and so on. Arrival stands for the time of
    joining the queue, also for one that was preempted. Ticks are the multiples of ``tick_s`` since time 0.
    """

    def __init__(self, edges_tokens: tuple[float, ...] = (200, 800), tau_s: float = 15.0, tick_s: float = 1.0) -> None:
        self._edges_tokens = edges_tokens
        self._tau_s = tau_s
        self._tick_s = tick_s
        self._lines = [KeyOrder(lambda sequence: 0.0) for _ in range(len(edges_tokens) + 1)]

    def __len__(self) -> int:
        return sum(map(len, self._lines))

    def push(self, sequence: Sequence) -> None:
        """To the end of its class's line."""
        self._lines[self._class(sequence)].push(sequence)

    def push_preempted(self, sequence: Sequence) -> None:
        """To its class; if it had been promoted it is again before the next plan."""
        self.push(sequence)

    def peek(self, index: int) -> Sequence:
        """The sequence at a place in line, 0 for the head."""
        for line in self._lines:
            if index < len(line):
                return line.peek(index)
            index -= len(line)
        raise IndexError(index)

    def drop(self, count: int) -> None:
        """The first ``count`` sequences leave."""
        for line in self._lines:
            leaving = min(count, len(line))
            line.drop(leaving)
            count -= leaving

    def urgency(self, sequence: Sequence) -> tuple[float, ...]:
        """Its class by prediction, then its arrival."""
        return (self._class(sequence), sequence.arrival_s, sequence.request_id)

    def refresh(self, now_s: float) -> None:
        """Promote whose tick has come."""
        first = self._lines[0]
        for line in self._lines[1:]:
            while len(line) and self._promotion_s(line.peek(0)) <= now_s:
                first.push(line.peek(0))
                line.drop(1)

    def timer_s(self) -> float:
        """The next promotion."""
        return min((self._promotion_s(line.peek(0)) for line in self._lines[1:] if len(line)), default=math.inf)

    def _class(self, sequence: Sequence) -> int:
        return sum(sequence.predicted_tokens >= edge for edge in self._edges_tokens)

    def _promotion_s(self, sequence: Sequence) -> float:
        """The first tick at which it has waited long enough."""
        return math.ceil((sequence.arrival_s + self._tau_s) / self._tick_s) * self._tick_s


class Clairvoyant(VllmV1Batching):
    """Short, medium, long by predicted output, who waited tau_s first; rejects beyond capacity (Clairvoyant).

    A heap on (class, time of joining); the effective class of one that has waited ``tau_s`` is 0, looked at once a
    second. With ``capacity`` waiting a further request is rejected (HTTP 429 there). The original is a proxy that sends
    one request at a time to its backend; that is ``max_num_seqs: 1`` here. With more, they are batched as in vLLM v1,
    and a lack of memory preempts the latest of the longest class; both are ours. The original suggests three
    times the mean latency of short requests for ``tau_s``. Not modelled: the proxy's and its predictor's own time.
    """

    class Parameters(BaseModel):
        """What a scenario may say about it."""

        model_config = ConfigDict(frozen=True, extra="forbid")

        short_tokens: float = Field(200, gt=0, le=1e9, description="outputs predicted below this are short")
        medium_tokens: float = Field(800, gt=0, le=1e9, description="outputs predicted below this are medium")
        tau_s: float = Field(15.0, ge=0, le=1e9, description="seconds after which a waiting request counts as short")
        mean_short_latency_s: float | None = Field(
            None, gt=0, le=1e9, description="if given, tau_s is three times this: the mean latency of short requests"
        )
        tick_s: float = Field(1.0, gt=0, le=1e9, description="seconds between two looks at who has waited so long")
        capacity: int | None = Field(
            256, ge=1, description="waiting requests beyond which one is rejected; null: none is"
        )

    def __init__(self, surroundings: Surroundings) -> None:
        given = surroundings.parameters or self.Parameters()
        tau_s = given.tau_s if given.mean_short_latency_s is None else 3 * given.mean_short_latency_s
        self._capacity = math.inf if given.capacity is None else given.capacity
        super().__init__(surroundings, ClassOrder((given.short_tokens, given.medium_tokens), tau_s, given.tick_s))

    def accepts(self, sequence: Sequence) -> bool:
        """While the queue is not full."""
        return len(self.queue) < self._capacity
