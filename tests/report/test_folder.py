import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from made_up_run import made_up_run

from servsim.errors import ResultError
from servsim.metrics import derive, summarise
from servsim.report.columns import read_columns, write_columns
from servsim.report.folder import check_free, json_bytes, read_run, result_folder, write_run
from servsim.scenario import load_scenario

RUN = made_up_run(seed=11, rejected=0.05, preemption=0.1, tenants=("plain", 'quo"ted, "name"'))
SCENARIO = SimpleNamespace(
    name="made-up",
    seed=1,
    num_engines=1,
    slo=SimpleNamespace(ttft_s=0.2, tpot_s=None, e2e_s=None),
    metrics=SimpleNamespace(warmup_s=0.0, cooldown_s=0.0),
    to_yaml=lambda: "name: made-up\n",
)
SUMMARY = summarise(RUN.records, SCENARIO, calibration="measured", version="0")


def write(out, **options):
    write_run(out, SCENARIO, RUN.records, SUMMARY, **options)


@pytest.mark.parametrize("table_format", ["csv", "parquet"])
def test_a_run_reads_back_equal(tmp_path, table_format):
    write(tmp_path / "run", table_format=table_format)
    found = read_run(tmp_path / "run")
    assert found.summary == SUMMARY and found.name == "made-up"
    assert_equal(found.requests, derive(RUN.records, SCENARIO.slo))
    assert_equal(found.strides, RUN.records.strides)
    assert found.pauses["reason"].tolist() == ["preempted"] * len(RUN.records.pauses["start_s"])


def test_the_scenario_of_a_run_can_be_loaded_again(tmp_path):
    lengths = {
        "prompt_tokens": {"distribution": "fixed", "value": 100},
        "output_tokens": {"distribution": "fixed", "value": 9},
    }
    scenario = load_scenario(
        {
            "name": "real",
            "model": "llama-3.1-8b",
            "instance": {"hardware": "h100-sxm"},
            "workload": {
                "arrivals": {"process": "poisson", "rate_per_s": 2.0},
                "lengths": lengths,
                "num_requests": 200,
            },
            "slo": {"ttft_s": 0.2, "tpot_s": 0.02},
            "metrics": {"warmup_s": 1.0},
        }
    )
    summary = summarise(RUN.records, scenario, calibration="measured", version="0")
    write_run(tmp_path / "run", scenario, RUN.records, summary)
    assert read_run(tmp_path / "run").scenario.to_yaml() == scenario.to_yaml()
    assert summary["slo_bounds"] == {"default": {"ttft_s": 0.2, "tpot_s": 0.02}}
    assert summary["measured_window"]["start_s"] == 1.0


def test_the_files_are_those_of_the_design(tmp_path):
    write(tmp_path / "run")
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["pauses.csv", "requests.csv", "scenario.yaml", "strides.csv", "summary.json"]
    header = (tmp_path / "run" / "requests.csv").read_text().splitlines()[0]
    assert header == (
        "request_id,arrival_s,prompt_tokens,output_tokens,cached_tokens,tenant,slo_class,instance,scheduled_s,"
        "first_token_s,finish_s,queue_s,transfer_wait_s,ttft_s,tpot_s,e2e_s,preemptions,status,slo_met"
    )
    header = (tmp_path / "run" / "strides.csv").read_text().splitlines()[0]
    assert header == (
        "instance,start_s,end_s,steps,first_step_s,last_step_s,prefill_tokens,decode_seqs,waiting,kv_blocks_used,"
        "kv_blocks_total,kv_tokens_stored,kv_tokens_reserved,kv_external_fragmentation"
    )


def test_the_same_run_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_an_existing_folder_is_refused_and_left_alone(tmp_path):
    write(tmp_path / "run")
    (tmp_path / "run" / "requests.csv").write_text("mine")
    with pytest.raises(ResultError, match=r"run: the result folder exists already\n  .*--overwrite"):
        write(tmp_path / "run")
    assert (tmp_path / "run" / "requests.csv").read_text() == "mine"


def test_an_existing_folder_is_replaced_when_told(tmp_path):
    write(tmp_path / "run", table_format="parquet")
    write(tmp_path / "run", overwrite=True)
    assert not (tmp_path / "run" / "requests.parquet").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("files", [["notes.txt"], ["summary.json", "notes.txt"], ["summary.json", "sub/thesis.tex"]])
def test_a_folder_with_files_of_others_is_not_replaced_even_when_told(tmp_path, files):
    for name in files:
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text("precious")
    with pytest.raises(ResultError, match="did not write all of it"):
        write(tmp_path / "run", overwrite=True)
    assert all((tmp_path / "run" / name).read_text() == "precious" for name in files)


def test_an_empty_folder_is_used(tmp_path):
    (tmp_path / "run").mkdir()
    write(tmp_path / "run")
    assert read_run(tmp_path / "run").summary == SUMMARY


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(ResultError, match="not a folder"):
        write(tmp_path / "run", overwrite=True)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("before", [True, False])
