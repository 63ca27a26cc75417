from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servsim import registry
from servsim.errors import TraceError
from servsim.scenario.workload_spec import TraceWorkload
from servsim.streams import Streams
from servsim.workload import RequestBlock, RequestStream, TraceTable, open_stream

TIMES = [100.0, 101.0, 101.0, 104.0, 110.0]


@pytest.fixture
def opened(tmp_path: Path) -> Any:
    """``opened(**workload)``: the stream of a table of five requests."""
    path = tmp_path / "trace.csv"
    rows = "".join(f"{time},{10 + row},{20 + row}\n" for row, time in enumerate(TIMES))
    path.write_text("arrival_s,prompt_tokens,output_tokens\n" + rows)

    def stream(**workload: Any) -> RequestStream:
        spec = TraceWorkload.model_validate({"trace": path, "format": "table"} | workload)
        return open_stream(spec, Streams(0))

    return stream


def only_block(stream: RequestStream) -> RequestBlock:
    (block,) = stream.blocks()
    return block


def test_the_first_request_arrives_at_0_and_the_gaps_are_kept(opened: Any) -> None:
    stream = opened()
    block = only_block(stream)
    assert block.arrival_s.tolist() == [0, 1, 1, 4, 10]
    assert block.prompt_tokens.tolist() == [10, 11, 12, 13, 14]
    assert block.max_tokens.tolist() == [1024] * 5
    assert (block.first_request_id, stream.num_requests) == (0, 5)


def test_time_scale_stretches_the_gaps(opened: Any) -> None:
    assert only_block(opened(time_scale=0.5)).arrival_s.tolist() == [0, 0.5, 0.5, 2, 5]


def test_a_window_keeps_the_file_s_row_numbers_and_starts_at_0(opened: Any) -> None:
    block = only_block(opened(start_s=1.0, duration_s=9.0, time_scale=2.0))
    assert block.first_request_id == 1
    assert block.arrival_s.tolist() == [0, 0, 6]


def test_a_window_ends_before_its_duration(opened: Any) -> None:
    assert len(only_block(opened(duration_s=4.0))) == 3
    assert len(only_block(opened(duration_s=4.000001))) == 4


def test_num_requests_limits_what_the_window_holds(opened: Any) -> None:
    stream = opened(start_s=0.5, num_requests=2)
    assert only_block(stream).prompt_tokens.tolist() == [11, 12]
    assert stream.num_requests == 2
    assert opened(num_requests=99).num_requests == 5


def test_an_empty_window_is_refused_with_what_the_file_covers(opened: Any) -> None:
    with pytest.raises(TraceError, match="no request arrives in the window; the file covers 10 s"):
        opened(start_s=11.0)


def test_the_declared_bound_is_raised_to_the_output(opened: Any) -> None:
    assert only_block(opened(max_tokens=22)).max_tokens.tolist() == [22, 22, 22, 23, 24]


def test_arrivals_replace_the_times_of_the_file(opened: Any) -> None:
    block = only_block(opened(arrivals={"process": "constant", "rate_per_s": 2.0}))
    assert block.arrival_s.tolist() == [0, 0.5, 1, 1.5, 2]
    assert block.prompt_tokens.tolist() == [10, 11, 12, 13, 14]


def test_a_trace_can_be_asked_for_in_a_closed_loop(opened: Any) -> None:
    stream = opened(arrivals={"process": "closed_loop", "concurrency": 2, "think_time_s": 0.5})
    assert stream.closed_loop is not None
    assert stream.closed_loop.think_time_s(4) == 0.5
    assert np.isnan(only_block(stream).arrival_s).tolist() == [False, False, True, True, True]


def test_dropped_rows_leave_gaps_in_the_request_ids(tmp_path: Path) -> None:
    path = tmp_path / "burst.csv"
    path.write_text("Timestamp,Request tokens,Response tokens\n1,5,5\n2,0,0\n3,6,6\n4,7,7\n")
    stream = open_stream(TraceWorkload.model_validate({"trace": path, "format": "burstgpt"}), Streams(0))
    blocks = list(stream.blocks())
    assert [(block.first_request_id, block.arrival_s.tolist()) for block in blocks] == [(0, [0]), (2, [2, 3])]
    assert stream.notes == ("failed requests (0 response tokens) dropped: 1",)


def test_hashes_go_with_their_requests(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    row = '{{"timestamp": {0}, "input_length": 600, "output_length": 5, "hash_ids": [{0}, 1]}}\n'
    path.write_text("".join(row.format(number) for number in range(4)))
    workload = {"trace": path, "format": "mooncake", "start_s": 0.001, "num_requests": 2}
    stream = open_stream(TraceWorkload.model_validate(workload), Streams(0))
    block = only_block(stream)
    assert block.hash_ids == [(1, 1), (2, 1)]
    assert (block.first_request_id, stream.tokens_per_hash) == (1, 512)


def test_a_long_trace_comes_in_blocks_of_at_most_65536(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path, spec: TraceWorkload) -> TraceTable:
        return TraceTable(path, np.full(150_000, 3), np.full(150_000, 4), np.arange(150_000.0))

    monkeypatch.setitem(registry._registered["trace_readers"], "long_for_test", read)
    spec = TraceWorkload.model_validate({"trace": __file__, "format": "long_for_test"})
    blocks = list(open_stream(spec, Streams(0)).blocks())
    assert [len(block) for block in blocks] == [65_536, 65_536, 18_928]
    assert [block.first_request_id for block in blocks] == [0, 65_536, 131_072]


def test_what_a_reader_from_outside_returns_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path, spec: TraceWorkload) -> TraceTable:
        return TraceTable(path, np.array([3, 3]), np.array([4, -4]), np.array([0.0, np.nan]))

    monkeypatch.setitem(registry._registered["trace_readers"], "wrong_for_test", read)
    spec = TraceWorkload.model_validate({"trace": __file__, "format": "wrong_for_test"})
    with pytest.raises(TraceError, match=r"test_replay\.py: request 1: the arrival is at nan"):
        open_stream(spec, Streams(0))
