"""Transfers over a link that share its bandwidth, as simulated time passes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush

import simpy

from servsim.clock import TRANSFER, schedule_at
from servsim.errors import SimulationError
from servsim.hardware import Direction, Route
from servsim.memory.fair_share import FairShare, Share

__all__ = ["Link", "LinkUse", "Transfer"]


@dataclass(slots=True, eq=False)
class Transfer(Share):
    """One transfer: bytes that go one way over a link in a number of copy operations.

    Life: its operations are launched, it waits for a place where the queue depth bounds those, its bytes
    move, and ``done`` is called with it at ``finished_s`` (NaN until then). A cancelled one is never done.
    """

    direction: Direction
    size_bytes: float
    operations: int
    started_s: float
    done: Callable[[Transfer], None] = field(repr=False)
    link: Link = field(repr=False)
    finished_s: float = field(default=math.nan, init=False)
    cancelled: bool = field(default=False, init=False)
    _launched: bool = field(default=False, init=False, repr=False)
    _moved_bytes: float = field(default=0.0, init=False, repr=False)  # when it ended

    @property
    def moved_bytes(self) -> float:
        """Bytes that have moved by now: all of them once it is finished, and no more after it was cancelled."""
        return self.link._moved_bytes(self) if self.under_way else self._moved_bytes

    @property
    def under_way(self) -> bool:
        """Whether it is neither finished nor cancelled."""
        return not (self.cancelled or self.finished_s == self.finished_s)

    def cancel(self) -> None:
        """Stop it: what has moved has moved, the rest never will. Nothing happens to one that has ended."""
        if self.under_way:
            self.link._cancel(self)


@dataclass(frozen=True, slots=True)
class LinkUse:
    """What a link has done so far, ``in`` towards the device and ``out`` away from it.

    Bytes are those that have moved, of cancelled and unfinished transfers too; transfers and operations are
    counted when a transfer finishes. ``busy`` seconds are service at the link's full rate: with full duplex
    the time in which bytes moved that way, with half duplex the two directions' parts of that time.
    """

    in_bytes: float
    out_bytes: float
    in_busy_s: float
    out_busy_s: float
    in_transfers: int
    out_transfers: int
    in_operations: int
    out_operations: int


@dataclass(slots=True, eq=False)
class _Tally:
    """One direction's sums of what has ended."""

    size_bytes: float = 0.0
    busy_s: float = 0.0
    transfers: int = 0
    operations: int = 0


