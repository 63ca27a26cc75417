from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from servsim.scenario.workload_files import named_lengths
from servsim.scenario.workload_spec import SyntheticWorkload, TraceWorkload
from servsim.streams import Streams
from servsim.workload import RequestBlock, RequestStream, open_stream
from servsim.workload.replay import read_trace

CONV = ("azure_conv_2023.csv", "azure-conv-2023")
CODE = ("azure_code_2023.csv", "azure-code-2023")


def opened(path: Path, reader: str, **workload: object) -> RequestStream:
    return open_stream(TraceWorkload.model_validate({"trace": path, "format": reader} | workload), Streams(0))


def only_block(stream: RequestStream) -> RequestBlock:
    (block,) = stream.blocks()
    return block


@pytest.mark.parametrize(
    ("file", "requests", "prompts", "outputs", "last_s"),
    [
        ("azure_conv_2023.csv", 19_366, 22_361_870, 4_088_665, 3501.721937),
        ("azure_code_2023.csv", 8_819, None, None, None),
    ],
)
def test_the_azure_traces_are_read_whole(
    servsim_data: Path, file: str, requests: int, prompts: int | None, outputs: int | None, last_s: float | None
) -> None:
    stream = opened(servsim_data / "traces" / file, "azure")
    block = only_block(stream)
    assert stream.num_requests == len(block) == requests
    assert stream.notes == ()
    if prompts is not None:
        assert (block.prompt_tokens.sum(), block.output_tokens.sum()) == (prompts, outputs)
        assert block.arrival_s[-1] == last_s


def test_the_mooncake_trace_keeps_every_hash(servsim_data: Path) -> None:
    path = servsim_data / "traces" / "mooncake_synthetic.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    block = only_block(opened(path, "mooncake"))
    assert block.hash_ids == [tuple(row["hash_ids"]) for row in rows]
    assert block.prompt_tokens.tolist() == [row["input_length"] for row in rows]
    assert block.arrival_s == pytest.approx([row["timestamp"] / 1000 for row in rows])


def test_vllm_s_flags_read_the_mooncake_trace_too(servsim_data: Path) -> None:
    path = servsim_data / "traces" / "mooncake_synthetic.jsonl"
    flags = {"timed_trace_sec_multiplier": 0.001, "timed_trace_chunk_hash_size": 512}
    one, other = only_block(opened(path, "vllm_timed_trace", **flags)), only_block(opened(path, "mooncake"))
    assert np.array_equal(one.arrival_s, other.arrival_s)
    assert one.hash_ids == other.hash_ids


def test_the_traces_of_a_measured_run_are_tables(servsim_data: Path) -> None:
    paths = sorted((servsim_data / "serving" / "vllm_0.6_tp_scaling" / "traces").glob("*.csv"))
    assert paths
    for path in paths:
        assert (opened(path, "table").num_requests or 0) > 0


def draw(name: str, count: int) -> RequestBlock:
    arrivals = {"process": "poisson", "rate_per_s": 22.0}
    spec = SyntheticWorkload.model_validate({"arrivals": arrivals, "lengths": name, "num_requests": count})
    return next(open_stream(spec, Streams(0)).blocks())


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    ranks = []
    for values in (x, y):
        _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - counts / 2)[where])
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


@pytest.mark.parametrize(("file", "name"), [CONV, CODE])
def test_the_shipped_profile_has_the_trace_s_lengths(servsim_data: Path, file: str, name: str) -> None:
    real = read_trace(TraceWorkload.model_validate({"trace": servsim_data / "traces" / file, "format": "azure"}))
    made = draw(name, 65_536)
    for column in ("prompt_tokens", "output_tokens"):
        one, other = getattr(real, column), getattr(made, column)
        assert other.mean() == pytest.approx(one.mean(), rel=0.02)
        assert one.min() <= other.min() <= other.max() <= one.max()
        assert other.max() > 0.9 * one.max()
        at = np.union1d(one, other)
        below = [np.searchsorted(np.sort(values), at, side="right") / len(values) for values in (one, other)]
        assert np.abs(below[0] - below[1]).max() < 0.015
    assert rank_correlation(made.prompt_tokens, made.output_tokens) == pytest.approx(
        rank_correlation(np.asarray(real.prompt_tokens), np.asarray(real.output_tokens)), abs=0.03
    )


@pytest.mark.parametrize("name", [CONV[1], CODE[1]])
def test_a_shipped_profile_needs_no_data(name: str) -> None:
    assert named_lengths(name).model_dump()["prompt_tokens"]["distribution"] == "quantiles"
    assert draw(name, 100).prompt_tokens.min() >= 2
