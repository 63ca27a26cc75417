"""The source: requests arrive at their times, as one SimPy process."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from itertools import islice, repeat
from typing import TYPE_CHECKING

import simpy

from servsim.clock import ARRIVAL, schedule_at
from servsim.request import Request

if TYPE_CHECKING:
    from servsim.workload.blocks import RequestBlock, RequestStream

__all__ = ["Source", "requests_of"]

Submit = Callable[[Request], None]


def requests_of(blocks: Iterator[RequestBlock]) -> Iterator[Request]:
    """The requests of a stream, one by one; only a block of them exists at a time."""
    for block in blocks:
        columns = (
            block.arrival_s.tolist(),
            block.prompt_tokens.tolist(),
            block.output_tokens.tolist(),
            block.max_tokens.tolist(),
            block.tenant.tolist(),
            block.slo_class.tolist(),
            block.priority.tolist(),
        )
        ids = range(block.first_request_id, block.first_request_id + len(block))
        yield from map(Request, ids, *columns, block.hash_ids if block.hash_ids is not None else repeat(()))


class Source:
    """Submits the requests of a stream.

    An open stream submits at the stream's own times. A closed loop submits the first ``concurrency``
    requests at 0 and each further one a think time after an earlier one ended; tell it so by :meth:`ended`.
    """

    def __init__(self, env: simpy.Environment, stream: RequestStream, submit: Submit) -> None:
        self._env = env
        self._submit = submit
        self._requests = requests_of(stream.blocks())
        self._loop = stream.closed_loop
        if self._loop is None:
            env.process(self._replay())
        else:
            for request in islice(self._requests, self._loop.concurrency):
                self._submit_at(0.0, request)

    @property
    def closed(self) -> bool:
        """Whether arrivals wait for earlier requests to end."""
        return self._loop is not None

    def ended(self, _: Request) -> None:
        """A request of a closed loop ended, now: its user thinks, then asks for the next one of the stream."""
        assert self._loop is not None
        request = next(self._requests, None)
        if request is not None:
            arrival_s = self._env.now + self._loop.think_time_s(request.request_id)
            if self._loop.duration_s is None or arrival_s < self._loop.duration_s:
                self._submit_at(arrival_s, request)

    def _replay(self) -> Generator[simpy.Event, None, None]:
        env, submit = self._env, self._submit
        for request in self._requests:
            if request.arrival_s > env.now:
                arrival = simpy.Event(env)
                schedule_at(env, arrival, request.arrival_s, ARRIVAL)
                yield arrival
            submit(request)

    def _submit_at(self, arrival_s: float, request: Request) -> None:
        arrival = simpy.Event(self._env)
        assert arrival.callbacks is not None
        arrival.callbacks.append(lambda _: self._submit(request._replace(arrival_s=arrival_s)))
        schedule_at(self._env, arrival, arrival_s, ARRIVAL)
