"""Requests with several outputs or beams: how long they are drawn, and that nobody else's draws shift."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servsim.request import Request
from servsim.scenario import load_scenario
from servsim.streams import Streams
from servsim.workload import open_stream
from servsim.workload.beams import BeamDraws
from servsim.workload.synthetic import open_synthetic


def workload(**changed: Any) -> Any:
    scenario = {
        "model": "llama-3.1-8b",
        "instance": {"hardware": "h100-sxm", "scheduler": {"policy": "vllm_v0"}},
        "workload": {
            "arrivals": {"process": "poisson", "rate_per_s": 1},
            "lengths": {
                "prompt_tokens": {"distribution": "uniform", "min": 5, "max": 50},
                "output_tokens": {"distribution": "geometric", "mean": 20},
            },
            "num_requests": 400,
            "max_tokens": 30,
            **changed,
        },
    }
    return load_scenario(scenario).workload


def requests(spec: Any) -> list[Request]:
    return [request for block in open_stream(spec, Streams(0)).blocks() for request in block.requests()]


def test_further_outputs_come_from_the_same_distribution_and_the_longest_is_the_output() -> None:
    plain, several = requests(workload()), requests(workload(samples={"count": 3, "forked": True}))
    outputs = np.array([(one.output_tokens, *one.further_outputs) for one in several])
    assert outputs.shape == (400, 3)
    assert (np.diff(outputs, axis=1) <= 0).all()
    assert outputs.mean() == pytest.approx(20, rel=0.1)
    assert outputs[:, 0].mean() > 30
    for before, after in zip(plain, several, strict=True):
        assert after[:3] == before[:3]  # id, arrival and prompt
        assert before.output_tokens in (after.output_tokens, *after.further_outputs)
        assert after.max_tokens == max(30, after.output_tokens)


def test_the_draws_do_not_depend_on_blocks_and_the_first_not_on_how_many_there_are() -> None:
    spec = workload(samples={"count": 3, "forked": True})
    whole = requests(spec)
    small = [one for block in open_synthetic(spec, Streams(0), 7).blocks() for one in block.requests()]
    assert small == whole
    assert requests(workload(samples={"count": 3, "forked": True}, num_requests=50)) == whole[:50]


def test_outputs_can_be_asked_to_be_as_long_as_the_first() -> None:
    plain, several = (
        requests(workload()),
        requests(workload(samples={"count": 3, "forked": True, "equally_long": True})),
    )
    assert [one._replace(further_outputs=()) for one in several] == plain
    assert all(one.further_outputs == (one.output_tokens,) * 2 for one in several)


def test_beams_are_all_as_long_as_the_output() -> None:
    plain, beams = requests(workload()), requests(workload(beam_search={"width": 4}))
    assert [one._replace(beam_width=1) for one in beams] == plain
    assert {one.width for one in beams} == {4}


def test_outputs_of_a_trace_are_equally_long(tmp_path: Path) -> None:
    table = tmp_path / "trace.csv"
    table.write_text("arrival_s,prompt_tokens,output_tokens\n0,10,5\n1,20,7\n")
    spec = {"trace": str(table), "format": "table"}
    scenario = {
        "model": "llama-3.1-8b",
        "instance": {"hardware": "h100-sxm", "scheduler": {"policy": "vllm_v0"}},
        "workload": {**spec, "samples": {"count": 3, "forked": True}},
    }
    found = requests(load_scenario(scenario).workload)
    assert [(one.output_tokens, one.further_outputs) for one in found] == [(5, (5, 5)), (7, (7, 7))]
    scenario["workload"] = {**spec, "beam_search": {"width": 2}}
    assert [one.beam_width for one in requests(load_scenario(scenario).workload)] == [2, 2]


def test_reorderings_are_geometric_and_each_request_has_its_own() -> None:
    def drawn(number: int, probability: float, tokens: int = 20_000) -> list[tuple[int, int, int]]:
        request = Request(number, 0.0, 1, tokens, tokens, beam_width=4)
        beams, found = BeamDraws(Streams(0), probability)(request), []
        while beams.at_tokens <= tokens:
            at_tokens = beams.at_tokens
            found.append((at_tokens, *beams.take()))
        return found

    found = np.array(drawn(0, 0.2))
    assert len(found) / 20_000 == pytest.approx(0.2, abs=0.01)
    assert found[0, 0] >= 2 and (np.diff(found[:, 0]) >= 1).all()
    assert (found[:, 1] != found[:, 2]).all()
    pairs = found[:, 1] * 4 + found[:, 2]
    counts = np.unique(pairs, return_counts=True)[1]
    assert len(counts) == 12 and counts.min() > 0.8 * counts.mean()
    assert drawn(0, 0.2) == [tuple(row) for row in found.tolist()]
    assert drawn(1, 0.2) != drawn(0, 0.2)
    assert [row[0] for row in drawn(0, 1.0, 10)] == list(range(2, 11))
    assert drawn(0, 0.0) == []
