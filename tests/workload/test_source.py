"""The source against a server that takes a fixed time for every request, and in whole simulations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import simpy

from servsim.records import Records
from servsim.request import Request
from servsim.scenario import load_scenario
from servsim.scenario.workload_spec import SyntheticWorkload
from servsim.simulation import Simulation
from servsim.streams import Streams
from servsim.workload import open_stream
from servsim.workload.source import Source

EVERY_SECOND = {"process": "constant", "rate_per_s": 1.0}
FIXED = {"prompt_tokens": 20, "output_tokens": 12}
CHATS = {
    "turns": {"distribution": "geometric", "mean": 4},
    "think_time_s": {"distribution": "exponential", "mean_s": 3.0},
    "max_context_tokens": 3000,
}


class Server:
    """Answers every request after ``service_s``, or turns it away at once where ``rejects`` says so."""

    def __init__(
        self, workload: dict[str, Any], service_s: float = 0.5, rejects: Callable[[Request], bool] = lambda _: False
    ) -> None:
        data = {"arrivals": EVERY_SECOND, "lengths": FIXED, "num_requests": 6} | workload
        self.env = simpy.Environment()
        self.seen: list[Request] = []
        self._service_s = service_s
        self._rejects = rejects
        stream = open_stream(SyntheticWorkload.model_validate(data), Streams(0))
        self.source = Source(self.env, stream, self._submit)
        self.env.run()

    def _submit(self, request: Request) -> None:
        assert request.arrival_s == self.env.now
        self.seen.append(request)
        if self._rejects(request):
            return self.source.ended(request, False)
        self.env.timeout(self._service_s).callbacks.append(lambda _: self._end(request))

    def _end(self, request: Request) -> None:
        if self.source.closed:
            self.source.ended(request, True)

    @property
    def arrivals(self) -> list[tuple[float, int, int]]:
        """Arrival, request and session, in the order of submission."""
        return [(one.arrival_s, one.request_id, one.session) for one in self.seen]


def sessions(turns: int, think_s: float) -> dict[str, Any]:
    return {"turns": turns, "think_time_s": think_s}


def test_a_later_turn_arrives_a_think_time_after_the_answer() -> None:
    server = Server({"sessions": sessions(3, 0.25)})
    assert server.arrivals == [(0, 0, 0), (0.75, 1, 0), (1, 3, 1), (1.5, 2, 0), (1.75, 4, 1), (2.5, 5, 1)]
    assert [one.hash_ids for one in server.seen[:2]] == [(0, 1), (0, 1, 2, 3)]


def test_what_arrives_at_one_instant_comes_in_the_order_of_request_id() -> None:
    server = Server({"sessions": sessions(3, 0.5), "num_requests": 9})
    assert server.arrivals == [
        *((0, 0, 0), (1, 1, 0), (1, 3, 1)),
        *((2, 2, 0), (2, 4, 1), (2, 6, 2)),
        *((3, 5, 1), (3, 7, 2), (4, 8, 2)),
    ]


def test_a_rejected_turn_ends_its_session() -> None:
    server = Server({"sessions": sessions(3, 0.25)}, rejects=lambda request: request.request_id == 1)
    assert [request_id for _, request_id, _ in server.arrivals] == [0, 1, 3, 4, 5]


def test_nothing_is_kept_of_a_session_that_has_ended() -> None:
    for rejects in (lambda _: False, lambda request: request.request_id in (1, 3)):
        server = Server({"sessions": sessions(3, 0.25)}, rejects=rejects)
        assert server.source._book is not None and len(server.source._book) == 0


def test_no_turn_arrives_at_or_after_the_duration() -> None:
    limited = {"sessions": sessions(3, 0.5), "num_requests": None, "duration_s": 2.0}
    server = Server(limited)
    assert server.arrivals == [(0, 0, 0), (1, 1, 0), (1, 3, 1)]
    assert server.source._book is not None and len(server.source._book) == 0


def test_in_a_closed_loop_a_user_begins_another_session_when_one_has_ended() -> None:
    loop = {"process": "closed_loop", "concurrency": 2, "think_time_s": 10}
    server = Server({"arrivals": loop, "sessions": sessions(2, 1), "num_requests": 7})
    assert server.arrivals == [
        *((0, 0, 0), (0, 2, 1), (1.5, 1, 0), (1.5, 3, 1)),
        *((12, 4, 2), (12, 6, 3), (13.5, 5, 2)),
    ]


def test_in_a_closed_loop_a_rejection_makes_room_for_another_session() -> None:
    loop = {"process": "closed_loop", "concurrency": 1, "think_time_s": 10}
    workload = {"arrivals": loop, "sessions": sessions(3, 1)}
    server = Server(workload, rejects=lambda request: request.request_id == 1)
    assert server.arrivals == [(0, 0, 0), (1.5, 1, 0), (11.5, 3, 1), (13, 4, 1), (14.5, 5, 1)]


def test_a_closed_loop_of_single_requests_ends_before_its_duration() -> None:
    loop = {"process": "closed_loop", "concurrency": 1, "think_time_s": 1}
    server = Server({"arrivals": loop, "num_requests": None, "duration_s": 3.0})
    assert server.arrivals == [(0, 0, -1), (1.5, 1, -1)]


def test_an_open_stream_without_sessions_waits_for_nothing() -> None:
    server = Server({})
    assert not server.source.closed
    assert server.arrivals == [(second, second, -1) for second in range(6)]


def scenario() -> dict[str, Any]:
    workload = {
        "arrivals": {"process": "poisson", "rate_per_s": 6.0},
        "lengths": {
            "prompt_tokens": {"distribution": "lognormal", "median": 100, "sigma": 1.0, "max": 1500},
            "output_tokens": {"distribution": "geometric", "mean": 60},
        },
        "prefixes": {"count": 3, "tokens": 100},
        "sessions": CHATS,
        "num_requests": 300,
    }
    instance = {
        "hardware": "h100-sxm",
        "scheduler": {"policy": "fcfs", "max_num_seqs": 12},
        "memory": {"num_blocks": 500},
        "max_model_len": 4000,
    }
    return {"model": "llama-3.1-8b", "instance": instance, "workload": workload}


TIES = {
    "instance.cost": {"law": "fixed", "prefill_s": 0.25, "decode_s": 0.125},
    "workload.arrivals": {"process": "constant", "rate_per_s": 4.0},
    "workload.sessions": CHATS | {"think_time_s": 0.25},
    "workload.lengths": {"prompt_tokens": 100, "output_tokens": {"distribution": "uniform", "min": 1, "max": 4}},
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"instances": 3},
        {"instance.memory": {"num_blocks": 190}, "instance.max_model_len": 3040},
        {"workload.arrivals": {"process": "closed_loop", "concurrency": 9, "think_time_s": 1}},
        TIES,
        TIES | {"instances": 2, "workload.sessions": CHATS | {"think_time_s": 0}},
    ],
    ids=["one instance", "three instances", "tight memory", "closed loop", "ties", "ties without thought"],
)
def test_strides_and_single_steps_agree_to_the_bit(changes: dict[str, Any]) -> None:
    strided, single = (ran(changes | {"instance.stepping": mode}) for mode in ("strided", "single"))
    for table in ("requests", "pauses"):
        for name, column in getattr(strided, table).items():
            assert np.array_equal(column, getattr(single, table)[name], equal_nan=column.dtype.kind == "f"), name
    assert len(strided.requests["request_id"]) == 300
    assert len(strided.pauses["request_id"]) > 0 or "instance.memory" not in changes


def ran(changes: dict[str, Any]) -> Records:
    data = scenario()
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = data
        for parent in parents:
            place = place[parent]
        place[last] = value
    return Simulation(load_scenario(data)).run()


def test_each_turn_arrives_its_think_time_after_the_finish_of_the_turn_before() -> None:
    simulation = Simulation(load_scenario(scenario()))
    rows = simulation.run().requests
    (block,) = simulation.stream.blocks()
    assert block.turns is not None
    assert rows["request_id"].tolist() == list(range(len(block)))
    first = ~np.isnan(block.arrival_s)
    assert np.array_equal(rows["arrival_s"][first], block.arrival_s[first])
    later = np.flatnonzero(~first)
    assert np.array_equal(rows["arrival_s"][later], rows["finish_s"][later - 1] + block.turns.think_s[later])
    assert np.array_equal(rows["prompt_tokens"], block.prompt_tokens)


def test_a_context_beyond_the_model_is_rejected_and_its_session_goes_no_further() -> None:
    endless = scenario()
    endless["workload"]["sessions"] = CHATS | {"max_context_tokens": None}
    endless["instance"]["max_model_len"] = 400
    simulation = Simulation(load_scenario(endless))
    rows = simulation.run().requests
    (block,) = simulation.stream.blocks()
    assert block.turns is not None
    session = block.turns.session[rows["request_id"]]
    rejected = rows["status"] == 1
    assert rejected.any()
    for row in np.flatnonzero(rejected):
        assert not np.any((session == session[row]) & (rows["request_id"] > rows["request_id"][row]))
    assert len(session) < len(block)
