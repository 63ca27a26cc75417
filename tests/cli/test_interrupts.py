"""Ctrl-C, sent to real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "servsim"]
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see how far a process is")


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def cpu_s(process: subprocess.Popen[str]) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    give_up_s = time.monotonic() + 60
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up_s
        time.sleep(0.02)


def interrupt(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Ctrl-C as a terminal sends it: to the whole group."""
    os.killpg(process.pid, signal.SIGINT)
    return process.communicate(timeout=60)


def test_an_interrupted_run_keeps_what_had_happened_and_says_so(small):
    process = start("run", str(small), "--set", "workload.num_requests=100000000")
    wait_until(lambda: cpu_s(process) > 2.5, process)  # imports take 0.5
    out, err = interrupt(process)
    assert process.returncode == 130, err
    assert "Traceback" not in err and "marked partial" in err
    assert "TTFT" in out
    summary = json.loads(Path("results/small/summary.json").read_text())
    counts = summary["counts"]
    assert summary["partial"] is True
    assert counts["submitted"] == counts["finished"] + counts["rejected"] + counts["unfinished"] > 100
    rows = Path("results/small/requests.csv").read_text().splitlines()
    ids = [int(row.partition(",")[0]) for row in rows[1:]]
    assert ids == list(range(counts["submitted"]))  # none lost, none twice


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_interrupted_comparison_keeps_the_runs_that_had_ended(small, jobs):
    process = start(
        "compare", str(small), "--vary", "instance.scheduler.policy=fcfs,sjf", "--seeds", "1000", "--jobs", jobs,
        "--no-figures",
    )  # fmt: skip
    wait_until(lambda: len(list(Path("results").glob(".*/runs/*/*/summary.json"))) >= 4, process)
    out, err = interrupt(process)
    assert process.returncode == 130, err
    assert "Traceback" not in err and "partial" in err
    assert "partial: " in out
    grid = json.loads(Path("results/small-compare/grid.json").read_text())
    assert grid["partial"] is True
    assert 2 <= len(grid["runs"]) < grid["planned_runs"] == 2000
    for run in grid["runs"]:
        assert Path("results/small-compare", run["folder"], "summary.json").is_file()
    assert not list(Path("results").rglob(".*"))  # nothing half-written is left


def test_ctrl_c_before_anything_ended_writes_nothing(small):
    process = start(
        "compare", str(small), "--vary", "seed=1,2", "--set", "workload.num_requests=100000000", "--jobs", "1"
    )
    wait_until(lambda: cpu_s(process) > 2.0, process)
    _, err = interrupt(process)
    assert process.returncode == 130
    assert "nothing was written" in err and "Traceback" not in err
    assert not list(Path("results").iterdir())
