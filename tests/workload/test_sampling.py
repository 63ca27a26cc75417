"""Several answers to one prompt."""

from __future__ import annotations

from typing import Any

import pytest

from servsim.errors import ScenarioError
from servsim.scenario import load_scenario
from servsim.simulation import Simulation
from servsim.streams import Streams
from servsim.workload import open_stream


def scenario(samples: int, **workload: Any) -> dict[str, Any]:
    return {
        "model": "llama-3.1-8b",
        "instance": {
            "hardware": "h100-sxm",
            "memory": {"allocator": "prefix_blocks", "block_size": 4},
            "cost": {"law": "fixed", "prefill_s": 1.0, "decode_s": 1.0},
        },
        "workload": {
            "arrivals": {"process": "constant", "rate_per_s": 0.01},
            "lengths": {"prompt_tokens": 6, "output_tokens": 3},
            "num_requests": 4,
            "tokens_per_hash": 2,
            "samples": samples,
            **workload,
        },
    }


def test_the_answers_to_a_prompt_arrive_together_and_have_its_content() -> None:
    loaded = load_scenario(scenario(3))
    stream = open_stream(loaded.workload, Streams(0))
    requests = [request for block in stream.blocks() for request in block.requests()]
    assert stream.num_requests == len(requests) == 12
    assert [request.request_id for request in requests] == list(range(12))
    groups = [requests[start : start + 3] for start in range(0, 12, 3)]
    for group in groups:
        assert len({(one.arrival_s, one.hash_ids) for one in group}) == 1
    contents = [set(group[0].hash_ids) for group in groups]
    assert all(len(content) == 3 for content in contents)
    assert len(set().union(*contents)) == 12


def test_three_answers_to_six_tokens_take_four_blocks_of_four() -> None:
    """As by copy-on-write (PagedAttention): the full block is held once, the last one by each of them."""
    records = Simulation(load_scenario(scenario(3, num_requests=1))).run()
    assert records.strides["kv_blocks_used"].max() == 4
    assert records.requests["cached_tokens"].tolist() == [0, 4, 4]


@pytest.mark.parametrize(
    "workload",
    [
        {"sessions": {"turns": 2, "think_time_s": 1}},
        {"arrivals": {"process": "closed_loop", "concurrency": 2}},
    ],
)
def test_nobody_waits_for_several_answers(workload: dict[str, Any]) -> None:
    with pytest.raises(ScenarioError, match="several answers"):
        load_scenario(scenario(2, **workload))
