from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pytest
from pyarrow import parquet

from servsim.errors import TraceError
from servsim.scenario.workload_spec import TraceWorkload
from servsim.workload.replay import read_trace
from servsim.workload.trace import TraceTable

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
AZURE_ROW = "2023-11-16 18:15:46.6805900,374,44\n"
BURST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
SPLITWISE = "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size\n"
LINE = {"timestamp": 0, "input_length": 600, "output_length": 6, "hash_ids": [4, 5]}


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """``read(text, **workload)``: the table of a file with this text."""

    def read_text(text: str | bytes, name: str = "trace.csv", **workload: Any) -> TraceTable:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_trace(TraceWorkload.model_validate({"trace": str(path)} | workload))

    return read_text


@pytest.fixture
def refused(read: Any) -> Any:
    """``refused(text, **workload)``: the message with which such a file is refused."""

    def message(text: str | bytes, name: str = "trace.csv", **workload: Any) -> str:
        with pytest.raises(TraceError) as caught:
            read(text, name, **workload)
        assert str(caught.value).split(name)[0].endswith("/")
        return str(caught.value)

    return message


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_azure_times_keep_their_seven_decimals(read: Any) -> None:
    table = read(AZURE + AZURE_ROW + "2023-11-16 18:15:50.9951690,396,109\n", format="azure")
    assert table.arrival_s.tolist() == [0, 4.314579]
    assert table.prompt_tokens.tolist() == [374, 396]
    assert table.output_tokens.tolist() == [44, 109]
    assert table.prompt_tokens.dtype == np.int64


@pytest.mark.parametrize("zone", ["+00:00", "Z"])
def test_azure_times_of_2024_have_an_offset_and_may_lack_decimals(read: Any, zone: str) -> None:
    table = read(AZURE + f"2024-05-10 00:00:00.009930{zone},5,6\n2024-05-10 00:00:01{zone},5,6\n", format="azure")
    assert table.arrival_s.tolist() == [0, 0.99007]


def test_a_compressed_trace_with_images_is_read_and_the_images_are_noted(read: Any) -> None:
    rows = "2024-10-15 00:00:00.1,2,374,44\n2024-10-15 00:00:00.2,0,5,4\n"
    text = f"TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n{rows}"
    table = read(gzip.compress(text.encode()), "trace.csv.gz", format="azure")
    assert table.notes == ("requests with images, which are not modelled: 1",)
    assert len(table) == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (AZURE_ROW + "2023-11-16 18:15:47,abc,5\n", "trace.csv:3: ContextTokens is 'abc'\n  it must be a number"),
        (AZURE_ROW + "2023-11-16 18:15:47,nan,5\n", "trace.csv:3: ContextTokens is nan"),
        (AZURE_ROW + "2023-11-16 18:15:47,inf,5\n", "trace.csv:3: ContextTokens is inf"),
        (AZURE_ROW + "2023-11-16 18:15:47,,5\n", "trace.csv:3: ContextTokens is missing"),
        (AZURE_ROW + "\n2023-11-16 18:15:47,-3,5\n", "trace.csv:4: the number of prompt tokens is -3"),
        (AZURE_ROW + "2023-11-16 18:15:47,5,0\n", "trace.csv:3: the number of output tokens is 0"),
        (AZURE_ROW + "2023-11-16 18:15:47,5,2.5\n", "trace.csv:3: the number of output tokens is 2.5"),
        (AZURE_ROW + "2023-11-16 18:15:47,5\n", "trace.csv:3: the row has 2 columns, the header 3"),
        (AZURE_ROW + "2023-11-16 18:15:45,5,6\n", "trace.csv:3: the request arrives 1.68059 s before the one above it"),
        (AZURE_ROW + "yesterday,5,6\n", "trace.csv:3: TIMESTAMP is 'yesterday'"),
        (AZURE_ROW + ",5,6\n", "trace.csv:3: TIMESTAMP is missing"),
        (AZURE_ROW + "2023-11-16 18:15:47,1e300,6\n", "trace.csv:3: the number of prompt tokens is 1e+300"),
        ("", "trace.csv: the trace holds no request"),
    ],
)
def test_a_wrong_row_is_told_with_its_line(refused: Any, rows: str, message: str) -> None:
    assert message in refused(AZURE + rows, format="azure")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "trace.csv: the file is empty"),
        ("TIMESTAMP,ContextToken,GeneratedTokens\n", "trace.csv:1: there is no column 'ContextTokens'\n  did you mean"),
        ("TIMESTAMP,ContextTokens,ContextTokens,GeneratedTokens\n", "trace.csv:1: there are two columns"),
        (b"\xff\xfe\x00rubbish", "trace.csv:1: cannot be read as CSV"),
        (AZURE.encode() + b"2023-11-16 18:15:47,5,\xff\n", "trace.csv"),
    ],
)
def test_a_file_that_is_no_such_trace_is_refused(refused: Any, text: str | bytes, message: str) -> None:
    assert message in refused(text, format="azure")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "none.csv", "none.csv: no such file"), (tmp_path, "this is a folder")):
        with pytest.raises(TraceError, match=message):
            read_trace(TraceWorkload.model_validate({"trace": path, "format": "azure"}))