class Link:
    """A route whose transfers share it fairly: n at a time in one direction have an n-th of its bandwidth each.

    A transfer first pays the latency and the launch of its operations, during which it takes no bandwidth;
    launches of different transfers do not wait for each other. Half-duplex directions share one server.
    Transfers that end at one instant are reported before anything else of that instant, in the order of
    their starts. One wake-up is pending at a time; a later one than needed is superseded.
    """

    def __init__(self, env: simpy.Environment, route: Route) -> None:
        self.env = env
        self.route = route
        inwards: FairShare[Transfer] = FairShare(route.queue_depth)
        outwards: FairShare[Transfer] = inwards if route.half_duplex else FairShare(route.queue_depth)
        self._lanes: dict[Direction, FairShare[Transfer]] = {"in": inwards, "out": outwards}
        self._distinct = (inwards,) if route.half_duplex else (inwards, outwards)
        self._tallies: dict[Direction, _Tally] = {"in": _Tally(), "out": _Tally()}
        self._launching: list[tuple[float, int, Transfer]] = []
        self._wake: simpy.Event | None = None
        self._wake_s = math.inf
        self._started = 0
        self.in_flight = 0
        """Transfers that are under way: launching, waiting for a place, or moving."""

    def start(
        self, size_bytes: float, operations: int, direction: Direction, done: Callable[[Transfer], None]
    ) -> Transfer:
        """Begin a transfer now; ``done`` is called with it when its last byte has arrived, never before this returns.

        Raises SimulationError for a negative or infinite size, or a negative number of operations.
        """
        if not (0 <= size_bytes < math.inf and operations >= 0):
            raise SimulationError(f"a transfer of {size_bytes} bytes in {operations} operations")
        now_s = self.env.now
        work_s = self.route.work_s(size_bytes, operations, direction)
        transfer = Transfer(self._started, work_s, direction, size_bytes, operations, now_s, done, self)
        self._started += 1
        self.in_flight += 1
        heappush(self._launching, (now_s + self.route.lead_s(operations), transfer.number, transfer))
        self._set_wake_up()
        return transfer

    def idle_time_s(self, size_bytes: float, operations: int, direction: Direction) -> float:
        """How long a transfer would take with the link to itself."""
        return self.route.idle_time_s(size_bytes, operations, direction)

    def use(self) -> LinkUse:
        """What has gone over the link by now."""
        sizes = {direction: tally.size_bytes for direction, tally in self._tallies.items()}
        busy_s = {direction: tally.busy_s for direction, tally in self._tallies.items()}
        for lane in self._distinct:
            for transfer in lane.members():
                sizes[transfer.direction] += self._moved_bytes(transfer)
                busy_s[transfer.direction] += lane.attained_s(self.env.now, transfer)
        inwards, outwards = self._tallies["in"], self._tallies["out"]
        return LinkUse(
            in_bytes=sizes["in"],
            out_bytes=sizes["out"],
            in_busy_s=busy_s["in"],
            out_busy_s=busy_s["out"],
            in_transfers=inwards.transfers,
            out_transfers=outwards.transfers,
            in_operations=inwards.operations,
            out_operations=outwards.operations,
        )

    def _set_wake_up(self) -> None:
        """Wake up when the next launch or transfer ends. A wake-up that comes too early finds nothing to do."""
        next_s = min(lane.next_end_s() for lane in self._distinct)
        while self._launching and self._launching[0][2].cancelled:
            heappop(self._launching)
        if self._launching:
            next_s = min(next_s, self._launching[0][0])
        if next_s >= self._wake_s:
            return
        if self._wake is not None:
            self._wake.callbacks = []  # it stays in SimPy's queue and does nothing
        self._wake = wake = simpy.Event(self.env)
        self._wake_s = next_s
        assert wake.callbacks is not None
        wake.callbacks.append(self._ring)
        schedule_at(self.env, wake, next_s, TRANSFER)

    def _ring(self, _: simpy.Event) -> None:
        now_s = self.env.now
        self._wake, self._wake_s = None, math.inf
        ended = [transfer for lane in self._distinct for transfer in lane.end(now_s)]
        while self._launching and self._launching[0][0] <= now_s:
            transfer = heappop(self._launching)[2]
            if not transfer.cancelled:
                transfer._launched = True
                self._lanes[transfer.direction].join(now_s, transfer)
        ended += [transfer for lane in self._distinct for transfer in lane.end(now_s)]  # those without work
        ended.sort(key=lambda transfer: transfer.number)
        self._finish(ended, now_s)
        self._set_wake_up()
        for transfer in ended:
            transfer.done(transfer)

    def _finish(self, ended: Iterable[Transfer], now_s: float) -> None:
        for transfer in ended:
            transfer.finished_s = now_s
            transfer._moved_bytes = transfer.size_bytes
            tally = self._tallies[transfer.direction]
            tally.size_bytes += transfer.size_bytes
            tally.busy_s += transfer.work_s
            tally.transfers += 1
            tally.operations += transfer.operations
            self.in_flight -= 1

    def _cancel(self, transfer: Transfer) -> None:
        if transfer._launched:
            transfer._moved_bytes = self._moved_bytes(transfer)
            tally = self._tallies[transfer.direction]
            tally.size_bytes += transfer._moved_bytes
            tally.busy_s += self._lanes[transfer.direction].leave(self.env.now, transfer)
        transfer.cancelled = True
        self.in_flight -= 1
        self._set_wake_up()

    def _moved_bytes(self, transfer: Transfer) -> float:
        """Bytes of a transfer under way that have moved by now."""
        if not transfer._launched or transfer.work_s == 0:
            return 0.0
        attained_s = self._lanes[transfer.direction].attained_s(self.env.now, transfer)
        return transfer.size_bytes * (attained_s / transfer.work_s)
