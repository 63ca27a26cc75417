from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from servsim.errors import TraceError
from servsim.scenario.workload_spec import TraceWorkload
from servsim.streams import Streams
from servsim.workload import open_stream
from servsim.workload.replay import read_trace
from servsim.workload.trace import TraceTable

POISSON = {"process": "poisson", "rate_per_s": 2.0}


def conversation(*lengths: int) -> dict[str, Any]:
    speakers = ("human", "gpt")
    turns = [{"from": speakers[turn % 2], "value": "x" * length} for turn, length in enumerate(lengths)]
    return {"id": "a", "conversations": turns}


def read(tmp_path: Path, data: Any, **workload: Any) -> TraceTable:
    path = tmp_path / "chats.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return read_trace(spec(tmp_path, **workload))


def spec(tmp_path: Path, **workload: Any) -> TraceWorkload:
    data = {"trace": tmp_path / "chats.json", "format": "sharegpt", "arrivals": POISSON} | workload
    return TraceWorkload.model_validate(data)


def test_four_characters_are_a_token_and_the_first_two_turns_a_request(tmp_path: Path) -> None:
    table = read(tmp_path, [conversation(100, 41, 9999), conversation(40, 80)])
    assert table.prompt_tokens.tolist() == [25, 10]
    assert table.output_tokens.tolist() == [11, 20]
    assert table.notes == ("lengths are characters divided by 4, not a tokenizer's",)


def test_the_ratio_of_characters_to_tokens_can_be_set(tmp_path: Path) -> None:
    assert read(tmp_path, [conversation(100, 50)], characters_per_token=2.5).prompt_tokens.tolist() == [40]


def test_vllm_s_rules_leave_out_what_is_too_short_or_too_long(tmp_path: Path) -> None:
    chats = [
        conversation(100),  # one turn
        conversation(12, 100),  # prompt of 3 tokens
        conversation(100, 12),  # output of 3
        conversation(16, 16),  # 4 and 4 are kept
        conversation(4 * 1025, 100),  # prompt above 1,024
        conversation(4 * 1024, 4 * 1024),  # 2,048 in all is kept
        conversation(4 * 1024, 4 * 1025),
    ]
    table = read(tmp_path, chats)
    assert table.file_rows.tolist() == [3, 5]
    assert table.notes[1] == "conversations left out: 1 with fewer than two turns, 2 too short, 2 too long"
    assert read(tmp_path, chats, max_prompt_tokens=5000, max_total_tokens=5000).file_rows.tolist() == [3, 4, 5, 6]


def test_a_fixed_output_length_makes_no_output_too_short(tmp_path: Path) -> None:
    table = read(tmp_path, [conversation(100, 1), conversation(1, 100)], output_tokens=64)
    assert table.file_rows.tolist() == [0]
    assert table.output_tokens.tolist() == [64]


def test_request_ids_are_places_in_the_file(tmp_path: Path) -> None:
    read(tmp_path, [conversation(40, 40), conversation(1, 1), conversation(80, 80), conversation(80, 80)])
    blocks = list(open_stream(spec(tmp_path), Streams(0)).blocks())
    assert [(block.first_request_id, len(block)) for block in blocks] == [(0, 1), (2, 2)]
    assert blocks[0].arrival_s[0] > 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("[{", "chats.json:1: not valid JSON"),
        ({"conversations": []}, "chats.json:1: the file is not a list"),
        ([conversation(40, 40), {"id": 1}], "chats.json: conversation 1: this is no conversation"),
        ([5], "chats.json: conversation 0: this is no conversation"),
        ([{"conversations": [{"from": "human"}, {"value": "x"}]}], "chats.json: conversation 0: a turn has no text"),
        ([], "chats.json: the trace holds no request"),
        ([conversation(1, 1)], "the trace holds no request (lengths are"),
    ],
)
def test_what_is_no_sharegpt_file_is_refused(tmp_path: Path, data: Any, message: str) -> None:
    with pytest.raises(TraceError) as caught:
        read(tmp_path, data)
    assert message in str(caught.value)


def test_without_arrivals_a_clear_message_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="has no arrival times\n  say when requests arrive"):
        read(tmp_path, [conversation(40, 40)], arrivals=None)