def test_line_breaks_within_quotes_are_counted(refused: Any) -> None:
    text = 'note,arrival_s,prompt_tokens,output_tokens\n"two\nlines",0,5,5\nplain,1,0,5\n'
    assert "trace.csv:4: the number of prompt tokens is 0" in refused(text, format="table")


def test_rows_without_tokens_can_be_dropped_and_are_counted(read: Any, refused: Any) -> None:
    text = AZURE + AZURE_ROW + "2023-11-16 18:15:47,5,0\n2023-11-16 18:15:48,5,6\n"
    table = read(text, format="azure", zero_tokens="drop")
    assert table.file_rows.tolist() == [0, 2]
    assert table.notes == ("rows without prompt or output tokens dropped: 1",)
    assert "trace holds no request (rows without" in refused(
        AZURE + "2023-11-16 18:15:47,5,0\n", format="azure", zero_tokens="drop"
    )


def test_burstgpt_s_failed_requests_are_dropped_and_counted(read: Any) -> None:
    rows = "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,0,0,0,Conversation log\n118,GPT-4,417,276,693,API log\n"
    table = read(BURST + rows, format="burstgpt")
    assert table.file_rows.tolist() == [0, 2]
    assert table.arrival_s.tolist() == [5, 118]
    assert table.tenant.names == ("ChatGPT", "GPT-4")
    assert table.tenant.codes.tolist() == [0, 1]
    assert table.notes == ("failed requests (0 response tokens) dropped: 1",)


def test_burstgpt_s_columns_are_found_by_name_whatever_their_order(read: Any) -> None:
    text = "Session ID,Timestamp,Elapsed time,Response tokens,Request tokens\n1,5,0.3,18,472\n"
    table = read(text, format="burstgpt")
    assert (table.prompt_tokens.tolist(), table.output_tokens.tolist(), table.tenant) == ([472], [18], None)


def test_burstgpt_can_be_cut_to_a_model_and_a_kind(read: Any, refused: Any) -> None:
    rows = "5,ChatGPT,472,18,490,Conversation log\n9,GPT-4,1,2,3,API log\n118,GPT-4,417,276,693,Conversation log\n"
    table = read(BURST + rows, format="burstgpt", model="GPT-4", log_type="API log")
    assert table.file_rows.tolist() == [1]
    assert table.tenant.names == ("GPT-4",)
    assert table.notes == ("requests to other models or of other kinds left out: 2",)
    assert "no Model is 'GPT-5'\n  did you mean 'GPT-4'?" in refused(BURST + rows, format="burstgpt", model="GPT-5")


def test_mooncake_keeps_its_hashes_and_counts_in_milliseconds(read: Any) -> None:
    table = read(lines(LINE, LINE | {"timestamp": 1500, "hash_ids": [4, 9]}), "trace.jsonl", format="mooncake")
    assert table.arrival_s.tolist() == [0, 1.5]
    assert table.hash_ids == [(4, 5), (4, 9)]
    assert table.tokens_per_hash == 512


