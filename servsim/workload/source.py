"""The source: requests arrive at their times, as one SimPy process."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from heapq import heappop, heappush
from itertools import chain, islice
from typing import TYPE_CHECKING

import simpy

from servsim.clock import ARRIVAL, schedule_at
from servsim.request import Request
from servsim.workload.sessions import SessionBook

if TYPE_CHECKING:
    from servsim.workload.blocks import RequestStream

__all__ = ["Source"]

Submit = Callable[[Request], None]


class Source:
    """Submits the requests of a stream.

    An open stream submits at the stream's own times. A closed loop submits the first ``concurrency`` requests at 0 and
    each further one a think time after an earlier one ended. With sessions both hold for their first turns, and each
    later turn is submitted a think time after the answer before it; in a closed loop a user begins another session
    when one has ended. Where arrivals wait for endings, tell of these by :meth:`ended`. What arrives at one instant
    is submitted in the order of ``request_id``.
    """

    def __init__(self, env: simpy.Environment, stream: RequestStream, submit: Submit) -> None:
        self._env = env
        self._submit = submit
        self._loop = stream.closed_loop
        self._book: SessionBook | None = None
        self._duration_s = stream.duration_s
        self._calendar: list[tuple[float, int, Request]] = []  # a heap of what is to arrive, one event for each
        if stream.sessions:
            assert stream.tokens_per_hash is not None
            self._book = SessionBook(stream.blocks(), stream.tokens_per_hash)
            self._starts = self._book.starts()
        else:
            self._starts = chain.from_iterable(block.requests() for block in stream.blocks())
        if self._loop is not None:
            for request in islice(self._starts, self._loop.concurrency):
                self._arrive_at(0.0, request)
        elif self._book is not None:
            self._arrive_next()
        else:
            env.process(self._replay(self._starts))

    @property
    def closed(self) -> bool:
        """Whether arrivals wait for earlier requests to end."""
        return self._loop is not None or self._book is not None

    def ended(self, request: Request, finished: bool = True) -> None:
        """A request has ended now: it has its answer, or (``finished`` false) was turned away, and so its session."""
        if self._book is not None:
            turn = self._book.after(request) if finished else None
            if turn is not None and self._in_time(self._env.now + turn.think_s):
                return self._arrive_at(self._env.now + turn.think_s, turn.request)
            self._book.end(request)
        if self._loop is not None:
            start = next(self._starts, None)
            if start is not None:
                number = start.request_id if self._book is None else start.session
                arrival_s = self._env.now + self._loop.think_time_s(number)
                if self._in_time(arrival_s):
                    self._arrive_at(arrival_s, start)

    def _in_time(self, arrival_s: float) -> bool:
        return self._duration_s is None or arrival_s < self._duration_s

    def _replay(self, requests: Iterator[Request]) -> Generator[simpy.Event, None, None]:
        env, submit = self._env, self._submit
        for request in requests:
            if request.arrival_s > env.now:
                arrival = simpy.Event(env)
                schedule_at(env, arrival, request.arrival_s, ARRIVAL)
                yield arrival
            submit(request)

    def _arrive_next(self) -> None:
        """The next session of an open stream begins at its own time."""
        start = next(self._starts, None)
        if start is not None:
            self._arrive_at(start.arrival_s, start)

    def _arrive_at(self, arrival_s: float, request: Request) -> None:
        heappush(self._calendar, (arrival_s, request.request_id, request))
        arrival = simpy.Event(self._env)
        assert arrival.callbacks is not None
        arrival.callbacks.append(self._arrive)
        schedule_at(self._env, arrival, arrival_s, ARRIVAL)

    def _arrive(self, _: simpy.Event) -> None:
        """The first in the calendar arrives; it is due, since each entry has an event at its time."""
        arrival_s, _id, request = heappop(self._calendar)
        if self._loop is None and request.arrival_s == request.arrival_s:  # a start, whose time was not NaN
            self._arrive_next()
        self._submit(request._replace(arrival_s=arrival_s))
