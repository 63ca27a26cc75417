"""SGLang's queue policies: the orders in which its scheduler looks at waiting requests."""

from __future__ import annotations

from servsim.request import Sequence
from servsim.scheduler.orders import ArrivalOrder, KeyOrder
from servsim.scheduler.policy import Surroundings

__all__ = ["LongestOutputOrder", "RandomOrder", "RejoinOrder"]


class RejoinOrder(ArrivalOrder):
    """First come, first served; a preempted sequence goes to the end of the line (SGLang's fcfs)."""

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__()

    def push_preempted(self, sequence: Sequence) -> None:
        """To the end of the line, like a newcomer."""
        self.push(sequence)


class LongestOutputOrder(KeyOrder):
    """The largest declared maximum of output tokens first (SGLang's lof)."""

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(lambda sequence: -sequence.max_tokens)


class RandomOrder(KeyOrder):
    """In random order, drawn when a sequence joins the line (SGLang's random).

    SGLang shuffles the line before every prefill batch; here a sequence keeps its place among the others.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self._stream = surroundings.stream("random order")
        self._places: dict[Sequence, float] = {}
        super().__init__(self._places.__getitem__)

    def push(self, sequence: Sequence) -> None:
        """To a random place."""
        self._places[sequence] = float(self._stream.random(1)[0])
        super().push(sequence)

    def urgency(self, sequence: Sequence) -> tuple[float, ...]:
        """Its place in line, as it was drawn."""
        return (self._places[sequence], sequence.arrival_s, sequence.request_id)

    def finished(self, sequence: Sequence, output_tokens: int) -> None:
        """Its place is forgotten."""
        del self._places[sequence]