def test_rows_may_lack_hashes(read: Any) -> None:
    bare = {key: value for key, value in LINE.items() if key != "hash_ids"}
    assert read(lines(bare, LINE), "trace.jsonl", format="mooncake").hash_ids == [(), (4, 5)]
    alone = read(lines(bare), "trace.jsonl", format="mooncake")
    assert (alone.hash_ids, alone.tokens_per_hash) == (None, None)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"timestamp": "now"}, "trace.jsonl:2: timestamp is 'now'"),
        ({"timestamp": True}, "trace.jsonl:2: timestamp is True"),
        ({"timestamp": None}, "trace.jsonl:2: timestamp is missing"),
        ({"input_length": float("nan")}, "trace.jsonl:2: input_length is nan"),
        ({"output_length": 0}, "trace.jsonl:2: the number of output tokens is 0"),
        ({"hash_ids": [1]}, "trace.jsonl:2: 1 hash_ids for a prompt of 1.17 blocks"),
        ({"hash_ids": [1, 2, 3]}, "trace.jsonl:2: 3 hash_ids"),
        ({"hash_ids": [1, "a"]}, "trace.jsonl:2: hash_ids is not a list of whole numbers"),
        ({"hash_ids": 4}, "trace.jsonl:2: hash_ids is not a list"),
    ],
)
def test_a_wrong_line_is_told_with_its_number(refused: Any, row: dict[str, Any], message: str) -> None:
    wrong = LINE | row
    if row == {"hash_ids": [1]}:
        wrong |= {"input_length": 1100}
        message = message.replace("1.17", "2.15")
    assert message in refused(lines(LINE, wrong), "trace.jsonl", format="mooncake")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]\n", "trace.jsonl:1: a list where a request was expected"),
        ("{\n", "trace.jsonl:1: not valid JSON"),
        ("", "trace.jsonl: the trace holds no request"),
        (b"\xff\xfe", "trace.jsonl:1: this is not a text file"),
        ('{"timestamp": 1' + "0" * 400 + "}\n", "trace.jsonl:1: "),
        ('{"timestamp": 1' + "0" * 5000 + "}\n", "trace.jsonl:1: "),
        ("[" * 100_000 + "\n", "trace.jsonl:1: not valid JSON"),
        (lines({"session_id": 1, "delay": 5, "input_length": 5, "output_length": 5}), "a turn of a session"),
    ],
)
def test_a_file_that_is_no_jsonl_trace_is_refused(refused: Any, text: str | bytes, message: str) -> None:
    assert message in refused(text, "trace.jsonl", format="mooncake")


def test_vllm_s_timed_trace_takes_vllm_s_flags(read: Any, refused: Any) -> None:
    text = lines({"ts": 2, "in": 20, "out": 5, "ids": [7, 8]}, {"ts": 4, "in": 17, "out": 5, "ids": [7]})
    labels = {"timestamp": "ts", "input_length": "in", "output_length": "out", "hash_ids": "ids"}
    flags = {f"timed_trace_label_{name}": label for name, label in labels.items()}
    table = read(text, "trace.jsonl", format="vllm_timed_trace", timed_trace_sec_multiplier=0.5, **flags)
    assert table.arrival_s.tolist() == [1, 2]
    assert table.hash_ids == [(7, 8), (7,)]
    assert table.tokens_per_hash == 16
    assert "set workload.timed_trace_chunk_hash_size" in refused(lines(LINE), "t.jsonl", format="vllm_timed_trace")


def test_splitwise_traces_are_read_with_their_applications(read: Any, refused: Any) -> None:
    table = read(SPLITWISE + "7,2,0,0.5,1,30,4\n8,2,3,0.75,1,31,5\n", format="splitwise")
    assert table.file_rows.tolist() == [0, 1]
    assert table.arrival_s.tolist() == [0.5, 0.75]
    assert table.tenant.names == ("application-0", "application-3")
    assert read(SPLITWISE + "7,2,0,0.5,1,30,4\n", format="splitwise").tenant is None
    assert "trace.csv:2: request_type is 1" in refused(SPLITWISE + "7,1,0,0.5,1,30,4\n", format="splitwise")
    assert "trace.csv:2: batch_size is 2" in refused(SPLITWISE + "7,2,0,0.5,2,30,4\n", format="splitwise")


