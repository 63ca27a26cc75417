"""One server shared equally by whoever is being served: processor sharing, by a counter of attained service."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Generic, TypeVar

__all__ = ["FairShare", "Share"]


@dataclass(slots=True, eq=False)
class Share:
    """Whoever wants ``work_s`` seconds of a server's full rate. ``number`` breaks ties: the smaller goes first."""

    number: int
    work_s: float
    _from_s: float = field(default=math.nan, init=False, repr=False)  # the server's counter when it was let in
    _until_s: float = field(default=math.nan, init=False, repr=False)  # and what it shows when the work is done
    _left: bool = field(default=False, init=False, repr=False)


Member = TypeVar("Member", bound=Share)


class FairShare(Generic[Member]):
    """Serves up to ``limit`` members at once (any number if None), each at an equal share; the rest wait in line.

    The counter is the service in seconds that a member present all along would have had: it advances at
    1/n with n members. A member is done when the counter has advanced by its work since it was let in, so
    nobody's remaining work is ever rewritten, a change costs O(log n), and looking changes nothing.
    Times handed in must not decrease, and none may lie beyond :meth:`next_end_s`.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = math.inf if limit is None else limit
        self._counter_s = 0.0  # as of _since_s
        self._since_s = 0.0
        self._served: list[tuple[float, int, Member]] = []  # a heap; those who left stay until they surface
        self._line: deque[Member] = deque()
        self.active = 0
        """Members being served now."""

    @property
    def waiting(self) -> int:
        """Members in line."""
        return len(self._line)

    def members(self) -> Iterator[Member]:
        """Those being served, in no particular order."""
        return (member for _, _, member in self._served if not member._left)

    def join(self, now_s: float, member: Member) -> None:
        """A member comes: it is served from now on, or waits in line, first come first served."""
        if self.active >= self._limit:
            self._line.append(member)
            return
        self._advance(now_s)
        self._let_in(member)

    def leave(self, now_s: float, member: Member) -> float:
        """A member gives up; returns the seconds of service it has had."""
        if math.isnan(member._from_s):
            self._line.remove(member)
            return 0.0
        self._advance(now_s)
        member._left = True
        self.active -= 1
        if self._line:
            self._let_in(self._line.popleft())
        return min(self._counter_s - member._from_s, member.work_s)

    def attained_s(self, now_s: float, member: Member) -> float:
        """Seconds of service that a member has had; 0 in line."""
        return 0.0 if math.isnan(member._from_s) else min(self._counter(now_s) - member._from_s, member.work_s)

    def next_end_s(self) -> float:
        """When the next member is done if nobody comes or leaves; infinity if nobody is served."""
        self._drop_departed()
        if not self._served:
            return math.inf
        return self._since_s + max(0.0, self._served[0][0] - self._counter_s) * self.active

    def end(self, now_s: float) -> list[Member]:
        """Take out those who are done by now, and let in who waits for their places."""
        ended: list[Member] = []
        while (end_s := self.next_end_s()) <= now_s:
            self._counter_s, _, member = heappop(self._served)
            self._since_s = end_s
            self.active -= 1
            ended.append(member)
            if self._line:
                self._let_in(self._line.popleft())
        return ended

    def _let_in(self, member: Member) -> None:
        member._from_s = self._counter_s
        member._until_s = self._counter_s + member.work_s
        self.active += 1
        heappush(self._served, (member._until_s, member.number, member))

    def _advance(self, now_s: float) -> None:
        """Bring the counter to now; it starts again from 0 when nobody is served, and so never loses digits."""
        if self.active:
            self._counter_s = self._counter(now_s)
        else:
            self._counter_s = 0.0
            self._served.clear()
        self._since_s = now_s

    def _counter(self, now_s: float) -> float:
        """What the counter shows now: not past the point where somebody would be done."""
        self._drop_departed()
        if not self._served:
            return self._counter_s
        return min(self._counter_s + (now_s - self._since_s) / self.active, self._served[0][0])

    def _drop_departed(self) -> None:
        while self._served and self._served[0][2]._left:
            heappop(self._served)
