"""Orders: who waits in which place, and who among the running goes last."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Many
from typing import Protocol

from servsim.request import Sequence
from servsim.scheduler.plan import Plan
from servsim.scheduler.policy import UNBOUNDED

__all__ = ["ArrivalOrder", "KeyOrder", "Order"]


class Order(Protocol):
    """The waiting line of a policy. A kind of order derives from it and overrides what it needs.

    An order may change with events (arrivals, plans that are carried out, finishes), with time
    (:meth:`refresh`, :meth:`timer_s`) or with decode steps (:meth:`stable_steps`); between them it must not.
    """

    def __len__(self) -> int: ...

    def push(self, sequence: Sequence) -> None:
        """A sequence arrives, now."""
        ...

    def push_preempted(self, sequence: Sequence) -> None:
        """A sequence comes back from running."""
        ...

    def peek(self, index: int) -> Sequence:
        """The sequence at a place in line, 0 for the head; places are asked for one after the other."""
        ...

    def drop(self, count: int) -> None:
        """The first ``count`` sequences leave: they are admitted."""
        ...

    def urgency(self, sequence: Sequence) -> tuple[float, ...] | None:
        """Of running sequences the one with the largest is the first to be preempted; None: the latest admitted."""
        return None

    def yielding(self, sequence: Sequence) -> Many[Sequence]:
        """Running sequences that a waiting one may displace, the first to go first; none in most orders."""
        return ()

    def newcomer_matters(self, sequence: Sequence, *, has_place: bool) -> bool:
        """Whether one that was just pushed may change a plan that only decodes; behind a refused head it waits."""
        return has_place and self.peek(0) is sequence

    def refresh(self, now_s: float) -> None:
        """A plan is about to be made: bring the line up to date. Asked twice at one time, it changes nothing."""
        return

    def timer_s(self) -> float:
        """When the line will change by itself, in seconds; infinity if it will not."""
        return float("inf")

    def stable_steps(self) -> int:
        """For how many decode steps the line keeps its order, if nothing else happens."""
        return UNBOUNDED

    def began(self, plan: Plan) -> None:
        """A plan is carried out; its admitted have left the line, its preempted are back in it."""
        return

    def finished(self, sequence: Sequence, output_tokens: int) -> None:
        """A running sequence ended after so many tokens."""
        return


class ArrivalOrder(Order):
    """First come, first served; a preempted sequence goes to the front (vLLM v1's FCFS queue).

    Every operation is O(1) (:meth:`peek`: O(index / 64)).
    """

    def __init__(self) -> None:
        self._line: deque[Sequence] = deque()

    def __len__(self) -> int:
        return len(self._line)

    def push(self, sequence: Sequence) -> None:
        """To the end of the line."""
        self._line.append(sequence)

    def push_preempted(self, sequence: Sequence) -> None:
        """To the front of the line."""
        self._line.appendleft(sequence)

    def peek(self, index: int) -> Sequence:
        """The sequence at a place in line, 0 for the head."""
        return self._line[index]

    def drop(self, count: int) -> None:
        """The first ``count`` sequences leave."""
        for _ in range(count):
            self._line.popleft()


class KeyOrder(Order):
    """The smallest key first, ties by ``(arrival_s, request_id)``; keys must not change while waiting.

    A sorted list with the head at its end: insertion moves memory, 10 us at 100,000 waiting; the rest is O(1).
    Of the running, the largest key is preempted first (vLLM v1's priority queue).
    """

    def __init__(self, key: Callable[[Sequence], float]) -> None:
        self._key = key
        self._line: list[tuple[float, float, int, Sequence]] = []

    def __len__(self) -> int:
        return len(self._line)

    def push(self, sequence: Sequence) -> None:
        """To where its key belongs."""
        # Negated, so that the list ascends while the line descends.
        insort(self._line, (-self._key(sequence), -sequence.arrival_s, -sequence.request_id, sequence))

    def push_preempted(self, sequence: Sequence) -> None:
        """To where its key belongs, like any other."""
        self.push(sequence)

    def peek(self, index: int) -> Sequence:
        """The sequence at a place in line, 0 for the head."""
        return self._line[-1 - index][3]

    def drop(self, count: int) -> None:
        """The first ``count`` sequences leave."""
        del self._line[len(self._line) - count :]

    def remove(self, sequence: Sequence) -> None:
        """A waiting sequence leaves from wherever it is."""
        place = (-self._key(sequence), -sequence.arrival_s, -sequence.request_id)
        del self._line[bisect_left(self._line, place)]

    def urgency(self, sequence: Sequence) -> tuple[float, ...]:
        """Its key, then its arrival."""
        return (self._key(sequence), sequence.arrival_s, sequence.request_id)
