"""Routers: who gets which request, and that a request is the same wherever it goes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from servsim.cluster import RandomRouter, RoundRobin
from servsim.records import Records
from servsim.request import Request
from servsim.scenario import load_scenario
from servsim.simulation import Simulation
from servsim.streams import Streams

REQUEST = Request(0, 0.0, 1, 1, 1)


def run(router: str, instances: int = 4, **scheduler: Any) -> Records:
    return Simulation(
        load_scenario(
            {
                "model": "llama-3.1-8b",
                "instances": instances,
                "router": router,
                "instance": {"hardware": "h100-sxm", "scheduler": scheduler},
                "workload": {
                    "arrivals": {"process": "poisson", "rate_per_s": 60},
                    "lengths": {
                        "prompt_tokens": 100,
                        "output_tokens": {"distribution": "uniform", "min": 1, "max": 200},
                    },
                    "num_requests": 2000,
                },
            }
        )
    ).run()


def test_round_robin_takes_turns() -> None:
    router = RoundRobin(None, Streams(0).get("router"))
    assert [router.choose(REQUEST, [None] * 3, 0.0) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]  # type: ignore[list-item]


def test_random_is_even_and_independent() -> None:
    router = RandomRouter(None, Streams(0).get("router"))
    chosen = np.array([router.choose(REQUEST, [None] * 4, 0.0) for _ in range(40_000)])  # type: ignore[list-item]
    pairs = np.bincount(chosen[:-1] * 4 + chosen[1:], minlength=16)
    expected = (len(chosen) - 1) / 16
    assert ((pairs - expected) ** 2 / expected).sum() < 37.7  # chi square, 15 degrees of freedom, one in a thousand


def test_instances_in_turn_get_the_requests_in_turn() -> None:
    records = run("round_robin")
    assert records.requests["instance"].tolist() == [index % 4 for index in range(2000)]


@pytest.mark.parametrize("router", ["random", "round_robin"])
def test_requests_are_the_same_whatever_the_router_and_the_number_of_instances(router: str) -> None:
    alone, spread = run("round_robin", 1).requests, run(router).requests
    for column in ("arrival_s", "prompt_tokens", "output_tokens", "tenant"):
        assert alone[column].tobytes() == spread[column].tobytes()


def test_a_random_router_has_a_stream_of_its_own() -> None:
    fcfs, past_future = run("random", policy="fcfs").requests, run("random", policy="past_future").requests
    assert fcfs["instance"].tobytes() == past_future["instance"].tobytes()
    assert set(fcfs["instance"]) == {0, 1, 2, 3}


def test_each_instance_writes_strides_of_its_own_that_do_not_overlap() -> None:
    strides = run("random").strides
    for index in range(4):
        mine = strides["instance"] == index
        assert (np.diff(strides["start_s"][mine]) > 0).all()
        assert (strides["start_s"][mine][1:] >= strides["end_s"][mine][:-1]).all()
