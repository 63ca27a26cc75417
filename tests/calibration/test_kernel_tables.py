"""Kernel tables are read strictly: what is no such table is refused, saying what it lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from servsim.calibration import read_tables
from servsim.errors import ScenarioError

GEMM = "op_name,gemm_dtype,m,n,k,latency\ngemm,bfloat16,1,1024,1024,0.01\ngemm,bfloat16,2,1024,1024,0.02\n"


def test_tables_of_one_kind_are_joined_and_others_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "gemm_perf.csv").write_text(GEMM)
    (tmp_path / "more_perf.csv").write_text(GEMM)
    (tmp_path / "copies.csv").write_text("op_name,latency\ndevice_to_device,1\n")
    (table,) = read_tables([tmp_path])
    assert (table.kind, len(table), table.names) == ("gemm", 4, ("gemm_perf.csv", "more_perf.csv"))
    assert table.measured_with == "not stated"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("m,n\n1,2\n", "no column latency and op_name"),
        ("op_name,latency\ngemn,1\n", "op_name is gemn"),
        ("op_name,latency,m\ngemm,1,2\n", "a table of gemm without gemm_dtype, n, k"),
        (GEMM.replace("0.01", "-1"), "column latency holds -1 in row 1 of its data\n  latency is in milliseconds"),
        (GEMM.replace("0.01", "fast"), "column latency holds words"),
        (GEMM.replace("16,1,", "16,x,"), "column m holds words\n  m holds numbers, as docs/calibration.md says"),
        (GEMM.replace("16,2,", "16,,"), "column m holds nan in row 2 of its data"),
        (GEMM.replace("16,2,1024", "16,2,0"), "column n holds 0 in row 2 of its data"),
        ("", "cannot be read"),
    ],
)
def test_what_is_no_table_of_kernels_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "gemm_perf.csv"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=message) as raised:
        read_tables([path])
    assert "gemm_perf.csv" in str(raised.value)


def test_a_file_that_is_missing_and_a_folder_without_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="no such file"):
        read_tables([tmp_path / "none.csv"])
    with pytest.raises(ScenarioError, match=r"no \*_perf.parquet"):
        read_tables([tmp_path])
