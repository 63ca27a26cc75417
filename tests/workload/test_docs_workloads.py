"""docs/workloads.md and the shipped workloads: the YAML is valid, the worked example holds."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from servsim.scenario import load_scenario
from servsim.streams import Streams
from servsim.workload import open_stream

PAGE = (Path(__file__).parents[2] / "docs" / "workloads.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", BLOCKS)
def test_the_yaml_of_the_page_is_a_workload(text: str) -> None:
    scenario = load_scenario({"model": "llama-3.1-8b", "instance": {"hardware": "h100-sxm"}, **yaml.safe_load(text)})
    stream = open_stream(scenario.workload, Streams(0))
    assert sum(map(len, stream.blocks())) == stream.num_requests
    assert stream.tokens_per_hash == 16


def test_the_example_of_the_page_holds() -> None:
    workload = {
        "arrivals": {"process": "constant", "rate_per_s": 1},
        "lengths": {"prompt_tokens": 20, "output_tokens": 12},
        "prefixes": {"tokens": 40},
        "sessions": {"turns": 3, "think_time_s": 1},
        "num_requests": 6,
    }
    data = {"model": "llama-3.1-8b", "instance": {"hardware": "h100-sxm"}, "workload": workload}
    (block,) = open_stream(load_scenario(data).workload, Streams(0)).blocks()
    one, two = (list(block.requests())[part] for part in (slice(0, 3), slice(3, 6)))
    assert [request.prompt_tokens for request in one] == [60, 92, 124]
    assert [len(request.hash_ids) for request in one] == [4, 6, 8]
    assert len(set(one[-1].hash_ids) & set(two[-1].hash_ids)) == 2
    assert one[1].hash_ids[:4] == one[0].hash_ids


def test_the_agents_are_those_of_the_source_that_is_named() -> None:
    """TraceLab: tool-initiated calls a request: median 1, p90 20; tokens appended: median 796, p90 6,100; 523 out."""
    overrides = ["workload.num_requests=60000", "workload.sessions.max_context_tokens=1e12"]
    (*blocks,) = open_stream(load_scenario("agents-with-tools", overrides).workload, Streams(0)).blocks()
    session = np.concatenate([block.turns.session for block in blocks if block.turns is not None])
    turns = np.bincount(session)[:-1]
    assert np.quantile(turns, 0.5) == pytest.approx(2, abs=1)
    assert np.quantile(turns, 0.9) == pytest.approx(21, abs=3)
    output_tokens = np.concatenate([block.output_tokens for block in blocks])
    assert output_tokens.mean() == pytest.approx(523, rel=0.1)
    prompt_tokens = np.concatenate([block.prompt_tokens for block in blocks])
    later = np.flatnonzero(np.diff(session) == 0)
    appended = prompt_tokens[later + 1] - prompt_tokens[later] - output_tokens[later]
    assert np.quantile(appended, [0.5, 0.9]) == pytest.approx([796, 6100], rel=0.05)