def test_vidur_traces_may_have_no_times_and_then_need_arrivals(read: Any, refused: Any) -> None:
    timed = read("arrived_at,num_prefill_tokens,num_decode_tokens\n0.25,3,4\n", format="vidur")
    assert timed.arrival_s.tolist() == [0.25]
    lengths = "num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n3,4,7,0.75\n"
    assert "the file has no arrival times\n  say when requests arrive" in refused(lengths, format="vidur")
    poisson = {"process": "poisson", "rate_per_s": 1.0}
    assert read(lengths, format="vidur", arrivals=poisson).arrival_s is None
    assert "no window of time" in refused(lengths, format="vidur", arrivals=poisson, start_s=1.0)


def test_a_table_s_columns_are_named_by_the_scenario(read: Any) -> None:
    text = "t,p,o,m,who,slo,prio\n1000,5,6,9,anna,fast,-1\n2500,7,8,8,ben,slow,3\n"
    columns = {"arrival_s": "t", "prompt_tokens": "p", "output_tokens": "o", "max_tokens": "m"}
    labels = {"tenant": "who", "slo_class": "slo", "priority": "prio"}
    table = read(text, format="table", columns=columns | labels, time_unit="ms")
    assert table.arrival_s.tolist() == [1, 2.5]
    assert table.max_tokens.tolist() == [9, 8]
    assert (table.tenant.names, table.slo_class.names) == (("anna", "ben"), ("fast", "slow"))
    assert table.priority.tolist() == [-1, 3]


def test_a_table_may_have_wall_times_or_none(read: Any) -> None:
    text = "arrival_s,prompt_tokens,output_tokens\n2023-11-16 18:00:00,5,6\n2023-11-16 18:00:01.5,5,6\n"
    assert read(text, format="table", time_unit="wall_time").arrival_s.tolist() == [0, 1.5]
    arrivals = {"process": "constant", "rate_per_s": 1.0}
    untimed = read("prompt_tokens,output_tokens\n5,6\n", format="table", columns={"arrival_s": None}, arrivals=arrivals)
    assert untimed.arrival_s is None


@pytest.mark.parametrize(
    ("row", "message"),
    [("1,5,6,4,0", "trace.csv:2: max_tokens is 4, but 6 tokens came out"), ("1,5,6,6,0.5", "trace.csv:2: prio is 0.5")],
)
def test_a_table_s_wrong_extras_are_refused(refused: Any, row: str, message: str) -> None:
    text = f"arrival_s,prompt_tokens,output_tokens,max,prio\n{row}\n"
    assert message in refused(text, format="table", columns={"max_tokens": "max", "priority": "prio"})


def test_a_table_may_be_parquet(tmp_path: Path) -> None:
    path = tmp_path / "trace.parquet"
    columns = {"arrival_s": [0.0, 1.5], "prompt_tokens": [5, 6], "output_tokens": [7, 8], "tenant": ["a", "b"]}
    parquet.write_table(arrow.table(columns), path)
    workload = {"trace": path, "format": "table", "columns": {"tenant": "tenant"}}
    table = read_trace(TraceWorkload.model_validate(workload))
    assert table.arrival_s is not None and table.tenant is not None
    assert table.arrival_s.tolist() == [0, 1.5]
    assert table.tenant.names == ("a", "b")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt_tokens": [5, 0]}, "trace.parquet: row 1: the number of prompt tokens is 0"),
        ({"prompt_tokens": [5, None]}, "trace.parquet: row 1: prompt_tokens is missing"),
        ({"prompt_tokens": ["5", "6"]}, "trace.parquet: the column 'prompt_tokens' holds string"),
        ({"output_tokens": [float("nan"), 1.0]}, "trace.parquet: row 0: output_tokens is nan"),
    ],
)
def test_a_wrong_parquet_table_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "trace.parquet"
    parquet.write_table(
        arrow.table({"arrival_s": [0.0, 1.5], "prompt_tokens": [5, 6], "output_tokens": [7, 8]} | change), path
    )
    with pytest.raises(TraceError) as caught:
        read_trace(TraceWorkload.model_validate({"trace": path, "format": "table"}))
    assert message in str(caught.value)


def test_a_file_that_is_no_parquet_is_refused(refused: Any) -> None:
    assert "trace.parquet: cannot be read as Parquet" in refused("rubbish", "trace.parquet", format="table")