def test_nothing_half_written_is_left(tmp_path, error, before):
    if before:
        write(tmp_path / "run")

    def interrupted():
        with result_folder(tmp_path / "run", overwrite=True) as folder:
            (folder / "summary.json").write_text("{}")
            raise error

    with pytest.raises(error):
        interrupted()
    assert [path.name for path in tmp_path.iterdir()] == (["run"] if before else [])
    assert not before or read_run(tmp_path / "run").summary == SUMMARY


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_one_message(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ResultError, match="cannot be written"):
        write(tmp_path / "run")


def test_a_place_that_takes_nothing_is_told_before_anything_is_simulated(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(ResultError, match=r"deep/run: cannot be written: \S*file is not a folder\n  choose another"):
        check_free(tmp_path / "file" / "deep" / "run", overwrite=False)
    asked = []
    monkeypatch.setattr("os.access", lambda path, mode: asked.append(path))
    for out in (tmp_path / "new" / "run", tmp_path):  # an empty folder is replaced, which takes the one around it
        with pytest.raises(ResultError, match="is read-only\n  choose another with --out"):
            check_free(out, overwrite=True)
    assert asked == [tmp_path, tmp_path.parent]


def test_what_is_no_run_is_refused_with_its_place(tmp_path):
    with pytest.raises(ResultError, match="no such folder"):
        read_run(tmp_path / "none")
    with pytest.raises(ResultError, match=r"there is no summary\.json"):
        read_run(tmp_path)
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(ResultError, match=r"summary\.json: not JSON"):
        read_run(tmp_path)
    (tmp_path / "summary.json").write_text('{"schema_version": 99}')
    with pytest.raises(ResultError, match="schema_version 99"):
        read_run(tmp_path)


def test_a_damaged_table_is_refused_with_its_place(tmp_path):
    write(tmp_path / "run")
    (tmp_path / "run" / "requests.csv").write_text("request_id,arrival_s\n1,soon\n")
    with pytest.raises(ResultError, match=r"requests\.csv: not a table"):
        _ = read_run(tmp_path / "run").requests
    (tmp_path / "run" / "strides.csv").write_text("instance,start_s\n1,2.0\n")
    with pytest.raises(ResultError, match=r"strides\.csv: column 'end_s' is missing"):
        _ = read_run(tmp_path / "run").strides
    (tmp_path / "run" / "pauses.csv").unlink()
    with pytest.raises(ResultError, match=r"pauses\.csv: no such table"):
        _ = read_run(tmp_path / "run").pauses


def test_floats_read_back_equal_and_nan_is_empty(tmp_path):
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.random(2000) * 10.0 ** rng.integers(-300, 300, 2000), [0.1 + 0.2, math.nan, 5e-324]])
    write_columns(tmp_path / "t.csv", {"n": np.arange(len(values)), "x": values})
    np.testing.assert_array_equal(read_columns(tmp_path / "t.csv", {"x": "f8"})["x"], values)
    assert (tmp_path / "t.csv").read_text().splitlines()[2002] == "2001,"


def test_a_table_without_rows_keeps_its_types(tmp_path):
    write_columns(tmp_path / "t.csv", {"x": np.empty(0), "name": np.empty(0, dtype="U3")})
    found = read_columns(tmp_path / "t.csv", {"x": "f8", "name": "U"})
    assert found["x"].dtype == np.float64 and len(found["name"]) == 0


@pytest.mark.parametrize("name", ["plain", "comma, and", 'quo"te', "line\nbreak", "", "größer 漢字"])
def test_any_name_of_a_tenant_survives(tmp_path, name):
    column = np.array(["other", name, "other", name])
    write_columns(tmp_path / "t.csv", {"tenant": column, "n": np.arange(4)})
    assert read_columns(tmp_path / "t.csv", {"tenant": "U"})["tenant"].tolist() == column.tolist()


def test_json_keeps_its_order_and_writes_what_is_not_finite_as_null():
    text = json_bytes({"b": math.nan, "a": [math.inf, 0.1], "c": {"n": 0, "t": (True, None)}}).decode()
    assert json.loads(text) == {"b": None, "a": [None, 0.1], "c": {"n": 0, "t": [True, None]}}
    assert text.index('"b"') < text.index('"a"') and text.endswith("}\n")


def test_writing_imports_neither_pandas_nor_matplotlib(tmp_path):
    program = (
        "import sys; from pathlib import Path; import numpy as np; import servsim.report\n"
        "from servsim.report.columns import write_columns\n"
        f"write_columns(Path({str(tmp_path / 't.csv')!r}), {{'x': np.ones(3), 's': np.array(['a'] * 3)}})\n"
        "print([name for name in ('pandas', 'matplotlib', 'rich', 'scipy') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for name, column in expected.items():
        if isinstance(column, np.ma.MaskedArray):
            assert found[name].tolist() == column.tolist()
        else:
            np.testing.assert_array_equal(found[name], column, err_msg=name)
