"""Waiting lines that let go of those who cannot meet their deadline any more."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count as counted

import numpy as np

from servsim.request import Sequence
from servsim.scheduler.orders import KeyOrder, Order
from servsim.scheduler.urgency.deadlines import Deadlines

__all__ = ["DemotingOrder", "FeasibleOrder"]

_ONE_BY_ONE = 16  # demotions of one pass that are found one by one


class _BestEffortBehind(Order):
    """A line by a key, and behind it, in order of arrival, those that are demoted to best effort, for good."""

    def __init__(self, key: Callable[[Sequence], float]) -> None:
        self._key = key
        self._line = KeyOrder(key)
        self._best_effort = KeyOrder(lambda _: 0.0)
        self._demoted: set[Sequence] = set()  # waiting or running; only ever asked whether one is in it

    def __len__(self) -> int:
        return len(self._line) + len(self._best_effort)

    def push_preempted(self, sequence: Sequence) -> None:
        """Like any other."""
        self.push(sequence)

    def peek(self, index: int) -> Sequence:
        """The sequence at a place in line, 0 for the head."""
        beyond = index - len(self._line)
        return self._line.peek(index) if beyond < 0 else self._best_effort.peek(beyond)

    def urgency(self, sequence: Sequence) -> tuple[float, ...]:
        """Whether it was demoted, its key, its arrival."""
        return (sequence in self._demoted, self._key(sequence), sequence.arrival_s, sequence.request_id)

    def finished(self, sequence: Sequence, output_tokens: int) -> None:
        """Forget it."""
        self._demoted.discard(sequence)

    def _give_way(self, sequence: Sequence) -> None:
        """It leaves the line for the end of best effort."""
        self._line.remove(sequence)
        self._demoted.add(sequence)
        self._best_effort.push(sequence)


class DemotingOrder(_BestEffortBehind):
    """The smallest key first; behind them all, in order of arrival, those that are demoted to best effort.

    A sequence is demoted when ``now + service > deadline``, for good. One without a deadline, or with
    its first token out where that was the deadline, is not. Of the running the demoted are preempted first.
    """

    def __init__(self, key: Callable[[Sequence], float], deadlines: Deadlines) -> None:
        super().__init__(key)
        self._deadlines = deadlines
        self._latest_s: dict[Sequence, float] = {}  # the last instant to start, of those in line that have one
        self._expiries: list[tuple[float, float, int, Sequence]] = []  # a heap of these; some are out of date

    def push(self, sequence: Sequence) -> None:
        """To where its key belongs, or behind all others if it was demoted before."""
        if sequence in self._demoted:
            self._best_effort.push(sequence)
            return
        self._line.push(sequence)
        latest_s = self._deadlines.due_s(sequence) - self._deadlines.service_s(sequence)
        if latest_s < math.inf:
            self._latest_s[sequence] = latest_s
            heappush(self._expiries, (latest_s, sequence.arrival_s, sequence.request_id, sequence))

    def drop(self, count: int) -> None:
        """The first ``count`` sequences leave."""
        ahead = min(count, len(self._line))
        for index in range(ahead):
            self._latest_s.pop(self._line.peek(index), None)
        self._line.drop(ahead)
        self._best_effort.drop(count - ahead)

    def refresh(self, now_s: float) -> None:
        """Demote whoever would now end too late."""
        while self._next_expiry_s() < now_s:
            sequence = heappop(self._expiries)[-1]
            del self._latest_s[sequence]
            self._give_way(sequence)

    def timer_s(self) -> float:
        """When the next one is to be demoted."""
        return math.nextafter(self._next_expiry_s(), math.inf)

    def _next_expiry_s(self) -> float:
        while self._expiries and self._latest_s.get(self._expiries[0][-1]) != self._expiries[0][0]:
            heappop(self._expiries)
        return self._expiries[0][0] if self._expiries else math.inf


class FeasibleOrder(_BestEffortBehind):
    """Earliest deadline first among the most sequences that can all meet their deadlines, then the others by arrival.

    Moore and Hodgson's rule: in order of deadline, one after the other; where one would end too late, the largest so
    far is demoted to best effort, for good. It is gone through whenever, by a lower bound kept up to date in O(1),
    somebody might be late. A pass is a few operations on arrays of the n sequences that still have a
    deadline to meet, and one more for each that is demoted: 0.1 ms at 30,000; where many are, it is one with a heap.

    ``work``: of a sequence as it enters the line, in a unit of which one takes ``unit_s()`` seconds;
    call :meth:`reconsider` when that changes.
    """

    def __init__(
        self, deadlines: Deadlines, work: Callable[[Sequence], float], unit_s: Callable[[], float] | None = None
    ) -> None:
        super().__init__(deadlines.first_due_s)
        self._deadlines = deadlines
        self._work_of = work
        self._unit_s = unit_s or _one
        # Of the line, those with a deadline to meet, in the same order: (deadline, arrival, id, sequence), and arrays.
        self._timed: list[tuple[float, float, int, Sequence]] = []
        self._due_s = np.empty(0)
        self._work = np.empty(0)
        self._surely_s = math.inf  # until then nobody in line is late, whoever is served
        self._total = 0.0  # at least the work of the line

    def push(self, sequence: Sequence) -> None:
        """To where its deadline belongs, or behind all others if it was demoted before."""
        if sequence in self._demoted:
            self._best_effort.push(sequence)
            return
        self._line.push(sequence)
        due_s = self._deadlines.due_s(sequence)
        if due_s < math.inf:
            entry = (due_s, sequence.arrival_s, sequence.request_id, sequence)
            place = bisect_left(self._timed, entry)
            work = self._work_of(sequence)
            self._timed.insert(place, entry)
            self._due_s = np.insert(self._due_s, place, due_s)
            self._work = np.insert(self._work, place, work)
            self._total += work
            unit_s = self._unit_s()
            self._surely_s = min(self._surely_s - work * unit_s, due_s - self._total * unit_s)

    def drop(self, count: int) -> None:
        """The first ``count`` sequences leave."""
        ahead = min(count, len(self._line))
        gone = 0
        for index in range(ahead):
            gone += gone < len(self._timed) and self._timed[gone][3] is self._line.peek(index)
        del self._timed[:gone]
        self._total = max(0.0, self._total - float(self._work[:gone].sum()))
        self._due_s, self._work = self._due_s[gone:], self._work[gone:]
        self._line.drop(ahead)
        self._best_effort.drop(count - ahead)
        if not self._timed:
            self._total, self._surely_s = 0.0, math.inf

    def newcomer_matters(self, sequence: Sequence, *, has_place: bool) -> bool:
        """Its work may make others late."""
        timed = sequence not in self._demoted and self._deadlines.due_s(sequence) < math.inf
        return timed or super().newcomer_matters(sequence, has_place=has_place)

    def reconsider(self) -> None:
        """The next plan goes through the line."""
        if self._timed:
            self._surely_s = -math.inf

    def refresh(self, now_s: float) -> None:
        """Go through the line if somebody might be late."""
        if now_s <= self._surely_s:
            return
        unit_s = self._unit_s()
        for tried in counted():
            spare_s = self._due_s - (now_s + np.cumsum(self._work) * unit_s)
            late = np.flatnonzero(spare_s < 0)
            if not len(late):
                break
            if tried == _ONE_BY_ONE:
                self._demote(self._too_many(now_s, unit_s))
            else:
                # The largest up to the one that is late gives way, of equals the last.
                self._demote([int(late[0]) - int(np.argmax(self._work[late[0] :: -1]))])
        self._total = float(self._work.sum())
        self._surely_s = now_s + float(spare_s.min()) if len(spare_s) else math.inf

    def timer_s(self) -> float:
        """When somebody might be late."""
        return math.nextafter(self._surely_s, math.inf)

    def _too_many(self, now_s: float, unit_s: float) -> list[int]:
        """The places of all who give way, found in one pass with a heap."""
        kept: list[tuple[float, int]] = []
        places: list[int] = []
        total = 0.0
        for place, (due_s, work) in enumerate(zip(self._due_s.tolist(), self._work.tolist(), strict=True)):
            heappush(kept, (-work, -place))
            total += work
            if now_s + total * unit_s > due_s:
                largest, behind = heappop(kept)
                total += largest
                places.append(-behind)
        return places

    def _demote(self, places: list[int]) -> None:
        """Those at these places give way, one after the other."""
        demoted = [self._timed[place][3] for place in places]
        for place in sorted(places, reverse=True):
            del self._timed[place]
        self._due_s = np.delete(self._due_s, places)
        self._work = np.delete(self._work, places)
        for sequence in demoted:
            self._give_way(sequence)


def _one() -> float:
    return 1.0
